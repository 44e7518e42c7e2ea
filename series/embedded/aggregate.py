"""Aggregates: reduced per group and bucket inside each day file by SQL, joined over days and measurements in `totals`.

Numbers combine; strings only count, first and last; booleans count as 0 and 1 and give booleans for min, max, first
and last. Sums of integers are exact. A sum or mean that no finite float can hold is left out. Of points at the same
time, `first` is the one that comes first in the order of a range, `last` the one that comes last.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from series.embedded.days import BUCKET_NS, DAY_NS, list_days_between
from series.embedded.directory import Group, choose
from series.embedded.files import Files
from series.embedded.scan import Day, Span, bindings, open_day, span_of
from series.embedded.totals import Edge, Total, Totals
from series.embedded.values import BOOL, INT, STRING, decode
from series.port import AGGREGATE_FNS, AggregateFn, AggregateQuery, AggregateRow
from wire.clock import MAX_NS, MIN_NS
from wire.errors import BadRequest

KINDS = 4  # type codes; a part of the chosen series is group * KINDS + code

_COUNT = ["count({v})"]
_NUMBERS = ["total({v})", "min({v})", "max({v})"]
# Integers are summed in halves, exactly; those beyond int64 are text. A string field of another device may come along
# with these, kept short by its length.
_INTEGERS = [
    "sum({v} >> 32) FILTER (WHERE typeof({v})='integer')",
    "sum({v} & 4294967295) FILTER (WHERE typeof({v})='integer')",
    "group_concat({v}) FILTER (WHERE typeof({v})='text' AND length({v})<=20)",
]
_JOINED = ["sum(a0)", "total(a1)", "min(a2)", "max(a3)", "sum(a4)", "sum(a5)", "group_concat(a6)"]


class Work(NamedTuple):
    """A query with its series chosen and its groups named."""

    every_ns: int
    fns: tuple[AggregateFn, ...]
    groups: list[Group]
    names: list[str]
    group_at: dict[str, int]  # device -> place in `names`
    totals: Totals


class Column(NamedTuple):
    """One field of one measurement in one day."""

    day: Day
    span: Span
    name: str
    sql: str  # of its value
    table: int
    kinds: set[int]
    chosen: int  # series


def read_aggregate(files: Files, folder: Path, catalog_path: Path, query: AggregateQuery) -> list[AggregateRow]:
    """Give the rows of an aggregate, by time, then group."""
    _check(query)
    begin, end = max(query.start_ns, MIN_NS), min(query.end_ns, MAX_NS + 1)
    with files.lend(catalog_path) as catalog:
        if catalog is None or begin >= end:
            return []
        work = _plan(query, choose(catalog, query.tenant, query.devices, query.measurement, query.fields))
    for day in list_days_between(folder, begin, end) if work.groups else []:
        with open_day(files, folder, day) as opened:
            if opened is not None:
                _add_day(opened, span_of(day, begin, end), work)
    return list(work.totals.rows(work.fns))


def _check(query: AggregateQuery) -> None:
    if query.every_ns < 1:
        raise BadRequest("a bucket is at least 1 ns long", fields=["every"])
    unknown = [name for name in query.fns if name not in AGGREGATE_FNS]
    if unknown or not query.fns:
        raise BadRequest(f"fn is of {', '.join(AGGREGATE_FNS)}; got {unknown or 'none'}", fields=["fn"])


def _plan(query: AggregateQuery, groups: list[Group]) -> Work:
    group_of = query.group_of
    kept = []
    for one in groups:
        entries = [entry for entry in one.entries if group_of is None or entry.device in group_of]
        if entries:
            kept.append(Group(one.table, one.own_columns, one.numbers, entries))
    devices = {entry.device for group in kept for entry in group.entries}
    name_of = {device: device if group_of is None else group_of[device] for device in devices}
    names = sorted(set(name_of.values()))
    places = {name: place for place, name in enumerate(names)}
    group_at = {device: places[name] for device, name in name_of.items()}
    return Work(query.every_ns, tuple(dict.fromkeys(query.fns)), kept, names, group_at, Totals(query.max_rows))


def _add_day(day: Day, span: Span, work: Work) -> None:
    for group in work.groups:
        for name, number in group.numbers.items():
            sql = day.expression(group.table, number, group.own_columns)
            if sql is None:
                continue
            typed = {entry.rank: entry for entry in group.entries if number in entry.types}
            chosen = day.choose(
                (entry.sid, entry.rank, work.group_at[entry.device] * KINDS + entry.types[number])
                for entry in typed.values()
            )
            if not chosen:
                continue
            column = Column(day, span, name, sql, group.table, {part % KINDS for part in chosen}, sum(chosen.values()))
            _add_reduced(column, work)
            if {"first", "last"} & set(work.fns):
                _add_edges(column, work)


def _add_reduced(column: Column, work: Work) -> None:
    day, what = column.day, list(_COUNT)
    if column.kinds != {STRING}:
        what += _NUMBERS
    if INT in column.kinds:
        what += _INTEGERS
    source = day.source(column.table, column.chosen)
    reduced = [one.format(v=column.sql) for one in what]
    if work.every_ns % BUCKET_NS == 0 and work.every_ns <= DAY_NS and not day.is_sought(column.chosen):
        # The key's own order gives the groups (minute, series) without sorting a million rows.
        named = ", ".join(f"{one} AS a{at}" for at, one in enumerate(reduced))
        sql = (
            f"SELECT part, (bucket * :minute + :into) / :every, {', '.join(_JOINED[: len(what)])} FROM "  # noqa: S608 - constants of ours
            f"(SELECT m.bucket AS bucket, c.part AS part, {named} {source} GROUP BY m.bucket, m.sid) GROUP BY 1, 2"
        )
    else:
        sql = f"SELECT c.part, {_bucket_sql(work)}, {', '.join(reduced)} {source} GROUP BY 1, 2"
    begin = day.number * DAY_NS // work.every_ns * work.every_ns
    for part, index, count, *rest in day.connection.execute(sql, _bind(column, work)):
        if count:
            place, kind = divmod(part, KINDS)
            total = work.totals.of(max(begin + index * work.every_ns, MIN_NS), work.names[place], column.name)
            total.add(_total_of(kind, count, rest))


def _add_edges(column: Column, work: Work) -> None:
    begin = column.day.number * DAY_NS // work.every_ns * work.every_ns
    source = column.day.source(column.table, column.chosen)
    for pick in ("min", "max"):  # SQLite takes the other columns from the row of the minimum or maximum
        sql = (
            f"SELECT c.part, c.rank, {_bucket_sql(work)}, {pick}(m.ts), {column.sql} {source} "
            f"AND {column.sql} IS NOT NULL GROUP BY 2, 3"
        )
        for part, rank, index, time_ns, stored in column.day.connection.execute(sql, _bind(column, work)):
            place, kind = divmod(part, KINDS)
            total = work.totals.of(max(begin + index * work.every_ns, MIN_NS), work.names[place], column.name)
            total.see(Edge(time_ns, rank, decode(stored, kind)))


def _bucket_sql(work: Work) -> str:
    """Number of the bucket inside the day, from 0, so that the division of negative times never rounds up."""
    return "(m.ts - :base + :shift) / :every" if work.every_ns <= DAY_NS else "m.ts >= :boundary"


def _bind(column: Column, work: Work) -> dict[str, Any]:
    day_ns = column.day.number * DAY_NS
    begin = day_ns // work.every_ns * work.every_ns
    bound = bindings(column.span)
    if work.every_ns > DAY_NS:  # one boundary inside the day at most; its distance from `begin` may not fit 64 bits
        boundary = begin + work.every_ns
        # A boundary after all time: nothing is past it, and the last time of all may not count as past.
        return bound | {"boundary": boundary if boundary <= MAX_NS else "never"}
    base = max(day_ns, MIN_NS)  # the first day of all begins before signed 64-bit ns do
    shifts = {"base": base, "shift": base - begin, "into": day_ns - begin}
    return bound | shifts | {"every": work.every_ns, "minute": BUCKET_NS}


def _total_of(kind: int, count: int, rest: list[Any]) -> Total:
    if kind == STRING:
        return Total(count)
    total, low, high = rest[:3]
    if kind == BOOL:
        return Total(count, count, int(total), bool(low), bool(high))
    if kind == INT:
        return _total_of_integers(count, rest)
    return Total(count, count, float("nan") if total is None else total, low, high)


def _total_of_integers(count: int, rest: list[Any]) -> Total:
    low, high, upper, lower, listed = rest[1:]
    beyond = [int(text) for text in listed.split(",")] if listed else []
    within = [one for one in (low, high) if isinstance(one, int)]
    total = ((upper or 0) << 32) + (lower or 0) + sum(beyond)
    return Total(count, count, total, min(within + beyond), max(within + beyond))
