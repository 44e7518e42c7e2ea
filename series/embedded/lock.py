"""The lock round everything a writer does, between threads and between processes, with a deadline."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wire.errors import StoreUnavailable

RETRY_S = 0.002  # flock has no deadline of its own; one process writes at a time, so waiting is rare


class WriterLock:
    """An flock'ed file, freed by the kernel when its process dies. For any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread_lock = threading.Lock()  # one flock belongs to all threads of a process
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    @contextmanager
    def held(self, timeout_s: float) -> Iterator[None]:
        """Hold the lock for a block.

        Raises:
            StoreUnavailable: another thread or process kept it for `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        if not self._thread_lock.acquire(timeout=timeout_s):
            raise StoreUnavailable(f"another thread has been writing for {timeout_s} s")
        try:
            self._flock(deadline, timeout_s)
            try:
                yield
            finally:
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        finally:
            self._thread_lock.release()

    def close(self) -> None:
        """Close the file; the lock cannot be held again."""
        with self._thread_lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1

    def _flock(self, deadline: float, timeout_s: float) -> None:
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise StoreUnavailable(f"another process has been writing for {timeout_s} s") from None
                time.sleep(RETRY_S)
            else:
                return
