"""What is heard in each protocol, by tenant and minute, and which ingestion services run: for the page of protocols.

One file for all services, an hour of it; the ledger, not this, is what counts, so trouble with the file is logged and
costs figures only. A service shows that it runs by a lock on a file, which the kernel takes from it however it ends.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

from chassis import logs
from chassis.sqlite import DAMAGED, UNUSABLE, Database
from wire import clock
from wire.errors import Unavailable

log = logs.get(__name__)
MINUTE_NS = 60 * clock.NS_PER_S
KEPT_MINUTES = 60
RATE_MINUTES = 5  # that the rate is the mean of
State = Literal["running", "idle", "down"]
Key = tuple[str, str, str]  # tenant, protocol, end
ENDS = ("accepted", "quarantined", "refused")
_SCHEMA = (
    """CREATE TABLE heard (tenant TEXT NOT NULL, protocol TEXT NOT NULL, minute INTEGER NOT NULL,
       accepted INTEGER NOT NULL, quarantined INTEGER NOT NULL, refused INTEGER NOT NULL,
       PRIMARY KEY (tenant, protocol, minute)) WITHOUT ROWID""",
    """CREATE TABLE last (tenant TEXT NOT NULL, protocol TEXT NOT NULL, time_ns INTEGER NOT NULL,
       PRIMARY KEY (tenant, protocol)) WITHOUT ROWID""",
    "CREATE TABLE services (service TEXT PRIMARY KEY, started_ns INTEGER NOT NULL, is_ended INTEGER NOT NULL)",
)
_ADD = (
    "INSERT INTO heard VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET accepted = accepted + excluded.accepted,"
    " quarantined = quarantined + excluded.quarantined, refused = refused + excluded.refused"
)
_READ = (
    "SELECT l.protocol, l.time_ns, total(h.accepted), total(h.quarantined), total(h.refused),"
    " total(iif(h.minute > ?1 - ?2, h.accepted + h.quarantined + h.refused, 0))"
    " FROM last l LEFT JOIN heard h ON h.tenant = l.tenant AND h.protocol = l.protocol AND h.minute > ?1 - ?3"
    " WHERE l.tenant = ?4 GROUP BY l.protocol"
)


class Heard(NamedTuple):
    """What a tenant's devices said in a protocol."""

    last_ns: int
    accepted: int  # readings of the last hour, by their end
    quarantined: int
    refused: int
    rate_s: float  # readings a second, of the last minutes


class Service(NamedTuple):
    """How a service is."""

    state: State  # idle: it starts when its first message comes; down: it ended otherwise than it should
    started_ns: int | None  # the last time that it, or one of its workers, was started


NEVER = Service("idle", None)


class Traffic:
    """The counts of one process, and the file that all share. Thread-safe."""

    def __init__(self, folder: Path | None = None) -> None:
        """Without a folder nothing is kept."""
        self._folder = folder
        self._file = None if folder is None else _open(folder / "traffic.db")
        self._lock = threading.Lock()  # guards _fresh
        self._fresh: Counter[Key] = Counter()
        self._service, self._alive = "", -1

    def note(self, tenant: str, protocol: str, end: str, readings: int) -> None:
        """Count readings; an empty tenant is nobody's."""
        with self._lock:
            self._fresh[tenant, protocol, end] += readings

    def save(self, now_ns: int) -> None:
        """Add what was counted since the last time to the file."""
        with self._lock:
            fresh, self._fresh = self._fresh, Counter()
        if self._file is None or not fresh:
            return
        minute = now_ns // MINUTE_NS
        whose = {(tenant, protocol) for tenant, protocol, _ in fresh}
        with _at_any_cost(), self._file.write() as connection:
            connection.executemany(_ADD, [(*each, minute, *(fresh[(*each, end)] for end in ENDS)) for each in whose])
            connection.executemany("INSERT OR REPLACE INTO last VALUES (?, ?, ?)", [(*each, now_ns) for each in whose])
            connection.execute("DELETE FROM heard WHERE minute <= ?", (minute - KEPT_MINUTES,))

    def heard(self, tenant: str, now_ns: int) -> dict[str, Heard]:
        """Give what a tenant's devices said, by protocol. Raises Unavailable."""
        minute = now_ns // MINUTE_NS
        span_s = (RATE_MINUTES - 1) * 60 + now_ns % MINUTE_NS / clock.NS_PER_S
        rows = self._read(_READ, (minute, RATE_MINUTES, KEPT_MINUTES, tenant))
        return {
            protocol: Heard(last_ns, int(accepted), int(quarantined), int(refused), recent / max(1.0, span_s))
            for protocol, last_ns, accepted, quarantined, refused, recent in rows
        }

    def begin(self, service: str, now_ns: int) -> None:
        """Show from now on that a service runs."""
        assert self._folder is not None
        assert self._file is not None
        self._service = service
        self._alive = os.open(self._path(service), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._alive, fcntl.LOCK_SH)
        with _at_any_cost(), self._file.write() as connection:
            connection.execute("INSERT OR REPLACE INTO services VALUES (?, ?, 0)", (service, now_ns))

    def services(self) -> dict[str, Service]:
        """Give all services that ever ran. Raises Unavailable."""
        rows = self._read("SELECT service, started_ns, is_ended FROM services")
        return {service: self._look(service, started_ns, is_ended) for service, started_ns, is_ended in rows}

    def close(self) -> None:
        """Say that the service ended as it should, and close the file."""
        if self._file is None:
            return
        if self._alive >= 0:
            with _at_any_cost(), self._file.write() as connection:
                connection.execute("UPDATE services SET is_ended = 1 WHERE service = ?", (self._service,))
            os.close(self._alive)
        self._file.close()

    def _read(self, sql: str, bindings: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        try:
            return [] if self._file is None else self._file.read(sql, bindings)
        except UNUSABLE as error:
            raise Unavailable(f"the figures of the protocols cannot be read: {error}") from error

    def _look(self, service: str, started_ns: int, is_ended: int) -> Service:
        if self._is_held(service):
            return Service("running", started_ns)
        return Service("idle" if is_ended else "down", started_ns)

    def _is_held(self, service: str) -> bool:
        with self._path(service).open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False

    def _path(self, service: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{service}.alive"


def _open(path: Path) -> Database:
    try:
        return Database(path, schema=_SCHEMA)
    except DAMAGED:  # an hour of figures is not worth a service
        for suffix in ("", "-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
        return Database(path, schema=_SCHEMA)


@contextmanager
def _at_any_cost() -> Iterator[None]:
    try:
        yield
    except UNUSABLE as error:
        log.warning("traffic_not_saved", error=str(error))
