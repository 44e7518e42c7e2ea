"""Faults: how they are told, and that a spoilt message is spoilt."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from simulators.dice import Dice
from simulators.faults import FaultRates, parse_faults, spoil

GOOD = b'{"ts":1700000000000,"boot_id":"b","seq":1,"values":{"temp":21.5}}'


def test_all_faults_are_read() -> None:
    rates = parse_faults("drop=1%,dup=2%, late=5%,malformed=0.1%,clock=0.2%,power=0.3%,storm=30s")

    assert rates == {
        "drop": 0.01, "dup": 0.02, "late": 0.05, "malformed": 0.001, "clock": 0.002, "power": 0.003, "storm": 30.0,
    }  # fmt: skip


def test_each_roll_picks_at_most_one_fault() -> None:
    rates, dice = FaultRates(drop=0.1, late=0.2, power=0.3), Dice("1")

    picked = Counter(rates.pick(dice.random()) for _ in range(10_000))

    assert set(picked) == {"", "drop", "late", "power"}
    assert abs(picked["drop"] - 1000) < 150
    assert abs(picked["late"] - 2000) < 200
    assert abs(picked["power"] - 3000) < 250


@pytest.mark.parametrize("text", ["rain=1%", "drop", "drop=200%", "storm=often", "drop=60%,late=60%"])
def test_odd_fault_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"unknown fault|not a share|not a duration|limit 100%"):
        parse_faults(text)


@pytest.mark.parametrize("is_line", [True, False])
def test_spoilt_message_is_never_an_object(is_line: bool) -> None:
    dice = Dice("1")

    for _ in range(200):
        payload = spoil(GOOD, dice, is_line=is_line)
        try:
            value = json.loads(payload)
        except ValueError:
            continue
        assert isinstance(value, str)


def test_spoilt_line_stays_one_line_of_text() -> None:
    dice = Dice("1")

    lines = [spoil(GOOD, dice, is_line=True) for _ in range(200)]

    assert all(b"\n" not in line and line.decode() for line in lines)
