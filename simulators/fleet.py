"""A fleet: starts devices along the ramp, has each take its readings when due, waits for what is unacknowledged."""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from collections import Counter
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from simulators.device import Device
from simulators.faults import FaultRates
from simulators.journal import Journal
from simulators.outbox import Sender
from simulators.rhythm import Rhythm
from wire import clock

_TURN_S = 0.002  # shortest nap of the scheduler: many small due times share one wake-up
_TURN_READINGS = 500  # readings between two looks at the sockets
_WATCH_S = 0.05
_CLOSE_S = 2.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a fleet starts and how long it sends."""

    ramp_hz: float
    duration_s: float | None
    join_s: float = 30.0  # a device that has not connected so long after ramp and duration is left out
    base_s: float = 0.0  # the time that things live in when their device begins

    def longest_s(self, devices: int) -> float:
        """Give the time after which a run ends even though some device could not begin."""
        return math.inf if self.duration_s is None else devices / self.ramp_hz + self.duration_s + self.join_s


class Steady:
    """The time in which all devices send: the rate of a run is measured there, without ramp and tail."""

    def __init__(self) -> None:
        self._begin: tuple[float, int] | None = None
        self._end: tuple[float, int] | None = None

    def begin(self, settled: int) -> None:
        self._begin = (time.monotonic(), settled)

    def end(self, settled: int) -> None:
        if self._end is None:
            self._end = (time.monotonic(), settled)

    def rate(self, shortest_s: float = 1.0) -> float | None:
        """Give messages per second; None when the time was too short to mean anything."""
        if self._begin is None or self._end is None or self._end[0] - self._begin[0] < shortest_s:
            return None
        return (self._end[1] - self._begin[1]) / (self._end[0] - self._begin[0])


class Seat:
    """A device's place in the fleet: where in its rhythm it is."""

    __slots__ = ("at_s", "beat", "device", "faults", "left", "rhythm", "sender", "start")

    def __init__(self, device: Device, sender: Sender, rhythm: Rhythm, first_beat: float) -> None:
        self.device, self.sender, self.rhythm = device, sender, rhythm
        self.beat = first_beat  # 0 to 1: devices spread over the first interval
        self.at_s, self.faults = rhythm.at(first_beat)
        self.left = math.inf  # readings still to take
        self.start = 0.0

    @property
    def due(self) -> float:
        """Time of the next reading, on the monotonic clock."""
        return self.start + self.at_s

    def advance(self) -> tuple[float, FaultRates]:
        """Give the time and the faults of this reading and go on to the next."""
        now = self.at_s, self.faults
        self.beat += 1
        self.left -= 1
        self.at_s, self.faults = self.rhythm.at(self.beat)
        return now


