"""Large bodies in turn: decoding one takes many times its size in memory, and two at once take twice as long."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from wire.errors import Unavailable

LARGE_BYTES = 256 * 1024  # inflated; a message has at most as many, so only batches are larger
WAITING = 8  # half of a service's threads, so that others are never kept out
RETRY_AFTER_S = 2


class Turns:
    """Gives the turn to one large body at a time. Thread-safe; not for requests on an event loop."""

    def __init__(self, waiting: int = WAITING) -> None:
        self._turn = threading.Lock()
        self._places = threading.BoundedSemaphore(1 + waiting)

    @contextmanager
    def take(self) -> Iterator[None]:
        """Wait for the turn and hold it.

        Raises:
            Unavailable: too many wait already.
        """
        if not self._places.acquire(blocking=False):
            raise Unavailable("too many large bodies at once; nothing was kept", retry_after_s=RETRY_AFTER_S)
        try:
            with self._turn:
                yield
        finally:
            self._places.release()
