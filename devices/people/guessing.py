"""Slowing guesses down: how many passwords are checked at once, and how long wrong ones make wait."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from wire.errors import TooManyRequests

FREE_FAILURES = 5  # wrong passwords of one name from one address before it has to wait
FREE_OF_ADDRESS = 30  # of one address, whatever the names: many share one
MAX_WAIT_S = 300.0
MAX_REMEMBERED = 10_000  # pairs of name and address
CHECKS_AT_ONCE = 4  # passwords: each check costs 32 MB and a tenth of a second, and devices wait for the same threads
CHECKS_OF_ADDRESS = 2  # of these for one address, so that a flood from there does not shut out everybody


class Checks:
    """Bounds how many passwords are checked at one time, in all and for one address. Nobody queues."""

    def __init__(self) -> None:
        self._running: Counter[str] = Counter()  # guarded by _lock
        self._lock = threading.Lock()

    @contextmanager
    def one_of(self, remote_ip: str) -> Iterator[None]:
        """Take a place for the time of a check.

        Raises:
            TooManyRequests: none is free.
        """
        with self._lock:
            if self._running.total() >= CHECKS_AT_ONCE or self._running[remote_ip] >= CHECKS_OF_ADDRESS:
                raise TooManyRequests("too many log-ins at once, wait", retry_after_s=1, code="login_back_off")
            self._running[remote_ip] += 1
        try:
            yield
        finally:
            with self._lock:
                self._running[remote_ip] -= 1
                if not self._running[remote_ip]:
                    del self._running[remote_ip]


class BackOff:
    """Waiting times after wrong passwords: doubling from 1 s after FREE_FAILURES, per name and address.

    Held in memory: a restart forgives, which an attacker cannot cause.
    """

    def __init__(self) -> None:
        self._failures: dict[tuple[str, str], tuple[int, float]] = {}  # guarded by _lock: count, when it may try again
        self._lock = threading.Lock()

    def demand(self, key: tuple[str, str]) -> None:
        """Refuse while waiting.

        Raises:
            TooManyRequests: it has to wait.
        """
        with self._lock:
            _, until_s = self._failures.get(key, (0, 0.0))
        left_s = until_s - time.monotonic()
        if left_s > 0:
            wait_s = int(left_s) + 1
            raise TooManyRequests("too many wrong passwords, wait", retry_after_s=wait_s, code="login_back_off")

    def failed(self, key: tuple[str, str], *, free: int = FREE_FAILURES) -> None:
        """Count a wrong password; the first `free` cost no waiting."""
        with self._lock:
            count = self._failures.pop(key, (0, 0.0))[0] + 1
            wait_s = min(2.0 ** min(count - free, 16), MAX_WAIT_S) if count >= free else 0.0
            if len(self._failures) >= MAX_REMEMBERED:
                self._failures.pop(next(iter(self._failures)))
            self._failures[key] = (count, time.monotonic() + wait_s)

    def succeeded(self, key: tuple[str, str]) -> None:
        """Forget the wrong ones."""
        with self._lock:
            self._failures.pop(key, None)
