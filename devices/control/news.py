"""Waiting for news of one device, whichever process made them.

Each change of a twin or command takes the next number of the counter `control`, each change of who is who (a device
disabled, a credential revoked) one of `revision`. A watcher in each process follows both and wakes who waits. What
rings in the same process is noticed at once, everything else within POLL_S.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol, TypeVar

from sqlalchemy import and_, select, update

from chassis import parking
from chassis.workers import Workers
from devices.database.engine import Database, Write
from devices.database.tables import CHANGES, COUNTERS
from devices.database.tables_control import COMMANDS, TWINS

POLL_S = 0.2
COUNTER, REGISTRY = "control", "revision"
ANY = "*"  # stands for each device: no id has this form
_MINE = COUNTERS.c.name == COUNTER
_ALL = select(COUNTERS.c.name, COUNTERS.c.value).where(COUNTERS.c.name.in_((COUNTER, REGISTRY)))

T = TypeVar("T")


class Mark(NamedTuple):
    """How far somebody has followed: numbers of the two counters."""

    control: int
    registry: int


UNKNOWN = Mark(2**62, 2**62)  # beyond what can come


class News(Protocol):
    """Tells what changed; see NewsStore."""

    def since(self, mark: Mark) -> tuple[Mark, list[str]]: ...


class Waiting(Protocol):
    """Waits for news; see Bell."""

    def wait(self, device: str, look: Callable[[], T | None], wait_s: float) -> T | None: ...


class NewsStore:
    """The counters and the devices behind them; thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def since(self, mark: Mark) -> tuple[Mark, list[str]]:
        """Give where the counters are, and the devices that changed after `mark`, ANY among them when anything did."""
        queries = [select(table.c.device).where(table.c.revision > mark.control) for table in (TWINS, COMMANDS)]
        of_devices = and_(CHANGES.c.kind == "device", CHANGES.c.revision > mark.registry)
        with self._database.read() as connection:
            values = {name: int(value) for name, value in connection.execute(_ALL)}
            newest = Mark(values[COUNTER], values[REGISTRY])
            if newest == mark:
                return newest, []
            found = {ANY}
            for query in queries if newest.control != mark.control else ():
                found.update(connection.execute(query).scalars())
            if newest.registry != mark.registry:
                found.update(connection.execute(select(CHANGES.c.key).where(of_devices)).scalars())
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
        self._mark: Mark | None = None  # unknown: nobody waited

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
                    self._mark = None
        finally:
            self._is_closed = stopping.is_set()
            self._wake(list(self._waiters))

    def _look(self) -> None:
        if self._mark is None:  # who came meanwhile looked itself, but perhaps before this number
            self._mark, _ = self._news.since(UNKNOWN)
            self._wake(list(self._waiters))
            return
        self._mark, devices = self._news.since(self._mark)
        self._wake(devices)

    def _wake(self, devices: list[str]) -> None:
        with self._lock:
            woken = [waiter for device in devices for waiter in self._waiters.get(device, ())]
        for waiter in woken:
            waiter.set()
