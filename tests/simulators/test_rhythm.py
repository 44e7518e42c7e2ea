"""Rhythm: beats through phases, counts of readings, the times of storms."""

from __future__ import annotations

import math
from itertools import islice

import pytest

from simulators.faults import FaultRates
from simulators.rhythm import Rhythm, Stretch, make_rhythm
from simulators.scenario import Group, Phase

CALM = FaultRates()
LATE = FaultRates(late=0.5)


def day() -> Rhythm:
    """10 s at 1/s, 5 s of silence, 10 s at 4/s with faults."""
    return Rhythm([Stretch(10, 1, CALM), Stretch(5, 0, CALM), Stretch(10, 4, LATE)])


def group(**more: object) -> Group:
    known: dict[str, object] = {"faults": {}, "tags": {}, "fields": {}} | more
    return Group("lorry", "lorry", "", 1, None, **known)  # type: ignore[arg-type]


def phase(rate: float, faults: dict[str, float] | None = None, groups: tuple[str, ...] = ()) -> Phase:
    return Phase("p", 10.0, rate, faults or {}, frozenset(groups))


def test_steady_rhythm_counts_seconds() -> None:
    steady = Rhythm([Stretch(math.inf, 4, CALM)])

    assert steady.at(2.5) == (0.625, CALM)
    assert steady.readings(60) == 240


def test_beats_follow_the_phases_and_begin_again() -> None:
    times = [day().at(beat)[0] for beat in (0, 9.5, 10, 14, 49.5, 50, 60)]

    assert times == [0, 9.5, 15, 16, 24.875, 25, 40]


def test_faults_are_those_of_the_phase() -> None:
    assert [day().at(beat)[1] for beat in (0, 9.9, 10, 49, 50)] == [CALM, CALM, LATE, LATE, CALM]


@pytest.mark.parametrize(
    ("duration_s", "readings"), [(5, 5), (10, 10), (12, 10), (16, 14), (25, 50), (35, 60), (0.1, 1)]
)
def test_readings_are_counted_over_phases(duration_s: float, readings: int) -> None:
    assert day().readings(duration_s) == readings


def test_beats_lie_within_the_time_of_their_count() -> None:
    rhythm = day()
    for duration_s in (5, 16, 25, 35, 61):
        last_s, _ = rhythm.at(rhythm.readings(duration_s) - 1)
        assert last_s < duration_s


def test_storms_come_within_their_phase() -> None:
    rhythm = Rhythm([Stretch(10, 1, CALM), Stretch(10, 1, FaultRates(storm=4))])

    assert list(islice(rhythm.storms(), 4)) == [14, 18, 34, 38]
    assert list(day().storms()) == []
    assert list(Rhythm([Stretch(10, 1, FaultRates(storm=11))]).storms()) == [], "a phase too short for a storm"


def test_command_line_goes_before_phase_before_group() -> None:
    lorry = group(faults={"late": 0.1, "dup": 0.1, "drop": 0.1})

    rhythm = make_rhythm(lorry, [phase(2.0, {"dup": 0.2, "drop": 0.2})], 3.0, {"drop": 0.3})

    assert rhythm.at(0)[1] == FaultRates(late=0.1, dup=0.2, drop=0.3)
    assert rhythm.fastest_hz == 6.0


def test_phase_of_other_groups_changes_nothing() -> None:
    rhythm = make_rhythm(group(), [phase(5.0, {"dup": 0.2}, ("pump",))], 2.0, {})

    assert rhythm.at(0)[1] == CALM
    assert rhythm.fastest_hz == 2.0


def test_group_that_never_sends_is_refused() -> None:
    with pytest.raises(ValueError, match="'lorry' sends in no phase"):
        make_rhythm(group(), [phase(0.0, None, ("lorry",))], 1.0, {})
