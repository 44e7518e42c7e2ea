"""Waiting for a condition with a deadline: no test sleeps for a fixed time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T], within_s: float = 15.0, what: str = "", *, every_s: float = 0.02) -> T:
    """Call until the result is true and give it; fail at the deadline, naming what was waited for."""
    deadline_s = time.monotonic() + within_s
    while not (result := condition()):
        assert time.monotonic() < deadline_s, f"not within {within_s} s: {what or condition}; last: {result!r}"
        time.sleep(every_s)
    return result
