"""From the lanes' threads to the network thread: what is settled, and a wake-up for its select."""

from __future__ import annotations

import contextlib
import socket
from collections import deque
from collections.abc import Iterator

from ingest.bridge.lane import Settled


class Mailbox:
    """Thread-safe: a deque's append and popleft are atomic. `fileno` makes it usable in select."""

    def __init__(self) -> None:
        self._settled: deque[Settled] = deque()
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def post(self, settled: Settled) -> None:
        """Hand over what a lane is done with."""
        self._settled.append(settled)
        self.wake()

    def wake(self) -> None:
        """End the network thread's sleep."""
        try:
            self._writer.send(b"w")
        except BlockingIOError:
            return  # so many wake-ups are unread that it cannot be asleep

    def take(self) -> Iterator[Settled]:
        """Give all that was handed over, oldest first, and clear the wake-ups before: none is missed."""
        with contextlib.suppress(BlockingIOError):
            self._reader.recv(4096)
        while self._settled:
            yield self._settled.popleft()

    def fileno(self) -> int:
        """Readable when something was handed over."""
        return self._reader.fileno()

    def close(self) -> None:
        """Release the sockets, when no thread uses it any more."""
        self._reader.close()
        self._writer.close()
