"""The conversation with one client that has logged in: subscriptions, acknowledgements, keep-alive.

What its messages mean is the speaker's business.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import orjson

from ingest.thingsboard import packets
from ingest.thingsboard.config import DoorLimits
from ingest.thingsboard.link import Link
from ingest.thingsboard.metrics import SENT
from ingest.thingsboard.packets import Packet, PacketError, Publish
from wire import filters

GRACE = 1.5  # of its keep-alive, in which a client has to say something (3.1.1 s. 3.1.2.10)


class Speaker(Protocol):
    """Whoever talks: takes messages, and notices what it listens to."""

    async def take(self, message: Publish) -> None: ...
    def listen(self) -> None: ...


def nothing() -> None:
    """Do nothing when a message was heard."""


class Session:
    """A client's subscriptions and what it is told; used from the event loop only."""

    def __init__(self, link: Link, keepalive_s: int, limits: DoorLimits) -> None:
        self.link = link
        self._limits = limits
        self._silence_s = keepalive_s * GRACE or limits.idle_s
        self._granted: dict[str, int] = {}  # filter -> QoS

    async def converse(self, waiting: list[Packet], speaker: Speaker) -> None:
        """Take packets, `waiting` ones first, until the client says that it goes, or has to.

        Raises:
            PacketError, TimeoutError, ConnectionError: see Link.read.
        """
        while True:
            for packet in waiting:
                if packet.kind == packets.DISCONNECT or not self.link.is_open:
                    return
                await self._take(packet, speaker)
            waiting = await self.link.read(self._silence_s)

    def acknowledge(self, message: Publish, reason: int = 0) -> None:
        """Tell that a message is done with; at QoS 0 nobody waits for that."""
        if message.packet_id:
            self.link.send(packets.puback(self.link.version, message.packet_id, reason))

    def hears(self, topic: str) -> bool:
        """Whether the client has subscribed to a topic."""
        return self._qos_of(topic) is not None

    def tell(self, kind: str, topic: str, content: Any, heard: Callable[[], None] = nothing) -> bool:
        """Send a message, as JSON; False: the client does not listen to it."""
        qos = self._qos_of(topic)
        if qos is None or not self.link.is_open:
            return False
        SENT.labels(kind).inc()
        self.link.publish(topic, orjson.dumps(content), qos, heard)
        return True

    def _qos_of(self, topic: str) -> int | None:
        return max((qos for text, qos in self._granted.items() if filters.covers(text, topic)), default=None)

    async def _take(self, packet: Packet, speaker: Speaker) -> None:
        link = self.link
        if packet.kind == packets.PUBLISH:
            await speaker.take(packets.read_publish(packet, link.version))
        elif packet.kind == packets.PUBACK:
            link.hear(packets.read_puback(packet))
        elif packet.kind == packets.PINGREQ:
            link.send(packets.PINGRESP_BYTES)
        elif packet.kind in (packets.SUBSCRIBE, packets.UNSUBSCRIBE):
            self._subscribe(packet)
            speaker.listen()
        else:
            raise PacketError(f"a packet of type {packet.kind}, which no client sends here")

    def _subscribe(self, packet: Packet) -> None:
        link = self.link
        asked = packets.read_subscribe(packet, link.version)
        if packet.kind == packets.SUBSCRIBE:
            codes = [self._grant(text, qos) for text, qos in asked.filters]
            link.send(packets.suback(link.version, asked.packet_id, codes))
            return
        for text, _ in asked.filters:
            self._granted.pop(text, None)
        link.send(packets.unsuback(link.version, asked.packet_id, len(asked.filters)))

    def _grant(self, text: str, qos: int) -> int:
        try:
            filters.check(text)
        except ValueError:
            return packets.REFUSED
        if len(self._granted) >= self._limits.filters and text not in self._granted:
            return packets.REFUSED
        self._granted[text] = min(qos, 1)
        return self._granted[text]
