"""Conditions that fail a run."""

from __future__ import annotations

from typing import Any

import pytest

from simulators.conditions import parse_conditions

REPORT: dict[str, Any] = {
    "sent": 100,
    "acked": 99,
    "stored": 99,
    "lost": 0,
    "duplicates": 2,
    "unacked": 1,
    "quarantined": 0,
    "rate_s": 49.5,
    "ack_ms": {"p50": 1.0, "p95": 5.0, "p99": 700.0, "max": 900.0},
    "visible_ms": {"p50": None, "p95": None, "p99": None, "max": None},
    "commands": {"received": 10, "never": 1, "lost": None},
    "twin": None,
    "errors": {"connect": 3, "resent": 4},
}


@pytest.mark.parametrize(
    ("text", "fails"),
    [
        ("lost>0", False),
        ("duplicates>0", True),
        ("duplicates>=3", False),
        ("unacked==1", True),
        ("rate_s<50", True),
        ("sent!=100", False),
        ("ack_p99>500ms", True),
        ("ack_p99>500", True),
        ("ack_p99 > 1s", False),
        ("ack_max<=0.9s", True),
        ("errors>6", True),
        ("errors.connect>3", False),
        ("errors.http_500>0", False),
        ("commands.received<10", False),
        ("commands.never>0", True),
        ("commands.lost>0", True),  # not measured
        ("twin.reported<1", True),  # not measured
    ],
)
def test_condition_is_judged(text: str, fails: bool) -> None:
    (condition,) = parse_conditions(text)

    assert (condition.failure(REPORT) is not None) == fails


def test_value_not_measured_fails() -> None:
    (condition,) = parse_conditions("visible_p99>1s")

    assert condition.failure(REPORT) == "visible_p99>1s: visible_p99 was not measured"


def test_failure_names_the_value() -> None:
    (condition,) = parse_conditions("ack_p99>500ms")

    assert condition.failure(REPORT) == "ack_p99>500ms: ack_p99 is 700"


def test_several_conditions_are_parted_by_commas() -> None:
    assert [condition.name for condition in parse_conditions("lost>0, duplicates>0,")] == ["lost", "duplicates"]


@pytest.mark.parametrize("text", ["lost", "lost>", "lost>x", "lost=0", "gone>0", "lost>1s", ">0", "ack_p42>1"])
def test_odd_condition_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a condition|unknown name|is not a time"):
        parse_conditions(text)
