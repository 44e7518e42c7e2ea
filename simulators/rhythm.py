"""When a device takes its readings: steadily, or faster and slower through the phases of a scenario.

Time is told in seconds since the device began; it is the same in every run, so that a seed can be played again.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from simulators.faults import FaultRates
from simulators.scenario import Group, Phase


@dataclass(frozen=True, slots=True)
class Stretch:
    """A time of even pace."""

    duration_s: float
    rate_hz: float
    faults: FaultRates


class Rhythm:
    """The pace of a group: stretches, one after the other and then from the beginning again."""

    def __init__(self, stretches: Sequence[Stretch]) -> None:
        self._stretches = tuple(stretches)
        self._starts_s = [0.0, *accumulate(each.duration_s for each in stretches)]
        self._beats = [0.0, *accumulate(each.duration_s * each.rate_hz for each in stretches)]
        self._only = self._stretches[0] if len(self._stretches) == 1 else None

    @property
    def fastest_hz(self) -> float:
        """Highest rate of all."""
        return max(each.rate_hz for each in self._stretches)

    @property
    def faults(self) -> list[FaultRates]:
        """All faults that may happen."""
        return [each.faults for each in self._stretches]

    def at(self, beat: float) -> tuple[float, FaultRates]:
        """Give the time of a beat (beat 2.5 = half-way from the third reading to the fourth) and the faults then."""
        if self._only is not None:
            return beat / self._only.rate_hz, self._only.faults
        turns, beat = divmod(beat, self._beats[-1])
        index = bisect_right(self._beats, beat) - 1
        stretch = self._stretches[index]
        start_s = turns * self._starts_s[-1] + self._starts_s[index]
        return start_s + (beat - self._beats[index]) / stretch.rate_hz, stretch.faults

    def readings(self, duration_s: float) -> int:
        """Count the readings of a device that sends for so long, at least one."""
        if self._only is not None:
            return max(1, round(self._only.rate_hz * duration_s))
        turns, rest_s = divmod(duration_s, self._starts_s[-1])
        beats = turns * self._beats[-1]
        for start_s, stretch in zip(self._starts_s, self._stretches, strict=False):
            beats += stretch.rate_hz * min(max(rest_s - start_s, 0.0), stretch.duration_s)
        return max(1, round(beats))

    def storms(self) -> Iterator[float]:
        """Give the times of the storms, for ever; ends at once when there are none."""
        if not any(0 < each.faults.storm <= each.duration_s for each in self._stretches):
            return
        begin_s = 0.0
        while True:
            for stretch in self._stretches:
                yield from _storms(stretch, begin_s)
                begin_s += stretch.duration_s


def _storms(stretch: Stretch, begin_s: float) -> Iterator[float]:
    every_s, number = stretch.faults.storm, 1
    while every_s and number * every_s <= stretch.duration_s:
        yield begin_s + number * every_s
        number += 1


def make_rhythm(group: Group, phases: Sequence[Phase], rate_hz: float, faults: dict[str, float]) -> Rhythm:
    """Put a group's rhythm together; the faults of a phase go before those of the group, those given here before both.

    Raises:
        ValueError: more faults than readings, or no phase in which the group sends.
    """
    if not phases:
        return Rhythm([Stretch(math.inf, rate_hz, FaultRates(**(group.faults | faults)))])
    stretches = []
    for phase in phases:
        is_meant = not phase.groups or group.name in phase.groups
        rates = FaultRates(**(group.faults | (phase.faults if is_meant else {}) | faults))
        stretches.append(Stretch(phase.duration_s, rate_hz * (phase.rate if is_meant else 1.0), rates))
    if not any(each.rate_hz for each in stretches):
        raise ValueError(f"group {group.name!r} sends in no phase")
    return Rhythm(stretches)
