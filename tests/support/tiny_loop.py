"""The least an event loop may be, for what parks requests."""

from __future__ import annotations

import select
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import Queue

from chassis import parking


class TinyLoop:
    """Begins requests, and resumes one a turn."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(2, "tiny")
        self.woken: Queue[Callable[[], None]] = Queue()
        self.parked: list[float | None] = []

    def park(self, waiter: parking.LoopWaiter, timeout_s: float | None) -> None:
        self.parked.append(timeout_s)

    def wake(self, waiter: parking.LoopWaiter) -> None:
        self.woken.put(waiter.resume)

    def watch(self, descriptor: int, events: int, waiter: parking.LoopWaiter) -> None:
        def see() -> None:
            select.select(*[[descriptor] if events & each else [] for each in (1, 2, 0)], 10)
            waiter.set()

        threading.Thread(target=see, daemon=True).start()

    def start(self, work: Callable[[], None]) -> None:
        self.pool.submit(work)

    def soon(self, work: Callable[[], None]) -> None:
        self.woken.put(work)

    def begin(self, run: Callable[[], None]) -> None:
        parking.Request(run, self).switch()

    def turn(self) -> None:
        self.woken.get(timeout=10)()

    def run_until(self, is_done: Callable[[], bool]) -> None:
        while not is_done():
            self.turn()
