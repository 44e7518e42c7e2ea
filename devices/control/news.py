"""Waiting for news of one device, whichever process made them.

Each change of a twin or command takes the next number of the counter `control`, each change of who is who (a device
disabled, a credential revoked) one of `revision`. A watcher in each process follows both and wakes who waits. What
rings in the same process is noticed at once, everything else within POLL_S.
"""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

from sqlalchemy import and_, select, update

from chassis import parking
from chassis.workers import Workers
from devices.database.engine import Database, Write
from devices.database.tables import CHANGES, COUNTERS
from devices.database.tables_control import COMMANDS, TWINS
from wire.errors import Unavailable

POLL_S = 0.2
# Who waits holds a connection here and two at the gateway, of 12,000 each: the rest is for all other requests.
MOST_WAIT = 5_000
OF_ONE_DEVICE = 4  # twin and commands, and the same once more by a connection that the device has given up
COME_AGAIN_S = 10
COUNTER, REGISTRY = "control", "revision"
ANY = "*"  # stands for each device: no id has this form
_MINE = COUNTERS.c.name == COUNTER
COUNTED = select(COUNTERS.c.value).where(_MINE)  # how many numbers were taken
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
    return int(transaction.execute(COUNTED).scalar_one())


@dataclass(slots=True, eq=False)
class _Seat:
    """Somebody's place among those who wait for one device."""

    waiter: parking.Waiter
    is_own: bool  # the device's
    is_beyond: bool  # more devices wait than may
    is_given_up: bool = False  # a newer one of the same device has taken it


class Bell:
    """Wakes who waits for news of a device. Thread-safe."""

    def __init__(self, news: News, most: int = MOST_WAIT) -> None:
        """`most` devices may wait at once, or fewer: as many as leave connections for others."""
        self._news = news
        self._most = min(most, _most_waiting())
        self._lock = threading.Lock()  # guards the two below
        self._seats: dict[str, list[_Seat]] = {}  # of a device, oldest first
        self._taken = 0
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

    def wait(self, device: str, look: Callable[[], T | None], wait_s: float, *, is_own: bool = False) -> T | None:
        """Look now and after each news of the device, until there is something or the time is over.

        Args:
            device: its id, or ANY.
            look: asks the database. On an event loop it must not block: it asks in a thread, or a `Gathering`.
            wait_s: how long, in seconds.
            is_own: the device itself waits. Of one device OF_ONE_DEVICE do: the oldest goes when one more comes.

        Raises:
            Unavailable: there is nothing yet, and more wait than may (`too_many_waiting`).
        """
        deadline_s = time.monotonic() + wait_s
        with self._seat(device, is_own=is_own) as seat:
            while True:
                seat.waiter = parking.waiter()  # before the look: news after it are not missed
                found = look()
                left_s = deadline_s - time.monotonic()
                if found is not None or left_s <= 0 or self._is_closed or seat.is_given_up:
                    return found
                if seat.is_beyond:
                    text = f"{self._most} devices wait already: ask again later, or without `wait`"
                    raise Unavailable(text, code="too_many_waiting", retry_after_s=COME_AGAIN_S)
                seat.waiter.wait(left_s)
                if seat.is_given_up:
                    return None

    @contextmanager
    def _seat(self, device: str, *, is_own: bool) -> Iterator[_Seat]:
        with self._lock:
            seat = _Seat(parking.waiter(), is_own, is_beyond=is_own and self._taken >= self._most)
            seats = self._seats.setdefault(device, [])
            own = [each for each in seats if each.is_own]
            if is_own and len(own) >= OF_ONE_DEVICE:
                seats.remove(own[0])
                own[0].is_given_up = True
                own[0].waiter.set()
            seats.append(seat)
            self._taken += is_own
        self._rung.set()  # the watcher does not follow while nobody waits
        try:
            yield seat
        finally:
            with self._lock:
                self._taken -= is_own
                if not seat.is_given_up:
                    seats.remove(seat)
                if not seats and self._seats.get(device) is seats:
                    del self._seats[device]

    def _watch(self, stopping: threading.Event) -> None:
        try:
            while not stopping.is_set():
                self._rung.wait(POLL_S)
                self._rung.clear()
                if self._seats:
                    self._look()
                else:
                    self._mark = None
        finally:
            self._is_closed = stopping.is_set()
            self._wake(list(self._seats))

    def _look(self) -> None:
        if self._mark is None:  # who came meanwhile looked itself, but perhaps before this number
            self._mark, _ = self._news.since(UNKNOWN)
            self._wake(list(self._seats))
            return
        self._mark, devices = self._news.since(self._mark)
        self._wake(devices)

    def _wake(self, devices: list[str]) -> None:
        with self._lock:
            woken = [seat.waiter for device in devices for seat in self._seats.get(device, ())]
        for waiter in woken:
            waiter.set()


def _most_waiting() -> int:
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, min(MOST_WAIT, files // 2))
