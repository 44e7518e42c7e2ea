"""The fleet: starts devices along the ramp, has each take its readings when due, waits for what is unacknowledged."""

from __future__ import annotations

import asyncio
import heapq
import math
import random
import time
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from simulators.device import Device
from simulators.journal import Journal
from simulators.outbox import Sender
from wire import clock

_TURN_S = 0.002  # shortest nap of the scheduler: many small due times share one wake-up
_TURN_READINGS = 500  # readings between two looks at the sockets
_WATCH_S = 0.05
_CLOSE_S = 2.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a fleet starts and sends."""

    rate_hz: float
    ramp_hz: float
    duration_s: float | None
    storm_s: float = 0.0
    join_s: float = 30.0  # a device that has not connected so long after ramp and duration is left out

    @property
    def readings(self) -> int | None:
        """Readings of each device; None = no end."""
        return None if self.duration_s is None else max(1, round(self.rate_hz * self.duration_s))

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


class Fleet:
    """All devices of a run, on one event loop."""

    def __init__(self, devices: Sequence[Device], pace: Pace, journal: Journal, rng: random.Random) -> None:
        self._devices, self._pace, self._journal, self._rng = devices, pace, journal, rng
        self._due: list[tuple[float, int, int]] = []  # (when, device, readings so far), a heap
        self._tasks: list[asyncio.Task[None]] = []  # one a device
        self._helpers: list[asyncio.Task[None]] = []
        self._unfinished = len(devices)
        self._joined = 0
        self._is_stopping = asyncio.Event()
        self._failure: BaseException | None = None
        self.steady = Steady()

    @property
    def backlog(self) -> int:
        """Messages neither acknowledged nor refused."""
        return sum(sender.backlog for sender in self._senders())

    def shortfall(self) -> Counter[str]:
        """Count readings that were taken but not transmitted once, and devices that never got ready."""
        never_sent = sum(device.offered for device in self._devices) - self._journal.sent_count
        return +Counter(never_sent=never_sent, never_connected=len(self._devices) - self._joined)

    def stop(self) -> None:
        """End the taking of readings; what was taken is still delivered."""
        self._is_stopping.set()

    async def run(self) -> None:
        """Send until every device has taken its readings, or until stopped."""
        self.beside(self._ramp_up(), "ramp")
        if self._pace.storm_s:
            self.beside(self._storm(), "storm")
        last = time.monotonic() + self._pace.longest_s(len(self._devices))
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
        for sender in self._senders():
            sender.flush()
        deadline = time.monotonic() + deadline_s
        while self.backlog or any(sender.doubtful for sender in self._senders()):
            if time.monotonic() > deadline:
                return False
            self._raise_failure()
            await asyncio.sleep(_WATCH_S)
        return True

    async def close(self) -> None:
        """Disconnect all in good order and end their tasks."""
        for sender in self._senders():
            sender.close()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_CLOSE_S)
        await self._cancel(self._tasks)

    async def _cancel(self, tasks: list[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _senders(self) -> list[Sender]:
        return [device.sender for device in self._devices if device.sender is not None]

    def _count(self) -> int:
        # QoS 0 knows no acknowledgement: there the rate is that of sending.
        return self._journal.settled_count or self._journal.sent_count

    async def _ramp_up(self) -> None:
        start = time.monotonic()
        joining = []
        for number, device in enumerate(self._devices):
            wait_s = start + number / self._pace.ramp_hz - time.monotonic()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            assert device.sender is not None
            self._tasks.append(self.watch(asyncio.create_task(device.sender.run(), name=device.device_id)))
            joining.append(asyncio.create_task(self._join(device)))
        await asyncio.gather(*joining)
        self.steady.begin(self._count())

    async def _join(self, device: Device) -> None:
        assert device.sender is not None
        await device.sender.ready()
        self._joined += 1
        first = time.monotonic() + self._rng.random() / self._pace.rate_hz  # spread over the first interval
        heapq.heappush(self._due, (first, device.index, 0))

    def _fire_due(self) -> float:
        """Let all devices that are due take a reading; gives the seconds until the next is due."""
        now, now_ns = time.monotonic(), clock.now_ns()
        interval_s, wanted = 1 / self._pace.rate_hz, self._pace.readings
        for _ in range(_TURN_READINGS):
            if not self._due:
                return _WATCH_S
            when, index, taken = self._due[0]
            if when > now:
                return min(_WATCH_S, max(_TURN_S, when - now))
            if not self._devices[index].fire(now_ns):
                self._journal.error("not_taken")
            taken += 1
            if taken == wanted:
                heapq.heappop(self._due)
                self._unfinished -= 1
                self.steady.end(self._count())
            else:
                heapq.heapreplace(self._due, (when + interval_s, index, taken))
        return 0.0

    async def _storm(self) -> None:
        while True:
            await asyncio.sleep(self._pace.storm_s)
            self._journal.error("storms")
            for sender in self._senders():
                sender.break_connection()

    def _note_failure(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._failure = self._failure or task.exception()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
