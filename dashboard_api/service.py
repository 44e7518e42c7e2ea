"""The verbs of reading: latest, range, aggregate, export, and grouping by tag or type. Knows no Flask, no engine."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

from dashboard_api.offload import Offload
from series.port import AggregateFn, AggregateQuery, AggregateRow, Page, RangeQuery, SeriesReader
from wire.clock import NS_PER_S
from wire.devices import TENANT
from wire.errors import BadRequest
from wire.points import Point

MAX_LIMIT = 10_000  # points of one page
EXPORT_PAGE = 2_000  # points held at once while an export runs
EXPORTS_AT_ONCE = 2  # pages of exports read at one time: the other threads are left to people who wait
MAX_ROWS = 10_000
HOUR_NS = 3600 * NS_PER_S
GROUPINGS = "device, type or tag:<key>"
_EVERY_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 21_600, 43_200, 86_400)
DEFAULT_BUCKETS = 300  # about what a chart shows


@dataclass(frozen=True, slots=True)
class Entry:
    """A device as the registry's directory lists it."""

    id: str
    type: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    is_online: bool = False


class Directory(Protocol):
    """The devices of each tenant by id, a few seconds old at most."""

    def entries(self, tenant: str) -> Mapping[str, Entry]:
        """Give the directory of a tenant.

        Raises:
            PeerUnavailable: the registry is away and nothing is remembered.
        """
        ...

    def chosen(self, tenant: str, query: str, scope: str = "") -> Sequence[str]:
        """Give the ids of the devices that a query of the registry's language finds, and a token's scope as well.

        Raises:
            HeadwaterError: the query cannot be read (`bad_query`).
            BadRequest: it finds too many.
            PeerUnavailable: the registry is away and nothing is remembered.
        """
        ...


@dataclass(frozen=True, slots=True)
class Selection:
    """What every query narrows by; empty means all. With `query`, only devices that it finds; also with `scope`."""

    devices: Sequence[str] = ()
    fields: Sequence[str] = ()
    measurement: str | None = None
    tenant: str = TENANT
    query: str = ""
    scope: str = ""


@dataclass(frozen=True, slots=True)
class Span:
    """start_ns <= time < end_ns."""

    start_ns: int
    end_ns: int

    def __post_init__(self) -> None:
        if self.start_ns > self.end_ns:
            raise BadRequest("start is later than end", fields=["start", "end"])


class Queries:
    """Answers questions about points; blocking reads run off the loop."""

    def __init__(self, reader: SeriesReader, directory: Directory, offload: Offload) -> None:
        self._reader = reader
        self._directory = directory
        self._offload = offload
        self._export_slots = threading.BoundedSemaphore(EXPORTS_AT_ONCE)

    def latest(self, selection: Selection, *, limit: int = 1_000, cursor: str | None = None) -> Page:
        """Give the newest value of every field, ordered by device."""
        settled = self._settled(selection)
        if settled is None:
            return Page([], None)
        return self._offload.run(
            lambda: self._reader.latest(
                settled.devices, settled.fields, limit=limit, cursor=cursor, tenant=settled.tenant
            )
        )

    def range(self, selection: Selection, span: Span, *, limit: int = 1_000, cursor: str | None = None) -> Page:
        """Give a page of points, oldest first."""
        settled = self._settled(selection)
        if settled is None:
            return Page([], None)
        query = _range_query(settled, span, limit, cursor)
        return self._offload.run(lambda: self._reader.range(query))

    def export(self, selection: Selection, span: Span, encode: Callable[[Sequence[Point]], bytes]) -> Iterator[bytes]:
        """Give all points of the span, encoded a page at a time, off the loop like the reading itself.

        Page by page, not by the port's `export`: a slow client would else pin a read transaction, and with it the
        write-ahead log, for as long as it likes.
        """
        settled = self._settled(selection)
        if settled is None:
            yield encode([])
            return
        query = _range_query(settled, span, EXPORT_PAGE, None)
        while True:
            with self._export_slots:
                encoded, cursor = self._offload.run(partial(self._encoded_page, query, encode))
            yield encoded
            if cursor is None:
                return
            query = replace(query, cursor=cursor)

    def aggregate(
        self, selection: Selection, span: Span, *, fns: Sequence[AggregateFn], every_ns: int | None, group_by: str = ""
    ) -> list[dict[str, Any]]:
        """Give buckets in their public shape: time_ns, group, values.

        Raises:
            BadRequest: the grouping is not one of ours, or the rows would be too many.
        """
        key, group_of = self._grouping(group_by, selection.tenant)
        settled = self._settled(selection)
        if settled is None:
            return []
        query = AggregateQuery(
            start_ns=span.start_ns,
            end_ns=span.end_ns,
            every_ns=every_ns or fitting_every_ns(span),
            fields=settled.fields,
            fns=fns,
            devices=settled.devices,
            measurement=settled.measurement,
            group_of=group_of,
            tenant=settled.tenant,
            max_rows=MAX_ROWS,
        )
        rows: list[AggregateRow] = self._offload.run(lambda: self._reader.aggregate(query))
        return [{"time": row.time_ns, "group": {key: row.group}, "values": row.values} for row in rows]

    def _settled(self, selection: Selection) -> Selection | None:
        """Put the devices that query and scope find in their place; None: they find none."""
        if not selection.query.strip() and not selection.scope:
            return selection
        found = self._directory.chosen(selection.tenant, selection.query, selection.scope)
        if selection.devices:
            named = set(selection.devices)
            found = [device for device in found if device in named]
        return replace(selection, devices=found, query="", scope="") if found else None

    def health(self) -> str:
        """Give "ok", or what is wrong with the store."""
        return self._offload.run(self._reader.health)

    def _encoded_page(self, query: RangeQuery, encode: Callable[[Sequence[Point]], bytes]) -> tuple[bytes, str | None]:
        page = self._reader.range(query)
        return encode(page.points), page.next

    def _grouping(self, group_by: str, tenant: str) -> tuple[str, dict[str, str] | None]:
        if group_by in ("", "device"):
            return "device", None
        entries = self._directory.entries(tenant).values()
        if group_by == "type":
            return "type", {entry.id: entry.type for entry in entries if entry.type}
        kind, _, key = group_by.partition(":")
        if kind != "tag" or not key:
            raise BadRequest(f"group_by is {GROUPINGS}, not {group_by[:60]!r}", fields=["group_by"])
        return key, {entry.id: entry.tags[key] for entry in entries if key in entry.tags}


def fitting_every_ns(span: Span) -> int:
    """Choose a bucket so that a span has about as many as a chart shows."""
    wanted_s = (span.end_ns - span.start_ns) / NS_PER_S / DEFAULT_BUCKETS
    return next((step for step in _EVERY_S if step >= wanted_s), _EVERY_S[-1]) * NS_PER_S


def _range_query(selection: Selection, span: Span, limit: int, cursor: str | None) -> RangeQuery:
    return RangeQuery(
        start_ns=span.start_ns,
        end_ns=span.end_ns,
        devices=selection.devices,
        fields=selection.fields,
        measurement=selection.measurement,
        limit=limit,
        cursor=cursor,
        tenant=selection.tenant,
    )
