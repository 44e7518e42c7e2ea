"""HTTP of the queries: parameters in, points out. Knows neither engine nor registry."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain
from typing import Annotated, Any, Literal

import orjson
from flask import Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from chassis.sheets import Cell, to_csv
from chassis.web import Api, Call
from dashboard_api.descriptions import Descriptions, describe
from dashboard_api.judges import Judges
from dashboard_api.service import HOUR_NS, MAX_LIMIT, Queries, Selection, Span
from series.port import AggregateFn, Page
from wire.clock import NS_PER_S, format_ns, now_ns
from wire.devices import Principal
from wire.points import FieldValue, Point, PointModel, TimeNs, point_to_json

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_EVERY = re.compile(r"([1-9]\d{0,8})(ms|[smhdw])")
CSV_COLUMNS = ("time", "device", "measurement", "tags", "field", "type", "value")


def parse_every(text: str) -> int:
    """Read a bucket's length such as 30s, 5m, 1h, 1d into ns.

    Raises:
        ValueError: it is not of that form.
    """
    match = _EVERY.fullmatch(text)
    if match is None:
        raise ValueError("a length such as 30s, 5m, 1h or 1d")
    if match[2] == "ms":
        return int(match[1]) * 1_000_000
    return int(match[1]) * UNITS_S[match[2]] * NS_PER_S


EveryNs = Annotated[int, BeforeValidator(lambda value: parse_every(value) if isinstance(value, str) else value)]
Names = Annotated[list[Annotated[str, Field(max_length=256)]], Field(max_length=1_000)]


class QueryModel(BaseModel):
    """Base of query parameters: an unknown one is an error, not silence."""

    model_config = ConfigDict(extra="forbid")


class LatestParameters(QueryModel):
    """Of GET /v1/query/latest."""

    described: bool = False  # say of each field what is known of it: unit, name, what it measures
    device: Names = []
    q: str = Field(default="", max_length=2_000)
    field: Names = []
    limit: int = Field(default=1_000, ge=1, le=MAX_LIMIT)
    cursor: str | None = Field(default=None, max_length=1_024)


class SpanParameters(QueryModel):
    """What range, aggregate and export share."""

    device: Names = []
    q: str = Field(default="", max_length=2_000)
    field: Names = []
    measurement: str | None = Field(default=None, max_length=256)
    start: TimeNs | None = None
    end: TimeNs | None = None

    def selection(self, asker: Principal) -> Selection:
        """Give what the query narrows by."""
        return Selection(self.device, self.field, self.measurement, asker.tenant, self.q, asker.devices)

    def span(self) -> Span:
        """Give the time span; the last hour unless said otherwise."""
        end_ns = now_ns() if self.end is None else self.end
        return Span(end_ns - HOUR_NS if self.start is None else self.start, end_ns)


class RangeParameters(SpanParameters):
    """Of GET /v1/query/range."""

    limit: int = Field(default=1_000, ge=1, le=MAX_LIMIT)
    cursor: str | None = Field(default=None, max_length=1_024)
    judged: bool = False  # say of each point which version of its device type it passed


class AggregateParameters(SpanParameters):
    """Of GET /v1/query/aggregate."""

    field: Annotated[Names, Field(min_length=1)]
    fn: Annotated[list[AggregateFn], Field(max_length=7)] = ["mean"]
    every: EveryNs | None = None
    group_by: str = Field(default="device", max_length=80)


class ExportParameters(SpanParameters):
    """Of GET /v1/export."""

    format: Literal["csv", "ndjson"] = "ndjson"


class PointsPage(BaseModel):
    """Points, and the cursor of what follows."""

    points: list[PointModel]
    next: str | None = None


class Row(BaseModel):
    """A bucket of a group."""

    time: TimeNs
    group: dict[str, str]
    values: dict[str, dict[str, FieldValue | None]]


class Rows(BaseModel):
    """Answer of an aggregation."""

    rows: list[Row]


def routes(queries: Queries, judges: Judges, descriptions: Descriptions) -> Api:
    """Give the operations of the query side."""
    api = Api()
    _add_latest(api, queries, descriptions)
    _add_queries(api, queries, judges)
    _add_export(api, queries)
    return api


def _add_latest(api: Api, queries: Queries, descriptions: Descriptions) -> None:
    @api.route("GET", "/v1/query/latest", "viewer", query=LatestParameters, answers={200: PointsPage}, reach="narrowed")
    def latest(call: Call) -> dict[str, Any]:
        """Newest value of every field, ordered by device; no device means all, paged."""
        asked: LatestParameters = call.query
        actor = call.actor
        selection = Selection(asked.device, asked.field, None, actor.tenant, asked.q, actor.devices)
        found = queries.latest(selection, limit=asked.limit, cursor=asked.cursor)
        return _page(found) if not asked.described else _described_page(found, actor.tenant, descriptions)


def _add_queries(api: Api, queries: Queries, judges: Judges) -> None:
    @api.route("GET", "/v1/query/range", "viewer", query=RangeParameters, answers={200: PointsPage}, reach="narrowed")
    def points(call: Call) -> dict[str, Any]:
        """Points with start <= time < end, oldest first; the last hour unless said otherwise."""
        asked: RangeParameters = call.query
        selection = asked.selection(call.actor)
        found = queries.range(selection, asked.span(), limit=asked.limit, cursor=asked.cursor)
        return _page(found) if not asked.judged else _judged_page(found, judges)

    @api.route("GET", "/v1/query/aggregate", "viewer", query=AggregateParameters, answers={200: Rows}, reach="narrowed")
    def aggregate(call: Call) -> dict[str, Any]:
        """Buckets aligned to the epoch in UTC, grouped by device, type or a tag."""
        asked: AggregateParameters = call.query
        rows = queries.aggregate(
            asked.selection(call.actor),
            asked.span(),
            fns=list(dict.fromkeys(asked.fn)),
            every_ns=asked.every,
            group_by=asked.group_by,
        )
        return {"rows": [row | {"time": format_ns(row["time"])} for row in rows]}


def _add_export(api: Api, queries: Queries) -> None:
    @api.route("GET", "/v1/export", "viewer", query=ExportParameters, reach="narrowed")
    def export(call: Call) -> Response:
        """All points of a span as a stream, NDJSON or CSV (one line a value)."""
        asked: ExportParameters = call.query
        as_csv = asked.format == "csv"
        pages = queries.export(asked.selection(call.actor), asked.span(), _to_csv if as_csv else _to_ndjson)
        first = next(pages)  # read before the status is sent: an unavailable store must be a 503, not a cut stream
        head = to_csv([CSV_COLUMNS]) if as_csv else b""
        content_type = "text/csv; charset=utf-8" if as_csv else "application/x-ndjson"
        response = Response(chain((head + first,), pages), content_type=content_type)
        response.headers["Content-Disposition"] = f'attachment; filename="headwater-export.{asked.format}"'
        return response


def _page(page: Page) -> dict[str, Any]:
    return {"points": [point_to_json(point) for point in page.points], "next": page.next}


def _judged_page(page: Page, judges: Judges) -> dict[str, Any]:
    names = judges.name({point.judged_by for point in page.points if point.judged_by})
    points = [point_to_json(point) | {"judged_by": names.get(point.judged_by)} for point in page.points]
    return {"points": points, "next": page.next}


def _described_page(page: Page, tenant: str, descriptions: Descriptions) -> dict[str, Any]:
    found = descriptions.of(tenant, {point.device for point in page.points})
    points = []
    for point in page.points:
        known = (found or {}).get(point.device, {})
        fields = {name: said for name in point.fields if (said := describe(known, point.measurement, name))}
        points.append(point_to_json(point) | {"described": None if found is None else fields})
    return {"points": points, "next": page.next}


def _to_ndjson(points: Sequence[Point]) -> bytes:
    return b"".join(orjson.dumps(point_to_json(point)) + b"\n" for point in points)


def _to_csv(points: Sequence[Point]) -> bytes:
    rows: list[Sequence[Cell]] = []
    for point in points:
        head = (format_ns(point.time_ns), point.device, point.measurement, orjson.dumps(point.tags).decode())
        rows += [(*head, name, *_typed(value)) for name, value in point.fields.items()]
    return to_csv(rows)


def _typed(value: FieldValue) -> tuple[str, Cell]:
    if isinstance(value, bool):
        return "bool", "true" if value else "false"
    if isinstance(value, str):
        return "string", value
    return ("int" if isinstance(value, int) else "float"), value
