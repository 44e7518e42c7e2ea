"""Delays of whole batches, and their percentiles."""

from __future__ import annotations

import time
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis import delays, metrics
from chassis.delays import EDGES_S, NS_PER_S, DelayHistogram

NOW_NS = 1_700_000_000 * NS_PER_S
_names = count()


def make() -> tuple[DelayHistogram, str]:
    name = f"test_delays_{next(_names)}"
    return DelayHistogram(name, "of a test"), name


def before(*delays_s: float) -> list[int]:
    return [NOW_NS - round(delay_s * NS_PER_S) for delay_s in delays_s]


@given(st.lists(st.floats(-5, 300), min_size=1, max_size=50))
def test_every_delay_is_in_its_step(delays_s: list[float]) -> None:
    moments = sorted(before(*delays_s))

    counts = delays._count(moments, NOW_NS)

    lows = [-1e9, *EDGES_S]
    highs = [*EDGES_S, 1e9]
    expected = [
        sum(low * NS_PER_S < NOW_NS - moment <= high * NS_PER_S for moment in moments)
        for low, high in zip(lows, highs, strict=True)
    ]
    assert sum(counts) == len(moments)
    assert sum(abs(a - b) for a, b in zip(counts, expected, strict=True)) <= 2, "but for roundings of an edge"


def test_a_batch_is_exported_as_single_observations_would_be() -> None:
    histogram, name = make()

    histogram.add("json/mqtt", before(0.0005, 0.004, 0.004, 500), NOW_NS)

    lines = metrics.exposition().decode().splitlines()
    shown = dict(line.rsplit(" ", 1) for line in lines if line.startswith(name))
    labels = 'protocol="json",transport="mqtt"'
    assert float(shown[f"{name}_count{{{labels}}}"]) == 4
    assert float(shown[f"{name}_sum{{{labels}}}"]) == pytest.approx(500.0085)
    assert float(shown[f'{name}_bucket{{le="0.005012",{labels}}}']) == 3
    assert float(shown[f'{name}_bucket{{le="+Inf",{labels}}}']) == 4


def test_percentiles_are_of_each_class() -> None:
    histogram, _ = make()
    histogram.add("json/mqtt", before(*[0.01] * 90, *[0.1] * 8, 1.0, 1.0), NOW_NS)
    histogram.add("json/http", before(0.0), NOW_NS)

    found = histogram.recent()

    assert found["json/mqtt"] == (100, 0.01, 0.1, 1.0)
    assert found["json/http"] == (1, 0.001, 0.001, 0.001)


def test_old_delays_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now_s[0])
    histogram, _ = make()
    histogram.add("json/mqtt", before(1.0), NOW_NS)

    now_s[0] += 31
    histogram.add("json/mqtt", before(0.01), NOW_NS)
    assert histogram.recent()["json/mqtt"].readings == 2
    now_s[0] += 31
    assert histogram.recent()["json/mqtt"] == (1, 0.01, 0.01, 0.01)
    now_s[0] += 100

    assert histogram.recent() == {}
