"""One TCP connection of an MQTT device: cuts what comes into packets, pings, tells its client what happened.

Thousands are open at once and most of what comes is PUBACKs, so these have a way of their own.
"""

from __future__ import annotations

import asyncio
import struct
import time
from typing import Protocol, cast

from simulators import packets

_PUBACKS = struct.Struct(">HH")  # type and length, packet id
_PUBACK_HEAD = packets.PUBACK << 12 | 2  # as 3.1.1 always writes it, and 5.0 on success
_PUBACK_BYTES = 4
_BEAT_S = 0.25


class ConnectRefused(ConnectionError):  # noqa: N818 - as HTTP and MQTT name it
    """The broker answered CONNECT with a code other than 0."""

    def __init__(self, code: int) -> None:
        super().__init__(f"CONNACK {code}")
        self.code = code


class LinkClient(Protocol):
    """Whose connection it is."""

    def on_puback(self, packet_id: int, reason: int) -> None: ...
    def on_packet(self, packet: packets.Packet) -> None: ...
    def pump(self) -> None: ...
    def on_lost(self) -> None: ...


class Pulse:
    """Has all connections of an event loop ping: one timer, for one each takes 650 bytes."""

    def __init__(self) -> None:
        self._links: set[Link] = set()
        self._timer: asyncio.TimerHandle | None = None

    def join(self, link: Link) -> None:
        """Have it ping until it leaves."""
        self._links.add(link)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_BEAT_S, self._beat)

    def leave(self, link: Link) -> None:
        """Forget it, if it was known."""
        self._links.discard(link)

    def _beat(self) -> None:
        now = time.monotonic()
        for link in list(self._links):
            link.beat(now)
        self._timer = asyncio.get_running_loop().call_later(_BEAT_S, self._beat) if self._links else None


class Link(asyncio.Protocol):
    """From connecting to the end of the connection, of which its client is told once the broker has accepted it."""

    __slots__ = (
        "_client",
        "_connack",
        "_heard_at",
        "_keepalive_s",
        "_ping_at",
        "_pulse",
        "_reader",
        "_transport",
        "_version",
        "is_writable",
    )

    def __init__(self, client: LinkClient, version: int, pulse: Pulse) -> None:
        self._client, self._version, self._pulse = client, version, pulse
        self._reader: packets.PacketReader | None = None  # holds a packet that has not come whole
        self._transport: asyncio.Transport | None = None
        self._heard_at = self._ping_at = 0.0
        self._keepalive_s = 0.0
        # None from the time that the broker has accepted, and its client knows.
        self._connack: asyncio.Future[packets.Connack] | None = asyncio.get_running_loop().create_future()
        self.is_writable = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transports are no subclass of it

    def data_received(self, data: bytes) -> None:
        self._heard_at = time.monotonic()
        try:
            if self._reader is None and self._connack is None and not len(data) % _PUBACK_BYTES:
                data = self._take_pubacks(data)
            if data:
                self._take_packets(data)
        except packets.PacketError:
            self.abort()
        else:
            self._client.pump()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio.Protocol
        self._pulse.leave(self)
        self._transport, self.is_writable = None, False
        if self._connack is None:
            self._client.on_lost()
        elif not self._connack.done():
            self._connack.set_exception(ConnectionError("closed before CONNACK"))
            self._connack.exception()  # retrieved: the waiter may have given up already

    def pause_writing(self) -> None:
        self.is_writable = False

    def resume_writing(self) -> None:
        self.is_writable = True
        self._client.pump()

    async def accepted(self) -> packets.Connack:
        """Wait for the broker's answer.

        Raises:
            ConnectRefused: it is not 0.
            ConnectionError: the connection ended before it, or in the same turn.
        """
        assert self._connack is not None
        connack = await self._connack
        if connack.code:
            raise ConnectRefused(connack.code)
        if self._transport is None:
            raise ConnectionError("closed after CONNACK")
        self._connack = None
        return connack

    def write(self, data: bytes) -> None:
        """Send at once."""
        if self._transport is not None and data:
            self._transport.write(data)

    def keep_alive(self, keepalive_s: float) -> None:
        """Ping twice per keep-alive time; silence of one and a half of it ends the connection (3.1.1 s. 3.1.2.10)."""
        if keepalive_s:
            self._keepalive_s = keepalive_s
            self._pulse.join(self)

    def beat(self, now_s: float) -> None:
        """Ping if it is time."""
        if now_s < self._ping_at:
            return
        if now_s - self._heard_at > 1.5 * self._keepalive_s:
            self.abort()
            return
        self.write(packets.PINGREQ_BYTES)
        self._ping_at = now_s + self._keepalive_s / 2

    def close(self) -> None:
        """Close after all that was written has gone out."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Drop the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def _take_pubacks(self, data: bytes) -> bytes:
        """Take PUBACKs as long as there is nothing else; gives the rest."""
        on_puback, offset = self._client.on_puback, 0
        for head, packet_id in _PUBACKS.iter_unpack(data):
            if head != _PUBACK_HEAD:
                return data[offset:]
            on_puback(packet_id, 0)
            offset += _PUBACK_BYTES
        return b""

    def _take_packets(self, data: bytes) -> None:
        reader = self._reader = self._reader or packets.PacketReader()
        for packet in reader.feed(data):
            if self._connack is not None and not self._connack.done():
                self._take_connack(packet)
            elif packet.kind == packets.PUBACK:
                self._client.on_puback(*packets.read_puback(packet.body))
            else:
                self._client.on_packet(packet)
        if reader.is_empty:
            self._reader = None

    def _take_connack(self, packet: packets.Packet) -> None:
        if packet.kind != packets.CONNACK:
            raise packets.PacketError("first packet is not CONNACK")
        assert self._connack is not None
        self._connack.set_result(packets.read_connack(packet.body, self._version))
