"""What devices send on its way to the ingestion service: batches through a lane, bounded, each message with its end.

A message is done with when the service has it on disk, or has refused it: only then is it acknowledged.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from chassis.peers import Peer
from ingest.arrivals import Arrivals
from ingest.bridge.config import Limits
from ingest.bridge.lane import Lane, Settled
from ingest.framing import Delivery, Ending
from ingest.thingsboard.config import DoorLimits
from ingest.thingsboard.metrics import UNACKED
from ingest.thingsboard.packets import Publish

NAME = "_thingsboard"  # of this bridge among those whose batches the service takes
PROTOCOL = "thingsboard"
Done = Callable[[Ending | None], None]


class Window:
    """How many messages and bytes may be on their way; who finds no room waits, and has its turn in order."""

    def __init__(self, messages: int, size_bytes: int) -> None:
        self.messages = 0
        self._bytes = 0
        self._most = messages, size_bytes
        self._queue: deque[tuple[asyncio.Future[None], int]] = deque()  # who waits, and for how many bytes

    async def take(self, size: int) -> None:
        """Take a place, as soon as there is one."""
        if not self._queue and self._fits(size):
            self._occupy(size)
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append((place, size))
        try:
            await place
        except asyncio.CancelledError:
            if place.cancelled():
                self._wake()  # the next ones may be smaller
            else:
                self.give(size)  # it had its turn
            raise

    def give(self, size: int) -> None:
        """Give a place back."""
        self.messages -= 1
        self._bytes -= size
        self._wake()

    def _fits(self, size: int) -> bool:
        return not self.messages or (self.messages < self._most[0] and self._bytes + size <= self._most[1])

    def _occupy(self, size: int) -> None:
        self.messages += 1
        self._bytes += size

    def _wake(self) -> None:
        """Take places for those who wait, as far as there is room: nobody comes between."""
        while self._queue and (self._queue[0][0].done() or self._fits(self._queue[0][1])):
            place, size = self._queue.popleft()
            if not place.done():
                self._occupy(size)
                place.set_result(None)


class Uplink:
    """The lane and what waits for it. `run` is the lane's own thread, all else is for the event loop."""

    def __init__(self, peer: Peer, limits: DoorLimits, loop: asyncio.AbstractEventLoop) -> None:
        self._window = Window(limits.window_messages, limits.window_bytes)
        self._loop = loop
        self._arrivals = Arrivals()
        # Devices over their rate may fill a share of the window, which is this one and not a bridge's.
        window = Limits(window_messages=limits.window_messages, window_bytes=limits.window_bytes)
        self._lane = Lane(peer, NAME, self._post, window)
        self._waiting: dict[tuple[str, int, int], Done] = {}  # by what stays of a delivery: surplus is marked in a copy
        self._gathered: list[Delivery] = []
        self.run = self._lane.run
        self.stop = self._lane.stop

    @property
    def pulse(self) -> int | None:
        """A number that changes while the lane works; None: it rightly waits."""
        return self._lane.batches if self._lane.is_posting else None

    async def put(self, delivery: Delivery, done: Done) -> None:
        """Send a message, when there is room; `done` is told what became of it, with None when all of it was taken."""
        await self._window.take(len(delivery.payload))
        UNACKED.set(self._window.messages)
        self._waiting[_key(delivery)] = done
        if not self._gathered:
            self._loop.call_soon(self._send)  # what came by one read goes together
        self._gathered.append(delivery)

    def make(self, device: str, message: Publish, protocol: str | None = None) -> Delivery:
        """Make the delivery of a message that came just now; with `protocol` "" its topic has to tell what it is."""
        received_ns, protocol = self._arrivals.take(len(message.payload)), PROTOCOL if protocol is None else protocol
        return Delivery(
            device, message.topic, message.payload, received_ns, message.packet_id, message.is_again, protocol=protocol
        )

    def _send(self) -> None:
        gathered, self._gathered = self._gathered, []
        self._lane.put(gathered)

    def _post(self, settled: Settled) -> None:
        self._loop.call_soon_threadsafe(self._settle, settled)

    def _settle(self, settled: Settled) -> None:
        endings = {id(delivery): ending for delivery, ending in settled.endings}
        for delivery in settled.deliveries:
            done = self._waiting.pop(_key(delivery))
            self._window.give(len(delivery.payload))
            done(endings.get(id(delivery)))
        UNACKED.set(self._window.messages)


def _key(delivery: Delivery) -> tuple[str, int, int]:
    return delivery.device, delivery.received_ns, delivery.mid  # no two come at one time: see Arrivals
