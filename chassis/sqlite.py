"""SQLite files on the telemetry path: WAL, `synchronous=FULL`, a file lock round every write.

The lock exists because SQLite's busy handler is unfair between processes (writers waited up to 3.4 s; with flock
31 ms) and because builds before 3.51.3 can corrupt a WAL with several writers; apsw carries a fixed build.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw

from chassis import logs

log = logs.get(__name__)
DAMAGED = (apsw.CorruptError, apsw.NotADBError)
UNUSABLE = (apsw.FullError, apsw.IOError, apsw.BusyError, apsw.ReadOnlyError, *DAMAGED)  # later, or after a person came
BUSY_MS = 5_000  # readers meet a checkpoint or a schema change for a moment
WAL_LIMIT_BYTES = 64 * 1024 * 1024
CACHE_KIB = 8_192


class Database:
    """One connection to one file, for any thread of this process; writes are serial across processes."""

    def __init__(self, path: Path, *, schema: tuple[str, ...] = (), read_only: bool = False) -> None:
        """Open, or create, the file and bring its schema up to date.

        Args:
            path: the file; its folder must exist.
            schema: numbered steps, forward only; `PRAGMA user_version` counts those done.
            read_only: refuse writes; the file must exist.

        Raises:
            apsw.CantOpenError: it cannot be opened.
            apsw.NotADBError, apsw.CorruptError: it is damaged; which one it is stands in the log.
        """
        self.path = path
        # Guards the connection (apsw connections are not to be used by two threads at once).
        self._lock = threading.RLock()
        self._lock_file = -1 if read_only else os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        flags = apsw.SQLITE_OPEN_READONLY if read_only else apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
        self.connection = apsw.Connection(str(path), flags=flags)
        self.connection.set_busy_timeout(BUSY_MS)
        if read_only:
            return
        try:
            with self._naming():
                self._prepare(schema)
        except BaseException:
            self.close()
            raise

    def _prepare(self, schema: tuple[str, ...]) -> None:
        for pragma in ("journal_mode=WAL", "synchronous=FULL", f"cache_size=-{CACHE_KIB}", "temp_store=MEMORY"):
            self.connection.execute(f"PRAGMA {pragma}").fetchall()
        self.connection.execute(f"PRAGMA journal_size_limit={WAL_LIMIT_BYTES}").fetchall()
        if schema:
            self._migrate(schema)

    @contextmanager
    def write(self) -> Iterator[apsw.Connection]:
        """One write transaction: alone among threads and processes, committed durably, rolled back on any error."""
        with self._lock, self._naming():
            fcntl.flock(self._lock_file, fcntl.LOCK_EX)
            try:
                self.connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self.connection
                except BaseException:
                    self._roll_back()
                    raise
                self._commit()
            finally:
                fcntl.flock(self._lock_file, fcntl.LOCK_UN)

    def read(self, sql: str, bindings: Any = ()) -> list[tuple[Any, ...]]:
        """Run one query and fetch all of it."""
        with self._lock, self._naming():
            return list(self.connection.execute(sql, bindings))

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """Say in the log which file is damaged: SQLite's own words do not."""
        try:
            yield
        except DAMAGED as error:
            log.error("database_damaged", path=str(self.path), error=str(error))  # noqa: TRY400 - the caller answers
            raise

    def close(self) -> None:
        """Close the connection and the lock file."""
        with self._lock:
            self.connection.close()
            if self._lock_file >= 0:
                os.close(self._lock_file)
                self._lock_file = -1

    def _commit(self) -> None:
        try:
            self.connection.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        if self.connection.in_transaction:  # SQLite itself rolls back on some errors, a full disk among them
            self.connection.execute("ROLLBACK")

    def _migrate(self, schema: tuple[str, ...]) -> None:
        with self.write() as connection:
            done = int(next(iter(connection.execute("PRAGMA user_version")))[0])
            for step in schema[done:]:
                connection.execute(step)
            connection.execute(f"PRAGMA user_version={max(done, len(schema))}")
