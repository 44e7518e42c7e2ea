"""Percentiles of durations in bounded memory."""

from __future__ import annotations

import math

_STEP = math.log(1.02)  # each bucket is 2 % wider than the one before: a percentile is exact to 2 %
_FLOOR_MS = 0.01


class Durations:
    """A histogram with buckets of equal ratio, plus the exact greatest value."""

    def __init__(self) -> None:
        self._buckets: dict[int, int] = {}
        self._max_ms = 0.0
        self.count = 0
        self.total_ms = 0.0

    def add(self, ms: float) -> None:
        """Count one duration."""
        bucket = int(math.log(ms / _FLOOR_MS) / _STEP) if ms > _FLOOR_MS else 0
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1
        self._max_ms = max(self._max_ms, ms)
        self.count += 1
        self.total_ms += ms

    def merge(self, other: Durations) -> None:
        """Count all that another one has counted."""
        for bucket, count in other._buckets.items():
            self._buckets[bucket] = self._buckets.get(bucket, 0) + count
        self._max_ms = max(self._max_ms, other._max_ms)
        self.count += other.count
        self.total_ms += other.total_ms

    def percentile(self, share: float) -> float | None:
        """Give the duration that this share (0 to 1) does not exceed: the upper edge of its bucket."""
        wanted, seen = math.ceil(share * self.count), 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= wanted:
                return round(min(self._max_ms, _FLOOR_MS * math.exp((bucket + 1) * _STEP)), 3)
        return None

    def summary(self) -> dict[str, float | None]:
        """Give p50, p95, p99 and max in ms; None where nothing was counted."""
        return {
            "p50": self.percentile(0.50),
            "p95": self.percentile(0.95),
            "p99": self.percentile(0.99),
            "max": round(self._max_ms, 3) if self.count else None,
        }
