"""Read-only connections of the querying half: opened per need, kept for the next query, never one for two threads.

A query finds files that did not exist a moment ago and bears files that vanish: a kept connection is used again only
while its path still leads to the same file.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import apsw

from chassis.sqlite import Database
from series.embedded.days import inode_of
from series.embedded.values import pick_extra
from wire.errors import StoreUnavailable

MAX_IDLE = 8  # connections kept open between queries, each with up to 2 MB of pages


class OpenFile(NamedTuple):
    """A connection and the file it was opened on."""

    database: Database
    inode: int | None


class Files:
    """Lends read-only connections. Thread-safe without a lock: the deque's operations are atomic."""

    def __init__(self) -> None:
        self._idle: deque[OpenFile] = deque()

    @contextmanager
    def lend(self, path: Path) -> Iterator[apsw.Connection | None]:
        """Lend a connection for a block; None when there is no such file.

        Raises:
            StoreUnavailable: the file cannot be opened or read.
        """
        try:
            file = self._take(path)
            if file is None:
                yield None
                return
            try:
                yield file.database.connection
            except BaseException:
                file.database.close()  # it may be in the middle of a statement
                raise
            self._give_back(file)
        except apsw.Error as error:
            raise StoreUnavailable(f"{path.name} cannot be read: {error}") from error

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.popleft().database.close()

    def _take(self, path: Path) -> OpenFile | None:
        inode = inode_of(path)
        if inode is None:
            return None
        for _ in range(len(self._idle)):
            try:
                file = self._idle.popleft()
            except IndexError:  # another thread took it
                break
            if file.database.path == path and file.inode == inode:
                return file
            if file.database.path == path:
                file.database.close()
            else:
                self._idle.append(file)
        return _open(path, inode)

    def _give_back(self, file: OpenFile) -> None:
        self._idle.append(file)
        while len(self._idle) > MAX_IDLE:
            self._idle.popleft().database.close()


def _open(path: Path, inode: int) -> OpenFile | None:
    try:
        database = Database(path, read_only=True)
    except apsw.CantOpenError:
        if inode_of(path) is None:
            return None
        raise
    connection = database.connection
    connection.create_scalar_function("pick_extra", pick_extra, 2, deterministic=True)
    connection.execute("PRAGMA temp_store=MEMORY").fetchall()
    connection.execute("CREATE TEMP TABLE chosen (sid INTEGER PRIMARY KEY, rank INTEGER, part INTEGER)")
    return OpenFile(database, inode)
