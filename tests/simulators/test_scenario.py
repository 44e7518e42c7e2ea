"""Scenarios look like real things: within limits, smooth, coupled as nature couples them, the same for a seed."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from simulators import scenario
from simulators.commander import Orders
from simulators.control import Answers
from simulators.dice import Dice
from simulators.models import Greenhouse
from wire.registry import DeviceTypeCreate

MIDNIGHT_S = 1_790_035_200.0  # 2026-09-22T00:00:00Z


def play(name: str, seed: int, hours: float = 24.0, every_s: float = 10.0) -> list[dict[str, Any]]:
    model = scenario.load(name).groups[0].make(Dice(str(seed)), MIDNIGHT_S)
    return [model.values(MIDNIGHT_S + number * every_s) for number in range(int(hours * 3600 / every_s))]


def correlation(xs: list[float], ys: list[float]) -> float:
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    together = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
    spread = sum((x - mean_x) ** 2 for x in xs) * sum((y - mean_y) ** 2 for y in ys)
    return together / spread**0.5


THINGS = ("greenhouse", "cold-chain", "pump", "plain")
FLEETS = ("dairy-fleet", "smart-building", "water-network")


@pytest.mark.parametrize("name", scenario.NAMES)
def test_device_type_is_one_the_registry_takes(name: str) -> None:
    for group in scenario.load(name).groups:
        DeviceTypeCreate.model_validate(group.device_type(group.type))


@pytest.mark.parametrize("name", scenario.NAMES)
def test_every_reading_fits_its_device_type(name: str) -> None:
    kinds = {"float": (float, int), "int": (int,), "bool": (bool,), "string": (str,)}
    for group in scenario.load(name).groups:
        fields, model = group.fields, group.make(Dice("1"), MIDNIGHT_S)
        for number in range(1000):
            values = model.values(MIDNIGHT_S + number * 60)
            assert set(values) == set(fields)
            for field, value in values.items():
                assert type(value) in kinds[fields[field]["type"]]
                assert fields[field].get("min", value) <= value <= fields[field].get("max", value)


@pytest.mark.parametrize("name", scenario.NAMES)
def test_same_seed_gives_the_same_day(name: str) -> None:
    assert play(name, 5, hours=1) == play(name, 5, hours=1)


@pytest.mark.parametrize("name", ["greenhouse", "cold-chain", "pump"])
def test_different_seeds_give_different_things(name: str) -> None:
    assert play(name, 5, hours=0.1) != play(name, 6, hours=0.1)


@pytest.mark.parametrize(
    ("name", "field", "step"),
    [
        ("greenhouse", "temp", 1.0),
        ("cold-chain", "temp", 0.8),
        ("pump", "bearing_temp", 6.0),
        ("cold-chain", "lat", 0.004),
    ],
)
def test_values_change_smoothly(name: str, field: str, step: float) -> None:
    for seed in range(3):
        values = [reading[field] for reading in play(name, seed)]

        assert max(abs(after - before) for before, after in pairwise(values)) < step


def test_greenhouse_follows_the_sun() -> None:
    day = play("greenhouse", 1)
    night, noon = day[: 3 * 360], day[11 * 360 : 14 * 360]

    assert max(reading["light"] for reading in night) == 0
    assert min(reading["light"] for reading in noon) > 10_000
    assert min(reading["temp"] for reading in noon) > max(reading["temp"] for reading in night) + 2
    assert correlation([each["temp"] for each in day], [each["humidity"] for each in day]) < -0.6
    assert {reading["window_open"] for reading in day} == {True, False}
    assert {"irrigating", "venting"} <= {reading["mode"] for reading in day}


def test_greenhouse_is_irrigated_when_dry() -> None:
    soil = [reading["soil_moisture"] for reading in play("greenhouse", 2)]

    assert Greenhouse.DRY - 1 < min(soil) < Greenhouse.DRY + 0.5
    assert Greenhouse.WET - 1 < max(soil) < Greenhouse.WET + 2


def test_cold_chain_warms_while_the_door_is_open() -> None:
    day = play("cold-chain", 3)
    opened = [
        after["temp"] - before["temp"] for before, after in pairwise(day) if before["door_open"] and after["door_open"]
    ]
    closed = [reading["temp"] - reading["setpoint"] for reading in day if not reading["door_open"]]

    assert 0.01 < len(opened) / len(day) < 0.3
    assert sum(opened) / len(opened) > 0.05
    assert sum(abs(gap) < 2 for gap in closed) / len(closed) > 0.6
    assert all(reading["speed"] == 0 for reading in day if reading["door_open"])
    assert (
        len({reading["compressor_on"] for reading in day})
        + sum(before["compressor_on"] != after["compressor_on"] for before, after in pairwise(day))
        > 4
    )


def test_pump_runs_hot_and_shakes_before_it_trips() -> None:
    day = play("pump", 4)
    first_fault = next(i for i, reading in enumerate(day) if reading["state"] == "fault")
    healthy = [reading for reading in day if reading["state"] == "running" and reading["rpm"] > 800]
    before = day[first_fault - 6 : first_fault]

    assert {reading["state"] for reading in day} == {"running", "warning", "fault", "maintenance"}
    assert min(reading["vibration"] for reading in before) > 2 * sum(r["vibration"] for r in healthy) / len(healthy)
    assert (
        min(reading["bearing_temp"] for reading in before) > sum(r["bearing_temp"] for r in healthy) / len(healthy) + 10
    )


def test_unknown_scenario_names_the_known() -> None:
    with pytest.raises(ValueError, match=r"cold-chain, .*greenhouse, .*pump"):
        scenario.load("volcano")


def test_compartment_is_as_cold_as_its_cargo_wants_it() -> None:
    cold = scenario.load("cold-chain").groups[0]

    for number in range(4):
        setpoint = cold.make(Dice("1"), MIDNIGHT_S, number).values(MIDNIGHT_S)["setpoint"]
        assert setpoint == {"frozen": -18.0, "chilled": 4.0}[cold.tags_of(number)["cargo"]]


def test_shipped_fleets_are_whole_days_of_whole_fleets() -> None:
    assert set(scenario.NAMES) == {*THINGS, *FLEETS, "control-room"}
    for name in FLEETS:
        fleet = scenario.load(name)
        assert len(fleet.groups) == len(fleet.phases) == 3
        assert fleet.devices is not None
        assert fleet.devices >= 200
        assert fleet.duration_s == 120
        assert any(group.faults for group in fleet.groups)
        assert any(phase.faults for phase in fleet.phases)


GOOD = """
[[groups]]
name = "lorry"
devices = 3
rate = "10/m"
tags = { site = ["a", "b"] }
faults = { late = "5%" }

