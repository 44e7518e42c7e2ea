"""The port of the time-series store: what writer and queries may ask of any engine. Knows no engine.

Two halves, because one process writes and others read. Both are safe for use by several threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from wire.points import FieldValue, Point, PointLike

AggregateFn = Literal["mean", "min", "max", "sum", "count", "first", "last"]
AGGREGATE_FNS: tuple[AggregateFn, ...] = ("mean", "min", "max", "sum", "count", "first", "last")


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine can do; contract tests are skipped only by these."""

    strings: bool = True
    bools: bool = True
    exact_int64: bool = True
    exact_uint64: bool = True
    ack_is_durable: bool = True
    delete_series: bool = True


@dataclass(frozen=True, slots=True)
class Refusal:
    """A point, or one field of it, that the store did not take."""

    index: int  # of the point in the batch
    code: str  # of wire.errors.REASONS
    detail: str
    field: str | None = None  # None: the whole point


class BatchRefused(Exception):  # noqa: N818 - the store's answer, not a fault of ours
    """The store is well but refuses the batch, for a reason (`detail`), and does not say which points are to blame."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


@dataclass(frozen=True, slots=True)
class WriteOutcome:
    """What became of a batch: `accepted` points are stored at least in part; nothing else is silent."""

    accepted: int
    refused: list[Refusal] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Page:
    """Points and where to go on; `next` is an opaque cursor, None at the end."""

    points: list[Point]
    next: str | None = None


@dataclass(frozen=True, slots=True)
class RangeQuery:
    """Points with start_ns <= time < end_ns, oldest first, then by device. Empty devices or fields mean all."""

    start_ns: int
    end_ns: int
    devices: Sequence[str] = ()
    fields: Sequence[str] = ()
    measurement: str | None = None
    limit: int = 1_000
    cursor: str | None = None
    tenant: str = "default"


@dataclass(frozen=True, slots=True)
class AggregateQuery:
    """Buckets of `every_ns`, aligned to the epoch in UTC, over [start_ns, end_ns).

    `group_of` maps a device to the name of its group; devices that it does not name are left out.
    None: every device is a group of its own, named by its id.
    """

    start_ns: int
    end_ns: int
    every_ns: int
    fields: Sequence[str]
    fns: Sequence[AggregateFn]
    devices: Sequence[str] = ()
    measurement: str | None = None
    group_of: dict[str, str] | None = None
    tenant: str = "default"
    max_rows: int = 10_000


@dataclass(frozen=True, slots=True)
class AggregateRow:
    """One bucket of one group: field -> function -> value. Buckets without values give no row."""

    time_ns: int
    group: str
    values: dict[str, dict[str, FieldValue]]


@dataclass(frozen=True, slots=True)
class Term:
    """For how many whole UTC days before today the points of a device are kept."""

    tenant: str
    device: str
    days: int


@dataclass(frozen=True, slots=True)
class Expired:
    """What one step of `expire` removed."""

    files: int = 0  # or partitions
    rows: int = 0  # one by one, out of files that hold others too


class SeriesWriter(Protocol):
    """The writing half; one process at a time uses it, and an engine may rely on that only for speed."""

    capabilities: Capabilities

    def write(self, points: Sequence[PointLike], *, timeout_s: float = 10.0) -> WriteOutcome:
        """Store points durably; the same (series, time) again merges field by field, the new value winning.

        Raises:
            StoreUnavailable: nothing of the batch is known to be stored; write the same batch again later.
            BatchRefused: write parts of it, down to single points: those that are refused alone are to blame.
        """
        ...

    def expire(self, now_ns: int, kept: Iterable[Term] = ()) -> Iterator[Expired]:
        """Remove what is older than its retention: that of its device in `kept`, else that of the store.

        Each step is short; the caller rests between them, and may stop at any: the next call goes on.

        Raises:
            StoreUnavailable: go on later.
        """
        ...

    def delete(self, device: str, *, tenant: str = "default") -> None:
        """Remove all points of a device."""
        ...

    def health(self) -> str:
        """Give "ok", or one sentence of what is wrong."""
        ...

    def close(self) -> None:
        """Release files and connections."""
        ...


class SeriesReader(Protocol):
    """The querying half. A store that does not exist yet reads as empty."""

    capabilities: Capabilities

    def latest(
        self,
        devices: Sequence[str] = (),
        fields: Sequence[str] = (),
        *,
        limit: int = 1_000,
        cursor: str | None = None,
        tenant: str = "default",
    ) -> Page:
        """Give the newest value of every field, ordered by device; values of one time share a point.

        `limit` counts series; no devices means all, paged by `cursor`.
        """
        ...

    def range(self, query: RangeQuery) -> Page:
        """Give a page of points. Raises BadRequest for a cursor that is not one of ours."""
        ...

    def count(self, query: RangeQuery) -> int:
        """Count the points of a range; `fields`, `limit` and `cursor` are ignored."""
        ...

    def aggregate(self, query: AggregateQuery) -> list[AggregateRow]:
        """Give the aggregates, ordered by time, then group; strings only count, first and last.

        Raises:
            BadRequest: more than `max_rows` rows would result; the sentence says how to narrow it.
        """
        ...

    def export(self, query: RangeQuery) -> Iterable[Point]:
        """Give all points of a range, without paging; `limit` and `cursor` are ignored."""
        ...

    def health(self) -> str:
        """Give "ok", or one sentence of what is wrong."""
        ...

    def close(self) -> None:
        """Release files and connections."""
        ...
