"""How long the writer rests between turns: short while little comes, longer the more does. Pure.

A turn pays for its pages and syncs whatever it holds, so large turns are cheap and small ones are soon queryable. The
time from turn to turn grows with the rate: 25 ms at 5,000/s, where delay counts, 100 ms from 20,000/s on, where a
reading then costs half of what it would (bench/stages.py).
"""

from __future__ import annotations

SHORTEST_S = 0.02
LONGEST_S = 0.1
STRETCH_S = 5e-6  # for each reading a second
BACKLOG = 5_000  # readings in one turn that tell of more behind them: no rest
MEMORY_S = 0.25  # over which the rate is averaged: bridges hand over in bursts


class Pace:
    """The rate lately seen, and the rest that follows from it."""

    def __init__(self) -> None:
        self._rate = 0.0
        self._begun_s: float | None = None

    def rest_s(self, count: int, begun_s: float, now_s: float) -> float:
        """Give how long to rest after a turn that began at `begun_s`, ended now and moved `count` readings."""
        if self._begun_s is not None and begun_s > self._begun_s:
            passed_s = begun_s - self._begun_s
            self._rate += (count / passed_s - self._rate) * min(1.0, passed_s / MEMORY_S)
        self._begun_s = begun_s
        if count >= BACKLOG:
            return 0.0
        turn_s = min(LONGEST_S, max(SHORTEST_S, self._rate * STRETCH_S))
        return max(0.0, begun_s + turn_s - now_s)
