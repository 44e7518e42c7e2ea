from __future__ import annotations

import pytest

from ingest.arrivals import CLOCK_STEP_NS, Arrivals
from wire import clock


def test_no_reading_of_two_messages_shares_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "now_ns", lambda: 1_000)
    arrivals = Arrivals()

    assert [arrivals.take(500), arrivals.take(0), arrivals.take(7)] == [1_000, 1_500, 1_501]


def test_a_clock_that_was_set_back_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [10 * CLOCK_STEP_NS]
    monkeypatch.setattr(clock, "now_ns", lambda: now[0])
    arrivals = Arrivals()
    arrivals.take(1)
    now[0] -= CLOCK_STEP_NS // 2
    assert arrivals.take(1) > 10 * CLOCK_STEP_NS
    now[0] -= 5 * CLOCK_STEP_NS
    assert arrivals.take(1) == now[0]
