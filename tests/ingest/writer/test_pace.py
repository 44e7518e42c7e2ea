"""The writer's rest between turns."""

from __future__ import annotations

import pytest

from ingest.writer.pace import BACKLOG, LONGEST_S, SHORTEST_S, Pace


def settle(rate: float, took_s: float = 0.004) -> float:
    """Let readings come at a rate for a while; give the time from turn to turn then."""
    pace, begun_s, turn_s = Pace(), 0.0, SHORTEST_S
    for _ in range(200):
        rest_s = pace.rest_s(int(rate * turn_s), begun_s, begun_s + took_s)
        turn_s = took_s + rest_s
        begun_s += turn_s
    return turn_s


def test_turns_are_short_at_a_small_rate_and_long_at_a_large_one() -> None:
    assert settle(0) == settle(100) == pytest.approx(SHORTEST_S)
    assert settle(5_000) == pytest.approx(0.025, rel=0.05)
    assert settle(12_000) == pytest.approx(0.06, rel=0.05)
    assert settle(24_000) == pytest.approx(LONGEST_S)


def test_time_of_a_turn_counts_as_rest() -> None:
    assert settle(12_000, took_s=0.03) == pytest.approx(0.06, rel=0.05)
    assert settle(1_000, took_s=0.5) == pytest.approx(0.5), "none is left of it"


def test_a_backlog_is_not_kept_waiting() -> None:
    pace = Pace()
    assert pace.rest_s(BACKLOG, 0.0, 0.001) == 0.0
    assert pace.rest_s(BACKLOG - 1, 0.01, 0.011) > 0.0


def test_a_burst_passes() -> None:
    pace = Pace()
    pace.rest_s(0, 0.0, 0.0)
    assert pace.rest_s(2_000, 0.02, 0.02) > SHORTEST_S
    begun_s = 0.02
    for _ in range(100):
        begun_s += 0.02
        rest_s = pace.rest_s(0, begun_s, begun_s)
    assert rest_s == pytest.approx(SHORTEST_S)
