"""The fleet: ramp, pace, storms, and a device that cannot begin."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Any

import pytest

from simulators import fleet as fleet_module
from simulators.device import Device, Habits
from simulators.dice import Dice
from simulators.faults import FaultRates
from simulators.fleet import Fleet, Pace, Seat
from simulators.journal import Journal
from simulators.outbox import Outgoing, Spawn
from simulators.rhythm import Rhythm, Stretch
from simulators.scenario import load
from tests.simulators.fakes import until


class Wire:
    """A sender that acknowledges at once, unless it is told to keep."""

    def __init__(self, journal: Journal, *, keeps: bool = False) -> None:
        self._journal, self._keeps = journal, keeps
        self.kept: list[Outgoing] = []
        self.started_at = 0.0
        self.breaks = 0
        self.gets_ready = True
        self.is_done = self.is_stuck = False
        self.failure: Exception | None = None
        self.doubtful = 0

    @property
    def backlog(self) -> int:
        return len(self.kept)

    def offer(self, outgoing: Outgoing) -> None:
        outgoing.sent_at = time.monotonic()
        self._journal.sent(outgoing)
        self.kept.append(outgoing) if self._keeps else self._journal.acked(outgoing)

    def flush(self) -> None:
        self.kept.clear()

    def lose_power(self) -> None: ...

    def break_connection(self) -> None:
        self.breaks += 1

    def start(self, spawn: Spawn, ready: Callable[[], None]) -> None:
        self.started_at = time.monotonic()
        spawn(self._work())
        if self.gets_ready:
            ready()

    async def _work(self) -> None:
        if self.failure is not None:
            raise self.failure

    def close(self) -> None:
        self.is_done = not self.is_stuck


def steady(rate_hz: float, storm_s: float = 0.0) -> Rhythm:
    return Rhythm([Stretch(math.inf, rate_hz, FaultRates(storm=storm_s))])


def make(
    count: int, rhythm: Rhythm, pace: Pace, *, keeps: bool = False, limit: int = 10
) -> tuple[Fleet, Journal, list[Wire]]:
    journal, habits = Journal(), Habits(backlog_limit=limit)
    wires = [Wire(journal, keeps=keeps) for _ in range(count)]
    seats = []
    for index, wire in enumerate(wires):
        dice = Dice(str(index))
        device = Device(index, f"d{index}", "boot", habits, load("plain").groups[0].make(dice, 0.0), dice)
        device.sender = wire
        seats.append(Seat(device, wire, rhythm, dice.random()))
    return Fleet(seats, pace, journal), journal, wires


def play(fleet: Fleet) -> None:
    async def scene() -> None:
        try:
            await fleet.run()
            await fleet.drain(1.0)
        finally:
            await fleet.close()

    asyncio.run(scene())


def test_every_device_takes_its_readings() -> None:
    fleet, journal, _ = make(7, steady(50), Pace(1000, 0.5))

    play(fleet)

    assert journal.sent_count == journal.acked_count == 7 * 25
    assert not journal.errors
    assert not fleet.shortfall()


def test_devices_start_along_the_ramp() -> None:
    fleet, _, wires = make(10, steady(10), Pace(50, 0.5))

    play(fleet)

    starts = [wire.started_at - wires[0].started_at for wire in wires]
    assert starts == sorted(starts)
    assert starts[-1] >= 9 / 50 - 0.01


def test_pace_is_kept() -> None:
    fleet, _, _ = make(4, steady(50), Pace(1000, 0.5))
    start = time.monotonic()

    play(fleet)

    assert 0.45 < time.monotonic() - start < 2.0


def test_full_memory_is_counted_and_does_not_stop_the_run() -> None:
    fleet, journal, _ = make(2, steady(100), Pace(1000, 0.3), keeps=True, limit=5)

    play(fleet)

    assert journal.sent_count == 10
    assert journal.errors["not_taken"] == 50


def test_storm_breaks_every_connection() -> None:
    fleet, journal, wires = make(3, steady(20, storm_s=0.15), Pace(1000, 0.5))

    play(fleet)

    assert journal.errors["storms"] in {2, 3}
    assert {wire.breaks for wire in wires} == {journal.errors["storms"]}


def test_device_that_never_gets_ready_does_not_hold_up_the_run() -> None:
    pace = Pace(1000, 0.2)
    fleet, journal, wires = make(2, steady(20), pace)
    wires[1].gets_ready = False

    async def scene() -> None:
        run = asyncio.create_task(fleet.run())
        await until(lambda: journal.sent_count == 4)
        fleet.stop()
        await run
        await fleet.close()

    asyncio.run(scene())

    assert fleet.shortfall() == {"never_connected": 1}
    assert pace.longest_s(2) < 60


def test_failure_of_a_device_ends_the_run() -> None:
    fleet, _, wires = make(2, steady(10), Pace(1000, 60.0))
    wires[1].failure = RuntimeError("a fault of ours")

    with pytest.raises(RuntimeError, match="a fault of ours"):
        play(fleet)


def test_connection_that_does_not_close_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_module, "_CLOSE_S", 0.01)
    fleet, _, wires = make(2, steady(20), Pace(1000, 0.1))
    wires[1].is_stuck = True

    play(fleet)

    assert [wire.breaks for wire in wires] == [0, 1]


def test_failure_beside_the_fleet_ends_the_run() -> None:
    fleet, _, _ = make(2, steady(10), Pace(1000, 60.0))

    async def fail() -> None:
        raise OSError(28, "No space left on device")

    async def scene() -> None:
        fleet.beside(fail(), "ledger")
        try:
            await fleet.run()
        finally:
            await fleet.close()

    with pytest.raises(OSError, match="No space"):
        asyncio.run(scene())


def test_drain_gives_up_at_its_deadline() -> None:
    fleet, _, wires = make(1, steady(100), Pace(1000, 0.1), keeps=True)
    stuck: Any = wires[0]
    stuck.flush = lambda: None

    async def scene() -> bool:
        await fleet.run()
        is_drained = await fleet.drain(0.1)
        await fleet.close()
        return is_drained

    assert not asyncio.run(scene())


def test_drain_waits_for_what_is_in_doubt() -> None:
    fleet, _, wires = make(1, steady(50), Pace(1000, 0.5))
    wires[0].doubtful = 1
    assert not asyncio.run(fleet.drain(0.1))

    wires[0].doubtful = 0
    assert asyncio.run(fleet.drain(0.1))
