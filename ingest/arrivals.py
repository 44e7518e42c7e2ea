"""Times of arrival of messages that carry none: no two readings of one service share one. Thread-safe."""

from __future__ import annotations

import threading

from wire import clock

CLOCK_STEP_NS = clock.NS_PER_S  # a clock that was set back further than this is followed


class Arrivals:
    """Gives each message a stretch of time of its own, one ns a byte: it cannot hold more records than that."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _next_ns
        self._next_ns = 0

    def take(self, size: int) -> int:
        """Give the time of a message of `size` bytes; its records may count up from there."""
        now = clock.now_ns()
        with self._lock:
            is_behind = now < self._next_ns <= now + CLOCK_STEP_NS
            received_ns = self._next_ns if is_behind else now
            self._next_ns = received_ns + max(1, size)
        return received_ns
