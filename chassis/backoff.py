"""Pauses between tries of the same thing: growing, capped, and spread so that many do not come back at once."""

from __future__ import annotations

import random


class Backoff:
    """`next_s` before each new try, `reset` when one succeeded. One thread."""

    __slots__ = ("_first_s", "_most_s", "_pause_s")

    def __init__(self, first_s: float, most_s: float) -> None:
        self._first_s, self._most_s = first_s, most_s
        self._pause_s = first_s

    def next_s(self) -> float:
        """Give the next pause: half to all of one that doubles each time."""
        pause_s = self._pause_s
        self._pause_s = min(2 * pause_s, self._most_s)
        return pause_s * random.uniform(0.5, 1.0)  # noqa: S311 - jitter

    def reset(self) -> None:
        """Begin again with the shortest pause."""
        self._pause_s = self._first_s
