"""A fleet in several processes: each is given its devices, says twice a second how far it is, and can be told to stop.

It says at once, too, what new credential it got. A message between them is four bytes of length and a pickle; both ends
are this program. A worker whose commands end (its parent is gone) stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import sys
from collections.abc import Sequence
from typing import Any

from simulators.outbox import Keep, Login
from simulators.squad import Order
from simulators.tally import Tally, add_up

LENGTH_BYTES = 4


class WorkerError(RuntimeError):
    """A process of the crew ended before its work was done."""


def pack(message: object) -> bytes:
    """Make bytes of a message."""
    body = pickle.dumps(message)
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


async def unpack(reader: asyncio.StreamReader) -> Any:
    """Read one message.

    Raises:
        IncompleteReadError: there is none any more.
    """
    length = int.from_bytes(await reader.readexactly(LENGTH_BYTES), "big")
    return pickle.loads(await reader.readexactly(length))  # noqa: S301 - from a process that we started


class Crew:
    """Runs a squad in each of several processes; used once, inside an event loop."""

    def __init__(self, orders: Sequence[Order], keep: Keep | None = None) -> None:
        """`keep` is told the credentials that the processes got in the place of refused ones."""
        self._orders, self._keep = orders, keep
        self._tallies = [Tally() for _ in orders]
        self._workers: list[asyncio.subprocess.Process] = []
        self._is_stopping = False

    def stop(self) -> None:
        """End the taking of readings; what was taken is still delivered."""
        self._is_stopping = True
        for worker in self._workers:
            self._tell_to_stop(worker)

    def tally(self) -> Tally:
        """Give the counts of all, half a second old at most."""
        return add_up(self._tallies)

    async def run(self) -> Tally:
        """Give the sum when all are done.

        Raises:
            WorkerError: one of them failed.
            OSError: one could not be started.
        """
        try:
            for order in self._orders:
                await self._start(pack(order))
            if self._is_stopping:
                self.stop()
            await asyncio.gather(*(self._listen(number) for number in range(len(self._workers))))
        except BaseException:
            for worker in self._workers:
                with contextlib.suppress(ProcessLookupError):
                    worker.kill()
            raise
        finally:
            await self._end()
        return self.tally()

    async def _start(self, order: bytes) -> None:
        isolated = ["-P"] if sys.flags.safe_path else []
        pipe = asyncio.subprocess.PIPE
        command = (sys.executable, *isolated, "-m", "simulators.worker")
        worker = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
        self._workers.append(worker)
        assert worker.stdin is not None
        with contextlib.suppress(OSError, RuntimeError):  # it is dead already: listening to it will tell
            worker.stdin.write(order)
            await worker.stdin.drain()

    async def _listen(self, number: int) -> None:
        worker = self._workers[number]
        assert worker.stdout is not None
        while True:
            try:
                is_done, message = await unpack(worker.stdout)
            except asyncio.IncompleteReadError as error:
                raise WorkerError(f"process {number + 1} ended with {await worker.wait()}") from error
            if isinstance(message, str):
                raise WorkerError(message)
            if isinstance(message, Login):
                if self._keep is not None:
                    self._keep(message)
                continue
            self._tallies[number] = message
            if is_done:
                return

    @staticmethod
    def _tell_to_stop(worker: asyncio.subprocess.Process) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            assert worker.stdin is not None
            worker.stdin.write(b"s")

    async def _end(self) -> None:
        for worker in self._workers:
            with contextlib.suppress(OSError, RuntimeError):
                assert worker.stdin is not None
                worker.stdin.close()
        for worker in self._workers:
            await worker.wait()
