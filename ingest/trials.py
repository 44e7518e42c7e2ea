"""What a version of a device type would have done to real data: what is stored, and what waits in the quarantine.

It judges with the very code that judges what comes in, so the answer is what would happen. It reads and keeps nothing,
and is bounded: somebody waits for it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

from ingest.gate import Known
from ingest.ports import Ports
from ingest.protocols import Protocol
from ingest.quarantine import Selection
from ingest.replay import Rehearsed, Replayer
from ingest.validation import TypeChecker
from series.port import RangeQuery, SeriesReader
from wire import clock
from wire.points import Point
from wire.schemas import (
    MAX_EXAMPLES,
    DryRun,
    Example,
    Observation,
    ObservedField,
    ObserveRequest,
    QuarantineReport,
    TrafficReport,
    TryRequest,
)

MAX_READINGS = 50_000  # of one trial: about a second
MAX_ENTRIES = 10_000
MAX_FIELDS = 256  # different ones that are proposed
MAX_GAPS = 20_000
TIME_S = 4.0  # of each half of a trial
PAGE = 2_000
FIRST_SLICE_S = 60.0  # the newest data is looked at first; each older slice is twice as long
HOUR_NS = 3600 * clock.NS_PER_S
EXAMPLES_OF_CODE = 5  # so that one reason does not hide the others
Fault = tuple[str, str, str]  # field, code, detail


class Trials:
    """Tries specs on data. Thread-safe; a request at a time is enough."""

    def __init__(self, ports: Ports, protocols: dict[str, Protocol], open_reader: Callable[[], SeriesReader]) -> None:
        """`open_reader` opens the store for one trial: services that never try anything do without it."""
        self._ports = ports
        self._protocols = protocols
        self._open_reader = open_reader

    def run(self, asked: TryRequest) -> DryRun:
        """Judge what is stored of the devices and what waits of the type.

        Raises:
            StoreUnavailable: the store cannot be read.
            PeerUnavailable: devices are not known here and the registry is away.
        """
        checker = TypeChecker(asked.spec)
        traffic = self._judge_traffic(checker, asked) if asked.hours else None
        return DryRun(traffic=traffic, quarantine=self._judge_waiting(checker, asked))

    def observe(self, asked: ObserveRequest) -> Observation:
        """Tell what the devices sent, field by field.

        Raises:
            StoreUnavailable: the store cannot be read.
        """
        seen = _Seen()
        is_complete = self._walk(asked.devices, asked.tenant, asked.hours, seen.add)
        return seen.tell(is_complete=is_complete)

    def _judge_traffic(self, checker: TypeChecker, asked: TryRequest) -> TrafficReport:
        tally = _Tally(checker)
        is_complete = self._walk(asked.devices, asked.tenant, asked.hours, tally.add)
        return tally.tell(is_complete=is_complete)

    def _judge_waiting(self, checker: TypeChecker, asked: TryRequest) -> QuarantineReport:
        report, deadline_s = _Waiting(), time.monotonic() + TIME_S
        for each in rehearse(self._ports, self._protocols, checker, (asked.tenant, asked.devices, None)):
            if report.entries >= MAX_ENTRIES or time.monotonic() > deadline_s:
                return report.tell(is_complete=False)
            report.add(to_example(each))
        return report.tell(is_complete=True)

    def _walk(self, devices: Sequence[str], tenant: str, hours: float, take: Callable[[Sequence[Point]], None]) -> bool:
        """Hand out what is stored, slice by slice from the newest; tell whether that was all."""
        if not devices:
            return True
        reader, deadline_s, taken = self._open_reader(), time.monotonic() + TIME_S, 0
        try:
            for points in _pages(reader, RangeQuery(0, clock.now_ns(), devices, limit=PAGE, tenant=tenant), hours):
                take(points)
                taken += len(points)
                if taken >= MAX_READINGS or time.monotonic() > deadline_s:
                    return False
        finally:
            reader.close()
        return True


def _pages(reader: SeriesReader, query: RangeQuery, hours: float) -> Iterator[Sequence[Point]]:
    """Read what is stored of the hours before the query's end: slices from the newest, each oldest first."""
    for start_ns, end_ns in _slices(query.end_ns, int(hours * HOUR_NS)):
        page = reader.range(replace(query, start_ns=start_ns, end_ns=end_ns))
        yield page.points
        while page.next is not None:
            page = reader.range(replace(query, start_ns=start_ns, end_ns=end_ns, cursor=page.next))
            yield page.points


def _slices(end_ns: int, span_ns: int) -> Iterator[tuple[int, int]]:
    first_ns, length_ns = end_ns - span_ns, int(FIRST_SLICE_S * clock.NS_PER_S)
    while end_ns > first_ns:
        start_ns = max(first_ns, end_ns - length_ns)
        yield start_ns, end_ns
        end_ns, length_ns = start_ns, length_ns * 2


def rehearse(
    ports: Ports,
    protocols: dict[str, Protocol],
    checker: TypeChecker,
    which: tuple[str, Sequence[str], int | None],
) -> Iterator[Rehearsed]:
    """Judge what waits of a tenant's devices (of none: what the type refused), newest first, below an entry's number.

    Raises:
        PeerUnavailable: devices are not known here and the registry is away.
    """
    tenant, devices, before = which
    # Those of the type now, whatever judged them then: a replay goes by the type that a device has.
    these = Selection(devices=tuple(devices), tenant=tenant)
    kind = Selection(type=checker.spec.name, tenant=tenant)
    judge: Callable[[Known], TypeChecker | None] = lambda _device: checker  # noqa: E731 - one line says it
    replayer = Replayer(replace(ports, intake=ports.intake.rehearsal()), protocols, judge)
    return replayer.rehearse(these if devices else kind, before)


