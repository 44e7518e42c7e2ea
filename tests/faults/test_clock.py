"""F10: the platform's wall clock jumps under load, ahead, back, over years and over midnight."""

from __future__ import annotations

import time

import pytest

from tests.faults.checker.senders import now_ms
from tests.faults.rig import RiggedSite

pytestmark = [pytest.mark.e2e, pytest.mark.faults]
HOUR_S, YEAR_S, DAY_S = 3_600.0, 365 * 86_400.0, 86_400.0


@pytest.mark.parametrize(
    "jumps", [(HOUR_S, 0.0, -HOUR_S), (10 * YEAR_S, -10 * YEAR_S)], ids=["an hour and back", "ten years both ways"]
)
def test_jumping_clock_loses_and_repeats_nothing(rigged: RiggedSite, jumps: tuple[float, ...]) -> None:
    run = rigged.run("jumps").start()
    restarts = rigged.restarts()

    for offset_s in jumps:
        rigged.set_clock(offset_s)
        run.wait_acked(100)
    rigged.set_clock(0)
    run.wait_acked(100)

    run.check()
    assert rigged.restarts() == restarts, "a clock that jumps ends no process"


def test_midnight_under_load_and_kills(rigged: RiggedSite) -> None:
    """The store begins a new day's file while devices and services see midnight, and its writer is killed then."""
    offset_s = 0.0
    run = rigged.run("midnight").connect(4, 2, clock_ms=lambda: now_ms() + int(offset_s * 1000))
    offset_s = DAY_S - time.time() % DAY_S - 2.0  # only now: connecting takes as long as the machine is busy
    rigged.set_clock(offset_s)
    run.load.start()
    for _ in range(3):
        rigged.kill("writer")
        run.wait_acked(150)

    found = run.check()

    days = {point["time"][:10] for point in rigged.door.rows("midnight-" + run.name.rpartition("-")[2] + "-1")}
    assert len(days) == 2, f"the load went over midnight: {days}"
    assert found.stored == found.acked
