"""Percentiles in bounded memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulators.stats import Durations


def test_nothing_counted_gives_nothing() -> None:
    assert Durations().summary() == {"p50": None, "p95": None, "p99": None, "max": None}


@given(st.lists(st.floats(0.02, 1e6), min_size=1, max_size=200), st.sampled_from([0.5, 0.95, 0.99, 1.0]))
def test_percentile_is_right_to_two_percent(values: list[float], share: float) -> None:
    durations = Durations()
    for value in values:
        durations.add(value)
    rank = max(1, -(-int(share * 100) * len(values) // 100))

    exact, found = sorted(values)[rank - 1], durations.percentile(share)

    assert found == pytest.approx(exact, rel=0, abs=exact * 0.021 + 0.001)


def test_memory_does_not_grow_with_the_count() -> None:
    durations = Durations()
    for number in range(100_000):
        durations.add(number % 1000 + 0.5)

    assert len(durations._buckets) < 500
    assert durations.count == 100_000
