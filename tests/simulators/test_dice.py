"""Seeded numbers: repeatable, and spread as they should be."""

from __future__ import annotations

import statistics

from simulators.dice import Dice

COUNT = 20_000


def test_same_seed_gives_the_same_numbers() -> None:
    one, two, other = Dice("7/lorry-01"), Dice("7/lorry-01"), Dice("7/lorry-02")

    numbers = [one.random() for _ in range(100)]

    assert numbers == [two.random() for _ in range(100)]
    assert numbers != [other.random() for _ in range(100)]


def test_numbers_are_spread_evenly() -> None:
    dice = Dice("1")
    tenths = [0] * 10
    for _ in range(COUNT):
        tenths[int(dice.random() * 10)] += 1

    assert all(abs(count - COUNT / 10) < COUNT / 50 for count in tenths)


def test_normal_and_exponential_numbers_have_their_moments() -> None:
    dice = Dice("1")
    normal = [dice.gauss(5.0, 2.0) for _ in range(COUNT)]
    waits = [dice.expovariate(0.25) for _ in range(COUNT)]

    assert abs(statistics.mean(normal) - 5.0) < 0.1
    assert abs(statistics.stdev(normal) - 2.0) < 0.1
    assert abs(statistics.mean(waits) - 4.0) < 0.2
    assert min(waits) >= 0


def test_choices_reach_every_option() -> None:
    dice = Dice("1")

    assert {dice.choice("abc") for _ in range(100)} == set("abc")
    assert {dice.randrange(3) for _ in range(100)} == {0, 1, 2}
    assert all(2.0 <= dice.uniform(2.0, 3.0) < 3.0 for _ in range(100))
