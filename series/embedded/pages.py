"""Pages of points out of the day files, ordered by time, device, measurement, tags."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from series.embedded import cursor as cursors
from series.embedded.days import list_days_between
from series.embedded.directory import Entry, Group, choose
from series.embedded.files import Files
from series.embedded.scan import Day, Span, bindings, open_day, span_of
from series.embedded.values import decode, unpack_extra
from series.port import Page, RangeQuery
from wire.clock import MAX_NS, MIN_NS
from wire.errors import BadRequest
from wire.points import FieldValue, Point

FIRST_WINDOW = 8  # minutes read at first; doubled until the page is full, so that a page does not cost a day


class Start(NamedTuple):
    """Where a page begins: after this time, or at it after this rank."""

    time_ns: int
    rank: int


class Form(NamedTuple):
    """What the rows of a measurement give in one day: fields with a column, then, when wanted, those in `extra`."""

    own: list[tuple[str, int]]
    extra: dict[int, str]
    sql: str  # of the values
    condition: str  # that a row holds one of the fields


class Found(NamedTuple):
    """A row, not yet a point."""

    time_ns: int
    rank: int
    entry: Entry
    form: Form
    judged_by: int
    values: tuple[Any, ...]


def read_page(files: Files, folder: Path, catalog_path: Path, query: RangeQuery) -> Page:
    """Give one page of a range query."""
    if query.limit < 1:
        raise BadRequest(f"limit {query.limit} is less than 1", fields=["limit"])
    begin, end = max(query.start_ns, MIN_NS), min(query.end_ns, MAX_NS + 1)
    after = cursors.read_range(query.cursor) if query.cursor is not None else None
    if after is not None:
        begin = max(begin, after.time_ns)
    with files.lend(catalog_path) as catalog:
        if catalog is None or begin >= end:
            return Page([])
        groups = choose(catalog, query.tenant, query.devices, query.measurement, query.fields)
    start = Start(begin, -1)
    if after is not None and begin == after.time_ns:
        start = Start(begin, _rank_of(groups, (query.tenant, after.device, after.measurement, after.tags)))
    found: list[Found] = []
    for day in list_days_between(folder, begin, end) if groups else []:
        if len(found) > query.limit:
            break
        with open_day(files, folder, day) as opened:
            if opened is not None:
                found += _read_day(opened, groups, query, start, end, query.limit + 1 - len(found))
    kept = found[: query.limit]
    following = cursors.after_point(kept[-1].time_ns, kept[-1].entry.key) if len(found) > query.limit else None
    points = [_to_point(row) for row in kept]
    return Page([point for point in points if point.fields], following)


def _rank_of(groups: list[Group], key: tuple[str, str, str, str]) -> int:
    """Rank of the last series not after the key; the series itself may be gone by now."""
    return max((entry.rank for group in groups for entry in group.entries if entry.key <= key), default=-1)


def _read_day(day: Day, groups: list[Group], query: RangeQuery, start: Start, end_ns: int, wanted: int) -> list[Found]:
    chosen = day.choose((entry.sid, entry.rank, part) for part, group in enumerate(groups) for entry in group.entries)
    forms = [_form_of(day, group, has_filter=bool(query.fields)) for group in groups]
    parts = [(part, form) for part, form in enumerate(forms) if form is not None and part in chosen]
    entries = {entry.rank: entry for part, _ in parts for entry in groups[part].entries}
    found: list[Found] = []
    for span in _windows(span_of(day.number, start.time_ns, end_ns)):
        rows: list[Found] = []
        for part, form in parts:
            table = groups[part].table
            sql = (
                f"SELECT m.ts, c.rank, {day.judged(table)}{form.sql} {day.source(table, chosen[part])} "
                f"AND c.part=:part AND (m.ts > :begin OR c.rank > :rank){form.condition} "
                "ORDER BY m.ts, c.rank LIMIT :limit"
            )
            bound = bindings(span, part=part, begin=start.time_ns, rank=start.rank, limit=wanted - len(found))
            for ts, rank, judged_by, *values in day.connection.execute(sql, bound):
                rows.append(Found(ts, rank, entries[rank], form, judged_by or 0, tuple(values)))
        rows.sort(key=_by_time_and_rank)
        found += rows[: wanted - len(found)]
        if len(found) >= wanted:
            break
    return found


def _windows(span: Span) -> Iterator[Span]:
    """Cut a span into growing runs of minutes; times stay limited by the whole span."""
    low, size = span.low, FIRST_WINDOW
    while low <= span.high:
        yield span._replace(low=low, high=min(low + size - 1, span.high))
        low, size = low + size, size * 2


def _form_of(day: Day, group: Group, *, has_filter: bool) -> Form | None:
    own: list[tuple[str, int]] = []
    extra: dict[int, str] = {}
    expressions: list[str] = []
    for name, number in group.numbers.items():
        expression = day.expression(group.table, number, group.own_columns)
        if expression is None:
            continue
        expressions.append(expression)
        if number < group.own_columns:
            own.append((name, number))
        else:
            extra[number] = name
    if not expressions:
        return None
    sql = "".join(f", m.f{number}" for _, number in own) + (", m.extra" if extra else "")
    condition = f" AND ({' OR '.join(f'{one} IS NOT NULL' for one in expressions)})" if has_filter else ""
    return Form(own, extra, sql, condition)


def _to_point(row: Found) -> Point:
    types = row.entry.types
    fields: dict[str, FieldValue] = {}
    for (name, number), stored in zip(row.form.own, row.values, strict=False):  # `extra` may come after
        if stored is not None and number in types:  # else the field joined the series after we read the catalog
            fields[name] = decode(stored, types[number])
    if row.form.extra and row.values[-1] is not None:
        for number, stored in unpack_extra(row.values[-1]).items():
            if number in row.form.extra and number in types:
                fields[row.form.extra[number]] = decode(stored, types[number])
    tenant, device, measurement, _ = row.entry.key
    return Point(device, measurement, row.time_ns, fields, row.entry.tags, tenant, judged_by=row.judged_by)


def _by_time_and_rank(row: Found) -> tuple[int, int]:
    return row.time_ns, row.rank
