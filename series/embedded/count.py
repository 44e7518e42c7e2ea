"""How many points a query means: counted in the day files, without reading what they say."""

from __future__ import annotations

from pathlib import Path

from series.embedded.days import list_days_between
from series.embedded.directory import Group, choose
from series.embedded.files import Files
from series.embedded.scan import Day, bindings, open_day, span_of
from series.embedded.sql import number
from series.port import RangeQuery
from wire.clock import MAX_NS, MIN_NS


def count_points(files: Files, folder: Path, catalog_path: Path, query: RangeQuery) -> int:
    """Count the rows of a range; its fields, limit and cursor are ignored."""
    begin, end = max(query.start_ns, MIN_NS), min(query.end_ns, MAX_NS + 1)
    with files.lend(catalog_path) as catalog:
        if catalog is None or begin >= end:
            return 0
        groups = choose(catalog, query.tenant, query.devices, query.measurement, ())
    total = 0
    for day in list_days_between(folder, begin, end) if groups else []:
        with open_day(files, folder, day) as opened:
            if opened is not None:
                total += _count_day(opened, groups, begin, end)
    return total


def _count_day(day: Day, groups: list[Group], begin_ns: int, end_ns: int) -> int:
    chosen = day.choose((entry.sid, entry.rank, part) for part, group in enumerate(groups) for entry in group.entries)
    bound, total = bindings(span_of(day.number, begin_ns, end_ns)), 0
    for part, series in chosen.items():
        group = groups[part]
        if any(day.expression(group.table, field, group.own_columns) for field in group.numbers.values()):
            sql = f"SELECT count(*) {day.source(group.table, series)} AND c.part=:part"
            total += number(day.connection, sql, {**bound, "part": part})
    return total