def to_example(each: Rehearsed) -> Example:
    """Show an entry of the quarantine with what would become of it; one without a code would pass."""
    return Example(
        device=each.entry.device, time=each.entry.received_ns, field=each.entry.field, code=each.code or "",
        detail=each.detail or each.entry.detail, entry=str(each.entry.id),
    )  # fmt: skip


def judge_point(checker: TypeChecker, point: Point) -> tuple[list[Fault], int]:
    """Give what is wrong with a stored point (field, code, detail), and how many fields would be dropped."""
    verdict = checker.check(dict(point.fields))
    faults = [verdict.missing] if verdict.missing is not None else list(verdict.faults)
    for name, value in verdict.fields.items():
        if type(point.fields.get(name)) is int and type(value) is float:
            faults.append((name, "type_conflict", f"{name}: the store keeps the type its series has, int"))
    return faults, verdict.dropped


@dataclass(slots=True)
class _Tally:
    """Stored points against a checker."""

    checker: TypeChecker
    readings: int = 0
    refused: int = 0
    lost: int = 0
    since_ns: int | None = None
    devices: set[str] = field(default_factory=set)
    at_fault: set[str] = field(default_factory=set)
    codes: Counter[str] = field(default_factory=Counter)
    examples: list[Example] = field(default_factory=list)

    def add(self, points: Sequence[Point]) -> None:
        """Judge points."""
        for point in points:
            self.readings += 1
            self.devices.add(point.device)
            if self.since_ns is None or point.time_ns < self.since_ns:
                self.since_ns = point.time_ns
            self._judge(point)

    def tell(self, *, is_complete: bool) -> TrafficReport:
        """Give the report."""
        return TrafficReport(
            readings=self.readings, devices=len(self.devices), refused_readings=self.refused,
            refused_devices=len(self.at_fault), lost_fields=self.lost, codes=dict(self.codes), examples=self.examples,
            since=self.since_ns, complete=is_complete,
        )  # fmt: skip

    def _judge(self, point: Point) -> None:
        faults, dropped = judge_point(self.checker, point)
        self.lost += dropped
        if not faults:
            return
        self.refused += 1
        self.at_fault.add(point.device)
        for name, code, detail in faults:
            self.codes[code] += 1
            if len(self.examples) < MAX_EXAMPLES and self.codes[code] <= EXAMPLES_OF_CODE:
                self.examples.append(
                    Example(device=point.device, time=point.time_ns, field=name, code=code, detail=detail)
                )


@dataclass(slots=True)
class _Waiting:
    """Entries of the quarantine against a checker; an example without a code would pass."""

    entries: int = 0
    passing: int = 0
    devices: set[str] = field(default_factory=set)
    codes: Counter[str] = field(default_factory=Counter)
    examples: list[Example] = field(default_factory=list)

    def add(self, each: Example) -> None:
        """Count one."""
        self.entries += 1
        self.devices.add(each.device)
        if each.code:
            self.codes[each.code] += 1
        else:
            self.passing += 1
        if len(self.examples) < MAX_EXAMPLES:
            self.examples.append(each)

    def tell(self, *, is_complete: bool) -> QuarantineReport:
        """Give the report."""
        return QuarantineReport(
            entries=self.entries, devices=len(self.devices), would_pass=self.passing, codes=dict(self.codes),
            examples=self.examples, complete=is_complete,
        )  # fmt: skip


_NAMES: dict[type, str] = {bool: "bool", int: "int", float: "float", str: "string"}


@dataclass(slots=True)
class _Seen:
    """Points by field."""

    readings: int = 0
    devices: set[str] = field(default_factory=set)
    fields: dict[str, ObservedField] = field(default_factory=dict)
    gaps_ns: list[int] = field(default_factory=list)
    newest: dict[str, int] = field(default_factory=dict)

    def add(self, points: Sequence[Point]) -> None:
        """Take points in, oldest first."""
        for point in points:
            self.readings += 1
            self.devices.add(point.device)
            before_ns = self.newest.get(point.device)
            # A slice older than the last one begins anew: its first reading has no gap that is known here.
            if before_ns is not None and before_ns < point.time_ns and len(self.gaps_ns) < MAX_GAPS:
                self.gaps_ns.append(point.time_ns - before_ns)
            self.newest[point.device] = point.time_ns
            for name, value in point.fields.items():
                if name in self.fields or len(self.fields) < MAX_FIELDS:
                    self._add(self.fields.setdefault(name, ObservedField(types={}, count=0)), value)

    def tell(self, *, is_complete: bool) -> Observation:
        """Give what was seen."""
        gap_s = median(self.gaps_ns) / clock.NS_PER_S if self.gaps_ns else None
        return Observation(
            readings=self.readings, devices=len(self.devices), gap_s=gap_s, fields=self.fields, complete=is_complete
        )

    def _add(self, seen: ObservedField, value: float | bool | str) -> None:
        name = _NAMES[type(value)]
        seen.count += 1
        seen.types[name] = seen.types.get(name, 0) + 1
        if name in ("int", "float"):
            number = float(value)
            seen.low = number if seen.low is None else min(seen.low, number)
            seen.high = number if seen.high is None else max(seen.high, number)
