"""Counts what the gateway on this machine refused because too many requests waited: a line each in a file."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from chassis.metrics import Counter

LINE_BYTES = 2
TRIM_BYTES = 16 * 1024 * 1024  # the file is emptied then: an overloaded hour would fill the disk
SHED = Counter("headwater_gateway_shed", "Telemetry requests that the gateway refused: too many waited")


class ShedCount:
    """Follows the file. Used by one thread; of several processes only the one that holds the file counts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = -1
        self._inode = self._seen_bytes = 0

    def read(self) -> None:
        """Count the lines that are new. A file that is not there, or another process' business, is no fault."""
        try:
            if self._file < 0 or self._path.stat().st_ino != self._inode:
                self._open()
            size_bytes = os.fstat(self._file).st_size
        except OSError:
            self.close()
            return
        if size_bytes > self._seen_bytes:
            SHED.inc((size_bytes - self._seen_bytes) // LINE_BYTES)
            self._seen_bytes = size_bytes
        if size_bytes > TRIM_BYTES:
            os.ftruncate(self._file, 0)
            self._seen_bytes = 0

    def close(self) -> None:
        """Let another process count."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def _open(self) -> None:
        self.close()
        self._file = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._inode, self._seen_bytes = os.fstat(self._file).st_ino, 0
