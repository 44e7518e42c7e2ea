"""Slowing guesses of passwords down: how many are checked at once. How long wrong ones wait: `chassis.guessing`."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from chassis.guessing import origin_of
from wire.errors import TooManyRequests

FREE_OF_ADDRESS = 30  # wrong passwords of one address before it has to wait, whatever the names: many share one
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
        remote_ip = origin_of(remote_ip)
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
