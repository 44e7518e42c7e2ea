"""One connection of the door: packets in, packets out, all of it bounded. Knows MQTT, and not what is said by it."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from ingest.thingsboard import packets
from ingest.thingsboard.config import DoorLimits
from ingest.thingsboard.metrics import ENDED
from ingest.thingsboard.packets import Packet, PacketReader

CHUNK_BYTES = 64 * 1024
MAX_ID = 65_535


class _Later(NamedTuple):
    """A message that may not be sent yet."""

    topic: str
    payload: bytes
    heard: Callable[[], None]


class Link:
    """A connection; used from the event loop only."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limits: DoorLimits) -> None:
        self.version = packets.V311
        self.remote_ip = _address_of(writer)
        self._reader = reader
        self._writer = writer
        self._limits = limits
        self._packets = PacketReader(limits.greeting_bytes)
        self._at_once = 1  # packets of one read: what follows the first is read when it is known whose it is
        self._unheard: dict[int, Callable[[], None]] = {}  # by packet id: what is to be done when it is acknowledged
        self._later: deque[_Later] = deque()  # messages that wait for an acknowledgement of another
        self._later_bytes = 0
        self._last_id = 0
        _keep_alive(writer)

    @property
    def is_open(self) -> bool:
        """Whether something can still be said."""
        return not self._writer.is_closing()

    def widen(self, max_bytes: int) -> list[Packet]:
        """Take all packets from now on, up to that size; give those that came already.

        Raises:
            PacketError: see PacketReader.feed.
        """
        self._at_once, self._packets.max_bytes = -1, max_bytes
        return self._packets.feed(b"")

    async def read(self, limit_s: float) -> list[Packet]:
        """Give the packets that come next, perhaps none yet.

        Raises:
            TimeoutError: nothing came for so long.
            ConnectionError: it was closed.
            PacketError: what came is not MQTT.
        """
        async with asyncio.timeout(limit_s):
            data = await self._reader.read(CHUNK_BYTES)
        if not data:
            raise ConnectionError("closed")
        return self._packets.feed(data, self._at_once)

    def send(self, data: bytes) -> None:
        """Say something; a client that reads nothing is let go."""
        if not self.is_open:
            return
        self._writer.write(data)
        if self._writer.transport.get_write_buffer_size() > self._limits.unread_bytes:
            self.abort("slow_reader")

    def publish(self, topic: str, payload: bytes, qos: int, heard: Callable[[], None]) -> None:
        """Send a message; `heard` is called when it is acknowledged, at QoS 0 at once."""
        if not qos:
            self.send(packets.publish(self.version, topic, payload))
            heard()
        elif len(self._unheard) < self._limits.unheard:
            self._publish(topic, payload, heard)
        elif self._later_bytes < self._limits.unread_bytes:
            self._later.append(_Later(topic, payload, heard))
            self._later_bytes += len(topic) + len(payload)
        else:
            self.abort("slow_reader")

    def _publish(self, topic: str, payload: bytes, heard: Callable[[], None]) -> None:
        self._last_id = next(each for each in _ids_after(self._last_id) if each not in self._unheard)
        self._unheard[self._last_id] = heard
        self.send(packets.publish(self.version, topic, payload, self._last_id))

    def hear(self, packet_id: int) -> None:
        """Take the client's acknowledgement."""
        heard = self._unheard.pop(packet_id, None)
        if heard is None:
            return
        heard()
        if self._later:
            message = self._later.popleft()
            self._later_bytes -= len(message.topic) + len(message.payload)
            self._publish(*message)

    def abort(self, why: str) -> None:
        """End the connection without a word."""
        if self.is_open:
            ENDED.labels(why).inc()
            self._writer.transport.abort()

    def finish(self) -> None:
        """End the connection when what was said is sent."""
        self._writer.close()

    async def close(self) -> None:
        """Finish, and wait for the end: not for ever, for a client that does not read."""
        self._writer.close()
        try:
            async with asyncio.timeout(self._limits.farewell_s):
                await self._writer.wait_closed()
        except OSError:  # a TimeoutError is one
            self._writer.transport.abort()


def _ids_after(last: int) -> Any:
    while True:
        last = last % MAX_ID + 1
        yield last


def _address_of(writer: asyncio.StreamWriter) -> str:
    peer = writer.get_extra_info("peername")
    return str(peer[0]) if peer else ""


def _keep_alive(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