[groups.fields.temp]
type = "float"
unit = "Cel"
min = -40
max = 50
value = { model = "walk", step = 0.1 }

[[phases]]
duration = "1m"
rate = 2
groups = ["lorry"]
faults = { storm = "10s" }
"""


def test_file_of_ones_own_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GOOD)

    mine = scenario.load(str(path))

    group = mine.groups[0]
    assert (mine.name, mine.devices, mine.duration_s) == ("mine", 3, 60)
    assert (group.type, group.rate_hz, group.faults) == ("lorry", 10 / 60, {"late": 0.05})
    assert group.tags_of(1) == {"site": "b"}
    assert group.fields == {"temp": {"type": "float", "unit": "Cel", "min": -40, "max": 50}}
    assert mine.phases[0].faults == {"storm": 10.0}


def test_what_a_fleet_is_told_and_answers_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    head = '[orders]\ncommands = "20/s"\ndeadline = "5s"\n'
    told = 'answers = { failed = "5%", never = "1%" }\nfirmware = "1.4.2"\n\n[groups.fields.temp]'
    path.write_text(head + GOOD.replace("[groups.fields.temp]", told, 1))

    mine = scenario.load(str(path))

    assert mine.orders == Orders(commands_hz=20, desired_hz=0, deadline_s=5)
    assert (mine.groups[0].answers, mine.groups[0].firmware) == (Answers(failed=0.05, never=0.01), "1.4.2")


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("devices = 3", "devices = 0", "groups[0].devices: 0, from 1 to 1000000"),
        ("devices = 3", "devices = 2.5", "groups[0].devices: not a whole number: 2.5"),
        ('name = "lorry"', 'name = "_lorry"', "groups[0].name: '_lorry' cannot begin a device id"),
        ('name = "lorry"', "", "groups[0].name: is missing"),
        ('rate = "10/m"', 'rate = "often"', "groups[0].rate: not a rate: 'often'"),
        ('rate = "10/m"', "rate = true", "groups[0].rate: neither text nor number: True"),
        ('rate = "10/m"', 'speed = "10/m"', "groups[0].speed: unknown key (known: answers, description, devices"),
        ('rate = "10/m"', 'model = "volcano"', "groups[0].model: unknown 'volcano' (known: greenhouse"),
        ('rate = "10/m"', 'model = "pump"', "groups[0].fields.temp.value: the group has a model"),
        ('["a", "b"]', '"a"', "groups[0].tags.site: not an array of texts: 'a'"),
        ('late = "5%"', 'late = "500%"', "groups[0].faults: late: not a share: '500%'"),
        ("faults =", 'answers = { eaten = "1%" } #', "groups[0].answers: unknown answer 'eaten'"),
        ("[[groups]]", '[orders]\nrockets = "1/s"\n[[groups]]', "orders.rockets: unknown key (known: commands"),
        ('late = "5%"', 'rain = "5%"', "groups[0].faults: unknown fault 'rain'"),
        ('late = "5%"', 'late = "60%", dup = "60%"', "groups[0].faults: faults of 120% of all readings, limit 100%"),
        ('type = "float"', 'type = "complex"', "groups[0].fields.temp.type: unknown 'complex'"),
        ("max = 50", "max = -50", "groups[0].fields.temp.max: -50, at least min = -40"),
        (", step = 0.1", "", "groups[0].fields.temp.value.step: is missing"),
        ('duration = "1m"', 'duration = "0s"', "phases[0].duration: is zero"),
        ("rate = 2", "rate = -1", "phases[0].rate: -1, at least 0"),
        ("rate = 2", "rate = 0", "phases: all have rate = 0: nothing would ever be sent"),
        (
            'groups = ["lorry"]',
            'groups = ["pump"]',
            "phases[0].groups: not an array of groups: ['pump'] (known: lorry)",
        ),
        ("[[phases]]", "[phases]", "phases: not an array of tables: write [[phases]]"),
        ("[[groups]]", "[[groups", "Expected ']]' at the end of an array declaration"),
    ],
)
def test_error_in_a_file_names_file_key_and_limit(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    path = tmp_path / "mine.toml"
    assert old in GOOD
    path.write_text(GOOD.replace(old, new, 1))

    with pytest.raises(ValueError) as caught:
        scenario.load(str(path))

    assert str(caught.value).startswith(f"{path}: {complaint}")
    assert "\n" not in str(caught.value)


def test_two_groups_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GOOD.replace("lorry", "pump"))

    with pytest.raises(ValueError, match="two groups named 'pump' in pump,"):
        scenario.load_all(["pump", str(path)])


def test_missing_file_is_named() -> None:
    with pytest.raises(ValueError, match=r"nowhere\.toml: No such file"):
        scenario.load("nowhere.toml")
