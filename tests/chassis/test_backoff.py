"""Pauses grow to their cap, and begin anew after a success."""

from __future__ import annotations

from itertools import pairwise

from chassis.backoff import Backoff


def test_pauses_double_up_to_the_cap() -> None:
    backoff = Backoff(1.0, 6.0)

    pauses = [backoff.next_s() for _ in range(6)]

    for pause_s, full_s in zip(pauses, (1.0, 2.0, 4.0, 6.0, 6.0, 6.0), strict=True):
        assert full_s / 2 <= pause_s <= full_s


def test_pauses_of_two_are_spread() -> None:
    one, other = Backoff(1.0, 1.0), Backoff(1.0, 1.0)

    assert [one.next_s() for _ in range(5)] != [other.next_s() for _ in range(5)]


def test_success_begins_with_the_shortest_pause() -> None:
    backoff = Backoff(1.0, 64.0)
    before = [backoff.next_s() for _ in range(7)]

    backoff.reset()

    assert all(a < b for a, b in pairwise(before[::2]))
    assert backoff.next_s() <= 1.0
