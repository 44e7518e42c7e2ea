"""When something is to be done for whom, without looking at all of them each time. Pure."""

from __future__ import annotations

from collections.abc import Hashable
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
SPARE = 1_000  # entries that stand for nothing any more, before they are cleared away


class Agenda(Generic[K]):
    """One moment for each key, in seconds of any monotonic clock."""

    def __init__(self) -> None:
        self._moments: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._count = 0  # of entries ever made: the first of two of one moment comes first

    def plan(self, key: K, moment_s: float | None) -> None:
        """Set the moment of a key; None: it has none."""
        if self._moments.get(key) == moment_s:
            return
        self._moments.pop(key, None)
        if moment_s is None:
            return
        self._moments[key] = moment_s
        self._push(key, moment_s)
        if len(self._heap) > 2 * len(self._moments) + SPARE:
            self._heap = [entry for entry in self._heap if self._holds(entry)]
            heapify(self._heap)

    def first(self) -> tuple[float, K] | None:
        """Give the next moment, and whose it is."""
        while self._heap and not self._holds(self._heap[0]):
            heappop(self._heap)
        return (self._heap[0][0], self._heap[0][2]) if self._heap else None

    def _push(self, key: K, moment_s: float) -> None:
        self._count += 1
        heappush(self._heap, (moment_s, self._count, key))

    def _holds(self, entry: tuple[float, int, K]) -> bool:
        return self._moments.get(entry[2]) == entry[0]
