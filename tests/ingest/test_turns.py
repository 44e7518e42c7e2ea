"""Large bodies take turns, and only so many may wait."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from ingest.turns import Turns
from tests.support.waiting import wait_until
from wire.errors import Unavailable


def test_one_has_the_turn_at_a_time() -> None:
    turns, inside, most = Turns(), 0, 0

    def work(_: int) -> None:
        nonlocal inside, most
        with turns.take():
            inside += 1
            most = max(most, inside)
            threading.Event().wait(0.002)
            inside -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(24)))

    assert most == 1


def test_one_too_many_is_sent_away_and_may_come_again() -> None:
    turns, gate = Turns(waiting=2), threading.Event()

    def hold() -> None:
        with turns.take():
            gate.wait(10)

    with ThreadPoolExecutor(3) as pool:
        held = [pool.submit(hold) for _ in range(3)]
        wait_until(lambda: turns._places._value == 0)
        with pytest.raises(Unavailable) as caught, turns.take():
            pass
        gate.set()
        for each in held:
            each.result(10)
    with turns.take():
        pass

    assert caught.value.retry_after_s == 2
