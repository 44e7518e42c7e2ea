"""Waiting for news of one device, whichever process made them.

Each change of a twin or command takes the next number of the counter `control`; a watcher in each process follows it
and wakes who waits. A change made in the same process rings at once, those of others are noticed within POLL_S.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from sqlalchemy import select, update

from chassis import parking
from chassis.workers import Workers
from devices.database.engine import Database, Write
from devices.database.tables import COUNTERS
from devices.database.tables_control import COMMANDS, TWINS

POLL_S = 0.2
COUNTER = "control"
ANY = "*"  # stands for each device: no id has this form
_MINE = COUNTERS.c.name == COUNTER

T = TypeVar("T")


class News(Protocol):
    """Tells what changed; see NewsStore."""

    def since(self, revision: int) -> tuple[int, list[str]]: ...


class NewsStore:
    """The counter and the devices behind it; thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def since(self, revision: int) -> tuple[int, list[str]]:
        """Give the newest revision, and the devices whose twin or commands changed after `revision`."""
        with self._database.read() as connection:
            newest = int(connection.execute(select(COUNTERS.c.value).where(_MINE)).scalar_one())
            if newest == revision:
                return newest, []
            found: set[str] = set()
            for table in (TWINS, COMMANDS):
                found.update(connection.execute(select(table.c.device).where(table.c.revision > revision)).scalars())
        return newest, list(found)


def next_revision(transaction: Write) -> int:
    """Take the next number, in a transaction that holds the lock `control`."""
    transaction.execute(update(COUNTERS).where(_MINE).values(value=COUNTERS.c.value + 1))
    return int(transaction.execute(select(COUNTERS.c.value).where(_MINE)).scalar_one())


class Bell:
    """Wakes who waits for news of a device. Thread-safe."""

    def __init__(self, news: News) -> None:
        self._news = news
        self._lock = threading.Lock()  # guards the waiters
        self._waiters: dict[str, set[parking.Waiter]] = {}
        self._rung = threading.Event()
        self._is_closed = False
        self.also: Callable[[], None] = lambda: None  # called at each ring; must not block
        self._revision = -1  # unknown: nobody waited

    def start(self, workers: Workers) -> None:
        """Start the watcher; when the workers stop, all who wait are let go."""
        workers.start("control-news", lambda: self._watch(workers.stopping))

    def ring(self) -> None:
        """Tell that this process changed something."""
        self._rung.set()
        self.also()

    def wait(self, device: str, look: Callable[[], T | None], wait_s: float) -> T | None:
        """Look now and after each news of the device, until there is something or the time is over.

        Args:
            device: its id, or ANY.
            look: asks the database; it runs in a thread when this is on an event loop.
            wait_s: how long, in seconds.
        """
        deadline_s = time.monotonic() + wait_s
        while True:
            with self._listen(device) as waiter:  # before the look: news after it are not missed
                found = parking.aside(look)
                left_s = deadline_s - time.monotonic()
                if found is not None or left_s <= 0 or self._is_closed:
                    return found
                waiter.wait(left_s)

    @contextmanager
    def _listen(self, device: str) -> Iterator[parking.Waiter]:
        waiter = parking.waiter()
        with self._lock:
            self._waiters.setdefault(device, set()).add(waiter)
        self._rung.set()  # the watcher does not follow while nobody waits
        try:
            yield waiter
        finally:
            with self._lock:
                mine = self._waiters[device]
                mine.discard(waiter)
                if not mine:
                    del self._waiters[device]

    def _watch(self, stopping: threading.Event) -> None:
        try:
            while not stopping.is_set():
                self._rung.wait(POLL_S)
                self._rung.clear()
                if self._waiters:
                    self._look()
                else:
                    self._revision = -1
        finally:
            self._is_closed = stopping.is_set()
            self._wake(list(self._waiters))

    def _look(self) -> None:
        if self._revision < 0:  # who came meanwhile looked itself, but perhaps before this number
            self._revision, _ = self._news.since(2**62)
            self._wake(list(self._waiters))
            return
        self._revision, devices = self._news.since(self._revision)
        self._wake(devices)

    def _wake(self, devices: list[str]) -> None:
        with self._lock:
            devices = [*devices, ANY] if devices else devices
            woken = [waiter for device in devices for waiter in self._waiters.get(device, ())]
        for waiter in woken:
            waiter.set()
