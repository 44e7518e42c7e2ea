"""A dry run of a version of a device type on all that is stored or waits, a slice at a time.

The registry keeps where a run is and what it found (`devices.types.dry_run`); here nothing is kept, so a restart costs
a slice. A slice lasts a moment and holds one page; it is done in a process of its own (`ingest.trials_main`).
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from ingest.ports import Ports
from ingest.protocols import Protocol
from ingest.trials import EXAMPLES_OF_CODE, Fault, judge_point, rehearse, to_example
from ingest.validation import TypeChecker
from series.port import RangeQuery, SeriesReader
from wire import clock
from wire.dry_runs import (
    Counted,
    DeviceVerdict,
    Place,
    Slice,
    SliceRequest,
    WaitingRequest,
    WaitingSlice,
)
from wire.errors import BadRequest
from wire.points import Point
from wire.schemas import MAX_EXAMPLES, Example

PAGE = 1_000  # points in memory
SLICE_S = 0.25
MINUTE_NS = 60 * clock.NS_PER_S
_CRC_RANGE = 2**32


class DryRuns:
    """Judges slices. Thread-safe; knows nothing from one slice to the next."""

    def __init__(self, ports: Ports, protocols: dict[str, Protocol], open_reader: Callable[[], SeriesReader]) -> None:
        self._ports = ports
        self._protocols = protocols
        self._open_reader = open_reader

    def count(self, asked: Place) -> Counted:
        """Count the readings of a place.

        Raises:
            StoreUnavailable: the store cannot be read.
        """
        reader = self._open_reader()
        try:
            query = RangeQuery(asked.start, asked.end, asked.devices, tenant=asked.tenant)
            return Counted(readings=reader.count(query))
        finally:
            reader.close()

    def judge(self, asked: SliceRequest) -> Slice:
        """Judge what is stored, from the cursor on, for SLICE_S.

        Raises:
            StoreUnavailable: the store cannot be read.
            BadRequest: the cursor is none of ours.
        """
        found, checker = _Found(), TypeChecker(asked.spec)
        deadline_s = time.monotonic() + SLICE_S
        reader = self._open_reader()
        try:
            for points, following in _pages(reader, asked):
                for point in points:
                    found.add(point, *judge_point(checker, point))
                if following is None or time.monotonic() > deadline_s:
                    return found.tell(following)
        finally:
            reader.close()
        return found.tell(None)

    def judge_waiting(self, asked: WaitingRequest) -> WaitingSlice:
        """Judge what waits in the quarantine below an entry's number, newest first, for SLICE_S; whole messages.

        Raises:
            PeerUnavailable: devices are not known here and the registry is away.
        """
        found, deadline_s, lowest, message = _Found(), time.monotonic() + SLICE_S, asked.before or 0, None
        which = asked.tenant, asked.devices, asked.before
        for each in rehearse(self._ports, self._protocols, TypeChecker(asked.spec), which):
            if message not in (None, each.entry.message) and time.monotonic() > deadline_s:
                return WaitingSlice(devices=found.devices, examples=found.examples, next=lowest)
            message = each.entry.message
            lowest = min(lowest or each.entry.id, each.entry.id)
            found.add_example(to_example(each))
        return WaitingSlice(devices=found.devices, examples=found.examples, next=None)


@dataclass(slots=True)
class _Found:
    """What a slice found so far."""

    devices: dict[str, DeviceVerdict] = field(default_factory=dict)
    lost: int = 0
    since_ns: int | None = None
    examples: list[Example] = field(default_factory=list)
    shown: dict[str, int] = field(default_factory=dict)  # examples by reason

    def add(self, point: Point, faults: Sequence[Fault], dropped: int) -> None:
        """Count a stored point."""
        verdict = self.devices.setdefault(point.device, DeviceVerdict())
        verdict.readings += 1
        verdict.refused += bool(faults)
        self.lost += dropped
        if self.since_ns is None or point.time_ns < self.since_ns:
            self.since_ns = point.time_ns
        for name, code, detail in faults:
            verdict.codes[code] = verdict.codes.get(code, 0) + 1
            self._show(Example(device=point.device, time=point.time_ns, field=name, code=code, detail=detail))

    def add_example(self, each: Example) -> None:
        """Count an entry of the quarantine."""
        verdict = self.devices.setdefault(each.device, DeviceVerdict())
        verdict.readings += 1
        if each.code:
            verdict.refused += 1
            verdict.codes[each.code] = verdict.codes.get(each.code, 0) + 1
        self._show(each)

    def tell(self, following: str | None) -> Slice:
        """Give what was found."""
        return Slice(
            devices=self.devices, lost_fields=self.lost, examples=self.examples, since=self.since_ns, next=following
        )

    def _show(self, each: Example) -> None:
        shown = self.shown.get(each.code, 0)
        if shown < EXAMPLES_OF_CODE and len(self.examples) < MAX_EXAMPLES:
            self.shown[each.code] = shown + 1
            self.examples.append(each)


def _pages(reader: SeriesReader, asked: SliceRequest) -> Iterator[tuple[Sequence[Point], str | None]]:
    """Read a place from its cursor on; each page with where to go on after it, None behind the last."""
    begin_ns, cursor = _read_cursor(asked.cursor, asked.start)
    for start_ns, end_ns in _spans(begin_ns, asked.end, asked.sample):
        while True:
            query = RangeQuery(start_ns, end_ns, asked.devices, limit=PAGE, cursor=cursor, tenant=asked.tenant)
            page = reader.range(query)
            cursor = page.next
            if cursor is None:
                break
            yield page.points, f"{start_ns} {cursor}"
        yield page.points, f"{end_ns} " if end_ns < asked.end else None


def _spans(begin_ns: int, end_ns: int, sample: float) -> Iterator[tuple[int, int]]:
    """Give all of the span, or the minutes of it that belong to the sample; the same ones each time."""
    if sample >= 1:
        yield begin_ns, end_ns
        return
    while begin_ns < end_ns:
        minute = begin_ns // MINUTE_NS
        until_ns = min((minute + 1) * MINUTE_NS, end_ns)
        if zlib.crc32(b"%d" % minute) < sample * _CRC_RANGE:
            yield begin_ns, until_ns
        begin_ns = until_ns


def _read_cursor(cursor: str, start_ns: int) -> tuple[int, str | None]:
    if not cursor:
        return start_ns, None
    at, _, of_store = cursor.partition(" ")
    if not at.lstrip("-").isdecimal():
        raise BadRequest("the cursor is none of ours", fields=["cursor"])
    return int(at), of_store or None
