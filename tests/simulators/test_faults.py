"""Faults: how they are told, and that a spoilt message is spoilt."""

from __future__ import annotations

import json
import random

import pytest

from simulators.faults import FaultRates, parse_faults, spoil

GOOD = b'{"ts":1700000000000,"boot_id":"b","seq":1,"values":{"temp":21.5}}'


def test_all_faults_are_read() -> None:
    rates = parse_faults("drop=1%,dup=2%, late=5%,malformed=0.1%,storm=30s")

    assert rates == FaultRates(drop=0.01, dup=0.02, late=0.05, malformed=0.001, storm=30.0)


@pytest.mark.parametrize("text", ["rain=1%", "drop", "drop=200%", "storm=often"])
def test_odd_fault_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"unknown fault|not a share|not a duration"):
        parse_faults(text)


@pytest.mark.parametrize("is_line", [True, False])
def test_spoilt_message_is_never_an_object(is_line: bool) -> None:
    rng = random.Random(1)

    for _ in range(200):
        payload = spoil(GOOD, rng, is_line=is_line)
        try:
            value = json.loads(payload)
        except ValueError:
            continue
        assert isinstance(value, str)


def test_spoilt_line_stays_one_line_of_text() -> None:
    rng = random.Random(1)

    lines = [spoil(GOOD, rng, is_line=True) for _ in range(200)]

    assert all(b"\n" not in line and line.decode() for line in lines)
