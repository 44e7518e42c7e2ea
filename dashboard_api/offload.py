"""Where blocking work runs: store queries must not hold the loop on which all websockets live."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Protocol, TypeVar

T = TypeVar("T")
THREADS = 4  # SQLite's reads release the interpreter; more threads than cores only wait for each other


class Offload(Protocol):
    """Runs blocking work and waits for its result without stopping others."""

    def run(self, work: Callable[[], T]) -> T:
        """Give what `work` gives; what it raises is raised here."""
        ...


class Inline:
    """Runs work where it is asked for: right wherever each request has a real thread."""

    def run(self, work: Callable[[], T]) -> T:
        """See Offload."""
        return work()


class GeventThreads:
    """Runs work in a few real threads while the calling greenlet sleeps."""

    def __init__(self, threads: int = THREADS) -> None:
        from gevent.threadpool import ThreadPool

        self._pool = ThreadPool(threads)

    def run(self, work: Callable[[], T]) -> T:
        """See Offload."""
        caught: list[Exception] = []
        results: list[T] = []

        def work_quietly() -> None:
            try:
                results.append(work())
            except Exception as error:  # the pool would print what its caller may well answer, a bad cursor say
                caught.append(error)

        self._pool.apply(work_quietly)
        if caught:
            raise caught[0]
        return results[0]


def choose() -> Offload:
    """Give the offload that fits the process: gevent's threads where gevent has patched sockets."""
    monkey = sys.modules.get("gevent.monkey")
    return GeventThreads() if monkey and monkey.is_module_patched("socket") else Inline()
