"""Delays by class of message: a Prometheus histogram that takes whole batches, and recent percentiles."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import NamedTuple

from chassis.metrics import Histogram

NS_PER_S = 1_000_000_000
# 1 ms to 100 s, ten steps a decade: a percentile is at most a quarter too large.
EDGES_S = tuple(round(10 ** (step / 10 - 3), 6) for step in range(51))
GENERATION_S = 30.0  # percentiles are of the last one to two of these


class Recent(NamedTuple):
    """Percentiles of a class; seconds, the upper edge of their step."""

    readings: int
    p50: float
    p95: float
    p99: float


class DelayHistogram:
    """Delays from a moment that is given in ns since the epoch. Thread-safe."""

    def __init__(self, name: str, text: str) -> None:
        self._histogram = Histogram(name, text, ["protocol", "transport"], buckets=EDGES_S)
        self._lock = threading.Lock()  # guards everything below
        self._young: dict[str, list[int]] = {}
        self._old: dict[str, list[int]] = {}
        self._born_s = 0.0

    def add(self, kind: str, begun_ns: Iterable[int], now_ns: int) -> None:
        """Count delays from each of the moments until now.

        Args:
            kind: class of the messages, `protocol/transport`.
            begun_ns: when each began; a moment in the future counts as no delay.
            now_ns: when they ended.
        """
        moments = sorted(begun_ns)
        counts = _count(moments, now_ns)
        protocol, _, transport = kind.partition("/")
        child = self._histogram.labels(protocol, transport)
        # Not observe(), which would cost 3 us a message: the library has no way to add a count.
        for bucket, count in zip(child._buckets, counts, strict=True):  # noqa: SLF001
            if count:
                bucket.inc(count)
        child._sum.inc(max(0, len(moments) * now_ns - sum(moments)) / NS_PER_S)  # noqa: SLF001
        self._remember(kind, counts, time.monotonic())

    def recent(self) -> dict[str, Recent]:
        """Give the percentiles of the classes that had any message lately."""
        with self._lock:
            self._grow_older(time.monotonic())
            kinds = sorted(self._young.keys() | self._old.keys())
            nothing = [0] * (len(EDGES_S) + 1)
            found = {kind: [a + b for a, b in zip(self._young.get(kind, nothing), self._old.get(kind, nothing),
                                                  strict=True)] for kind in kinds}  # fmt: skip
        return {kind: _percentiles(counts) for kind, counts in found.items()}

    def _remember(self, kind: str, counts: Sequence[int], now_s: float) -> None:
        with self._lock:
            self._grow_older(now_s)
            known = self._young.get(kind)
            self._young[kind] = list(counts) if known is None else [a + b for a, b in zip(known, counts, strict=True)]

    def _grow_older(self, now_s: float) -> None:
        if now_s - self._born_s >= GENERATION_S:
            self._old = self._young if now_s - self._born_s < 2 * GENERATION_S else {}
            self._young, self._born_s = {}, now_s


def _count(moments: Sequence[int], now_ns: int) -> list[int]:
    """Count the delays of each step, the last one without an end; `moments` are sorted."""
    reach = [len(moments) - bisect_left(moments, now_ns - int(edge_s * NS_PER_S)) for edge_s in EDGES_S]
    reach.append(len(moments))
    return [here - before for before, here in zip([0, *reach], reach, strict=False)]


def _percentiles(counts: Sequence[int]) -> Recent:
    sums = list(accumulate(counts))
    p50, p95, p99 = (EDGES_S[min(bisect_left(sums, share * sums[-1]), len(EDGES_S) - 1)] for share in (0.5, 0.95, 0.99))
    return Recent(sums[-1], p50, p95, p99)