class Fleet:
    """The devices of one process, on one event loop."""

    def __init__(self, seats: Sequence[Seat], pace: Pace, journal: Journal) -> None:
        self._seats, self._pace, self._journal = seats, pace, journal
        self._due: list[tuple[float, int]] = []  # (when, seat), a heap
        self._tasks: set[asyncio.Task[None]] = set()  # of devices: while they connect, or as long as they post
        self._helpers: list[asyncio.Task[None]] = []
        self._unfinished = len(seats)
        self._is_stopping = asyncio.Event()
        self._failure: BaseException | None = None
        self.joined = 0
        self.steady = Steady()

    @property
    def backlog(self) -> int:
        """Messages neither acknowledged nor refused."""
        return sum(seat.sender.backlog for seat in self._seats)

    def shortfall(self) -> Counter[str]:
        """Count readings that were taken but not transmitted once, and devices that never got ready."""
        never_sent = sum(seat.device.offered for seat in self._seats) - self._journal.sent_count
        return +Counter(never_sent=never_sent, never_connected=len(self._seats) - self.joined)

    def stop(self) -> None:
        """End the taking of readings; what was taken is still delivered."""
        self._is_stopping.set()

    async def run(self) -> None:
        """Send until every device has taken its readings, or until stopped."""
        self.beside(self._ramp_up(), "ramp")
        for rhythm in {id(seat.rhythm): seat.rhythm for seat in self._seats}.values():
            self.beside(self._storm(rhythm), "storm")
        last = time.monotonic() + self._pace.longest_s(len(self._seats))
        try:
            while self._unfinished and not self._is_stopping.is_set() and time.monotonic() < last:
                await asyncio.sleep(self._fire_due())
                self._raise_failure()
        finally:
            self.steady.end(self._count())
            await self._cancel(self._helpers)

    def beside(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run something for as long as readings are taken; if it fails, the run fails."""
        self._helpers.append(self.watch(asyncio.create_task(work, name=name)))

    def watch(self, task: asyncio.Task[None]) -> asyncio.Task[None]:
        """Let the failure of a task be the failure of the run."""
        task.add_done_callback(self._note_failure)
        return task

    async def drain(self, deadline_s: float) -> bool:
        """Wait until all is acknowledged or refused, and nothing is in doubt; False when time ran out first."""
        for seat in self._seats:
            seat.sender.flush()
        deadline = time.monotonic() + deadline_s
        while self.backlog or any(seat.sender.doubtful for seat in self._seats):
            if time.monotonic() > deadline:
                return False
            self._raise_failure()
            await asyncio.sleep(_WATCH_S)
        return True

    async def close(self) -> None:
        """Disconnect all in good order and end their tasks."""
        open_ones = [seat.sender for seat in self._seats]
        for sender in open_ones:
            sender.close()
        deadline = time.monotonic() + _CLOSE_S
        while open_ones := [sender for sender in open_ones if not sender.is_done]:
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(_TURN_S)
        for sender in open_ones:
            sender.break_connection()
        await self._cancel(self._tasks)

    async def _cancel(self, tasks: Iterable[asyncio.Task[None]]) -> None:
        running = list(tasks)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _count(self) -> int:
        # QoS 0 knows no acknowledgement: there the rate is that of sending.
        return self._journal.settled_count or self._journal.sent_count

    async def _ramp_up(self) -> None:
        start, spawn = time.monotonic(), self._spawn
        for number, seat in enumerate(self._seats):
            wait_s = start + number / self._pace.ramp_hz - time.monotonic()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            seat.sender.start(spawn, partial(self._join, number))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.watch(asyncio.create_task(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _join(self, number: int) -> None:
        seat = self._seats[number]
        self.joined += 1
        if self.joined == len(self._seats):
            self.steady.begin(self._count())
        seat.start = time.monotonic()
        if self._pace.duration_s is not None:
            seat.left = seat.rhythm.readings(self._pace.duration_s)
        heapq.heappush(self._due, (seat.due, number))

    def _fire_due(self) -> float:
        """Let all devices that are due take their readings; gives the seconds until the next is due."""
        now, now_ns, left = time.monotonic(), clock.now_ns(), _TURN_READINGS
        while left > 0:
            if not self._due:
                return _WATCH_S
            when, number = self._due[0]
            if when > now:
                return min(_WATCH_S, max(_TURN_S, when - now))
            seat = self._seats[number]
            left -= self._take_readings(seat, now, now_ns)
            if seat.left:
                heapq.heapreplace(self._due, (seat.due, number))
                continue
            heapq.heappop(self._due)
            self._unfinished -= 1
            self.steady.end(self._count())
        return 0.0

    def _take_readings(self, seat: Seat, now: float, now_ns: int) -> int:
        """Let one device take all that it should have taken by now; gives how many."""
        taken, base_s = 0, self._pace.base_s
        while seat.left and seat.due <= now:
            at_s, faults = seat.advance()
            taken += 1
            if not seat.device.fire(now_ns, base_s + at_s, faults):
                self._journal.error("not_taken")
        return taken

    async def _storm(self, rhythm: Rhythm) -> None:
        start = time.monotonic()
        for at_s in rhythm.storms():
            await asyncio.sleep(start + at_s - time.monotonic())
            self._journal.error("storms")
            for seat in self._seats:
                if seat.rhythm is rhythm:
                    seat.sender.break_connection()

    def _note_failure(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._failure = self._failure or task.exception()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
