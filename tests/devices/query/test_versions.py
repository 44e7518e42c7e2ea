from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.query.versions import order_of

RISING = [
    "0",
    "0.0.1",
    "0.9",
    "1-alpha",
    "1-alpha.1",
    "1-alpha.2",
    "1-alpha.10",
    "1-alpha.beta",
    "1-beta",
    "1.0.0~rc1",
    "1",
    "v1.0.1",
    "1.1-dev",
    "1.1",
    "1.2.9",
    "1.2.10rc1",
    "1.2.10",
    "1.10",
    "2",
    "10",
    "2026.1",
    "20260101",
]


def test_versions_are_ordered_part_by_part() -> None:
    orders = [order_of(version) for version in RISING]

    assert all(before < after for before, after in pairwise(orders)), list(zip(RISING, orders, strict=True))


@pytest.mark.parametrize("same", ["1.2", "v1.2", "1.2.0", "1.2.0.0", "01.2", "1.2+build7", "1.02"])
def test_ways_to_write_one_version_are_equal(same) -> None:
    assert order_of(same) == order_of("1.2")


@pytest.mark.parametrize("other", ["", "v", "unknown", "rc1", ".1", "1 2", "1/2", "१.२"])
def test_other_texts_have_no_order(other) -> None:
    assert order_of(other) is None


@settings(deadline=None)
@given(*[st.lists(st.integers(0, 10**9), min_size=1, max_size=5)] * 2)
def test_numbers_are_compared_by_value(one, other) -> None:
    length = max(len(one), len(other))
    padded = [parts + [0] * (length - len(parts)) for parts in (one, other)]
    orders = [order_of(".".join(map(str, parts))) for parts in (one, other)]

    assert (orders[0] < orders[1], orders[0] == orders[1]) == (padded[0] < padded[1], padded[0] == padded[1])
