"""The quarantine's SQLite file: its schema, and what happens when it is damaged. Knows no entry.

A damaged file must not stop ingestion: it is set aside under a name of its own, loudly, and a new one is begun. Several
processes use the file, so who comes second finds another file under the name and opens that.
"""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import apsw

from chassis import logs
from chassis.metrics import Gauge
from chassis.sqlite import DAMAGED, UNUSABLE, Database
from wire import clock
from wire.errors import Unavailable

log = logs.get(__name__)
SET_ASIDE = Gauge("headwater_quarantine_set_aside", "Damaged quarantine files that were set aside and still lie there")

_SCHEMA = (
    (
        "CREATE TABLE messages (id INTEGER PRIMARY KEY, tenant TEXT NOT NULL, device TEXT NOT NULL,"
        " protocol TEXT NOT NULL, transport TEXT NOT NULL, source TEXT NOT NULL, type TEXT, type_version INTEGER, "
        " received_ns INTEGER NOT NULL, raw BLOB, raw_bytes INTEGER NOT NULL, is_packed INTEGER NOT NULL, "
        " cost INTEGER NOT NULL, waiting INTEGER NOT NULL, key TEXT UNIQUE)"
    ),
    (
        "CREATE TABLE entries (id INTEGER PRIMARY KEY AUTOINCREMENT, message INTEGER NOT NULL REFERENCES messages,"
        " tenant TEXT NOT NULL, device TEXT NOT NULL, code TEXT NOT NULL, detail TEXT NOT NULL, record INTEGER,"
        " field TEXT, is_whole INTEGER NOT NULL, replayed_ns INTEGER)"
    ),
    "CREATE INDEX entries_by_device ON entries (device, id)",
    "CREATE INDEX entries_by_code ON entries (code, id)",
    "CREATE INDEX entries_by_message ON entries (message)",
    "CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
    (
        "CREATE TABLE devices (tenant TEXT NOT NULL, device TEXT NOT NULL, waiting INTEGER NOT NULL,"
        " cost INTEGER NOT NULL, PRIMARY KEY (tenant, device)) WITHOUT ROWID"
    ),
    ("CREATE TABLE tenants (tenant TEXT PRIMARY KEY, waiting INTEGER NOT NULL, cost INTEGER NOT NULL) WITHOUT ROWID"),
    "INSERT INTO tenants SELECT tenant, sum(waiting), sum(cost) FROM devices GROUP BY tenant",
    "CREATE INDEX entries_by_replay ON entries (replayed_ns) WHERE replayed_ns IS NOT NULL",
    "CREATE INDEX messages_by_time ON messages (received_ns)",
    "ALTER TABLE tenants ADD COLUMN refused INTEGER NOT NULL DEFAULT 0",
)


class QuarantineFile:
    """The file, open. Safe for threads and processes. All methods raise Unavailable when the disk refuses."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()  # guards _database and _inode; its users are serial anyway
        with answering():
            self._database = self._open()
        SET_ASIDE.set(len(set_aside(path)))

    @contextmanager
    def write(self) -> Iterator[apsw.Connection]:
        """One durable transaction, rolled back on any error. A file found damaged is set aside."""
        with self._lock, answering(), self._replacing():
            self._follow()
            with self._database.write() as connection:
                if self._is_replaced():  # just now, by another process
                    raise Unavailable("the quarantine's file was replaced; send it again")
                yield connection

    def read(self, sql: str, bindings: Any = ()) -> list[tuple[Any, ...]]:
        """Run one query and fetch all of it."""
        with self._lock, answering():
            self._follow()
            return self._database.read(sql, bindings)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    @contextmanager
    def _replacing(self) -> Iterator[None]:
        try:
            yield
        except DAMAGED:
            self._database.close()
            self._set_aside(self._inode)
            self._database = self._open()
            raise

    def _open(self) -> Database:
        inode = _inode(self._path)
        try:
            database = Database(self._path, schema=_SCHEMA)
        except DAMAGED:
            self._set_aside(inode)
            database = Database(self._path, schema=_SCHEMA)
        self._inode = _inode(self._path)
        return database

    def _is_replaced(self) -> bool:
        return _inode(self._path) != self._inode

    def _follow(self) -> None:
        """Open the file that has the name now.

        The old one, closed, leaves the new one's WAL alone: SQLite looks whether its file was moved.
        """
        if not self._is_replaced():
            return
        self._database.close()
        self._database = self._open()

    def _set_aside(self, inode: int) -> None:
        """Rename the file with its WAL, unless another process did it before. Nobody may have it open here."""
        with Path(f"{self._path}.lock").open("ab") as lock_file:
            fcntl.flock(lock_file, fcntl.LOCK_EX)  # as every write transaction does
            if _inode(self._path) != inode:
                return
            name = f"{self._path}.damaged-{clock.now_ns()}"
            for suffix in ("-wal", "-shm", ""):
                with suppress(FileNotFoundError):
                    Path(f"{self._path}{suffix}").rename(f"{name}{suffix}")
        SET_ASIDE.set(len(set_aside(self._path)))
        log.error("quarantine_set_aside", path=str(self._path), to=name)


def set_aside(path: Path) -> list[str]:
    """Give the names of the damaged files that lie beside the quarantine at `path`."""
    found = path.parent.glob(f"{path.name}.damaged-*")
    return sorted(each.name for each in found if not each.name.endswith(("-wal", "-shm")))


@contextmanager
def answering() -> Iterator[None]:
    """Turn what the disk says into what the sender is told."""
    try:
        yield
    except UNUSABLE as error:
        raise Unavailable(f"the quarantine cannot be used: {error}") from error


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0
