"""Value models: within limits, of their type, the same for a seed."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from simulators.dice import Dice
from simulators.tables import ScenarioError, Table
from simulators.values import Value, read_source

FILE = Path("f.toml")


def play(kind: str = "float", low: float | None = None, high: float | None = None, **value: Any) -> list[Value]:
    table = Table(FILE, value, "value")
    source = read_source(table, kind, low, high).make(Dice("1"), 0.0)
    table.close()
    return [source.value(float(at_s)) for at_s in range(2000)]


def test_constant_stays() -> None:
    assert set(play(model="constant", value=3)) == {3.0}
    assert set(play("string", model="constant", value="on")) == {"on"}


def test_wave_swings_about_its_mean() -> None:
    values = play(model="wave", mean=20, amplitude=5, period="10m", phase=0.25, digits=1)

    assert values[0] == 25.0
    assert (min(values), max(values)) == (15.0, 25.0)
    assert values[:600] == values[600:1200]


def test_noise_and_phase_differ_between_devices() -> None:
    spec = read_source(Table(FILE, {"model": "wave", "mean": 1, "amplitude": 1, "noise": 0.1}), "float", None, None)

    assert len({spec.make(Dice(str(seed)), 0.0).value(0.0) for seed in range(20)}) > 15


def test_walk_keeps_between_its_walls() -> None:
    values = play(model="walk", step=2, low=10, high=30)

    assert (min(values), max(values)) == (10, 30)
    assert values[0] == 20
    assert len(set(values)) > 1000


def test_walk_takes_its_walls_from_the_field() -> None:
    assert set(play("int", 0, 3, model="walk", step=3)) == {0, 1, 2, 3}


def test_counter_counts_readings() -> None:
    assert play("int", model="counter", start=5, step=3)[:4] == [5, 8, 11, 14]


def test_states_hold_for_a_while() -> None:
    values = play("string", model="states", values=["a", "b", "c"], hold="50s")
    changes = sum(before != after for before, after in pairwise(values))

    assert set(values) == {"a", "b", "c"}
    assert 20 < changes < 70
    assert set(play("bool", model="states", hold="50s")) == {True, False}


def test_limits_of_the_field_are_kept() -> None:
    values = play("float", 0, 22, model="wave", mean=20, amplitude=50, period="10m")

    assert (min(values), max(values)) == (0, 22)


def test_same_seed_gives_the_same_values() -> None:
    assert play(model="walk", step=2, low=0, high=9) == play(model="walk", step=2, low=0, high=9)


@pytest.mark.parametrize(
    ("kind", "value", "complaint"),
    [
        ("float", {"model": "tide"}, "value.model: unknown 'tide' (known: constant, wave, walk, counter, states)"),
        ("float", {}, "value.model: is missing"),
        ("float", {"model": "wave"}, "value.mean: is missing"),
        ("float", {"model": "wave", "mean": "x"}, "value.mean: not a number: 'x'"),
        ("float", {"model": "wave", "mean": 1, "period": "0s"}, "value.period: is zero"),
        ("float", {"model": "wave", "mean": 1, "period": "soon"}, "value.period: not a duration: 'soon'"),
        ("float", {"model": "wave", "mean": 1, "noise": -1}, "value.noise: -1, at least 0"),
        ("float", {"model": "wave", "mean": 1, "digits": 12}, "value.digits: 12, from 0 to 9"),
        ("float", {"model": "wave", "mean": 1, "colour": 2}, "value.colour: unknown key (known: amplitude"),
        ("float", {"model": "walk", "step": 1}, "value.low: is missing"),
        ("float", {"model": "walk", "step": 1, "low": 2, "high": 2}, "value.high: 2, above low = 2"),
        ("bool", {"model": "counter"}, "value.model: 'counter' gives numbers, the field is of type bool"),
        ("string", {"model": "states", "values": ["a"]}, "value.values: not an array of 2 to 64 values"),
        ("string", {"model": "states", "values": ["a", "a"]}, "value.values: a value stands there twice"),
        ("int", {"model": "states", "values": [1, 2.5]}, "value.values: not of the field's type int: 2.5"),
        ("bool", {"model": "constant", "value": 1}, "value.value: not of the field's type bool: 1"),
    ],
)
def test_complaint_names_file_key_and_limit(kind: str, value: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        play(kind, **value)

    assert str(caught.value).startswith(f"f.toml: {complaint}")
