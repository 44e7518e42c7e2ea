"""The paho client of the bridge, with two ways of reading. Knows nothing of batches or services.

`BatchClient` reads whole buffers and acknowledges in bulk: stock paho spends 20 us on a message (a select, four recv
calls, locks, a callback), parsing a receive buffer at once costs about 1 us (bench/bridge.py). Everything but PUBLISH
and PUBACK is still paho's: connecting, CONNACK, subscribing, publishing, TLS. Four private names of paho are used,
`_sock_recv`, `_sock_send`, `_sock_close` and `_packet_queue`; tests/ingest/bridge/test_client.py fails when a new paho
no longer has them. `StockClient` reads as paho does, one packet after the other, and is there to fall back to.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from ingest.bridge.arrivals import DUP, RETAIN, Arrivals
from ingest.bridge.claims import Claims
from ingest.bridge.frames import Frames
from ingest.framing import Delivery

READ_BYTES = 65_536
STOCK_PACKETS = 300  # read in one turn by paho itself; about as many as a buffer holds
PUBACK = b"\x40\x02"
PINGREQ = b"\xc0\x00"
CONNECT_TIMEOUT_S = 2.0
SESSION_S = 7 * 24 * 3600  # as the broker's persistent_client_expiration, which bounds a session of MQTT 3.1.1
ONCE = 1  # retain handling: send retained messages when the subscription is a new one
NO_OLD_ONES = 2  # retain handling: send no retained messages at subscribing (MQTT 5.0 s. 3.8.3.1)
Sink = Callable[[list[Delivery]], None]


class Client(paho.Client):
    """A durable session under a fixed client id; used by one thread only, which calls loop_read and loop_write.

    Received messages are given to `sink` in lists. Nothing is acknowledged by itself. After `loop_read` the lists
    `oversized` (messages without their payload) and those of `arrivals` may hold something.
    """

    def __init__(self, client_id: str, sink: Sink, *, version: int = 5) -> None:
        """`version` is that of MQTT: 5, or 4 for 3.1.1."""
        self.version = MQTTProtocolVersion(version)
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=None if self.is_5 else False,
            protocol=self.version,
            reconnect_on_failure=False,  # reconnecting is the session's business, with its own back-off
            manual_ack=True,
        )
        self.connect_timeout = CONNECT_TIMEOUT_S
        self.oversized: list[Delivery] = []
        self.read_full = False  # whether the last read filled the buffer: more is waiting then
        self.place = (1, 1)  # number of this bridge, and how many there are
        self.claims = Claims()
        self.arrivals = Arrivals()
        self._sink = sink

    @property
    def is_5(self) -> bool:
        """Whether MQTT 5 is spoken."""
        return self.version is MQTTProtocolVersion.MQTTv5

    def aim(self, host: str, port: int, keepalive_s: int, at_once: int = 0) -> None:
        """Say where `renew` connects to; `at_once`: un-acked messages that the broker may send, 0: as many as it does.

        mosquitto holds each that it has sent twice in its memory.
        """
        if not self.is_5:
            self.connect_async(host, port, keepalive_s)
            return
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = SESSION_S
        if at_once:
            properties.ReceiveMaximum = at_once
        self.connect_async(host, port, keepalive_s, clean_start=False, properties=properties)

    def bequeath(self, topic: str, payload: bytes | None) -> None:
        """Say what the broker is to publish, retained, when the next connection breaks; None: nothing."""
        if payload is None:
            self.will_clear()
        else:
            self.will_set(topic, payload, 1, retain=True)

    def renew(self, held: dict[int, Delivery]) -> None:
        """Connect anew with an empty stream (`held`: see Arrivals); raises OSError when the broker is not there."""
        number, bridges = self.place
        self.arrivals = Arrivals(held, shows_retained=self.is_5, number=number, bridges=bridges)
        self.arrivals.learn(self.claims)
        self.oversized = []
        self.reconnect()

    def take_in(self, filters: list[tuple[str, int]], *, claimed: bool = False) -> int:
        """Subscribe; give the message id. Of `claimed` topics the retained states come too, marked as such."""
        if not self.is_5:
            return self.subscribe(filters)[1] or 0
        handling = ONCE if claimed else NO_OLD_ONES
        options = [
            (name, SubscribeOptions(qos, retainAsPublished=not claimed, retainHandling=handling))
            for name, qos in filters
        ]
        return self.subscribe(options)[1] or 0

    def abandon(self) -> None:
        """Close the connection from this side without a word: the broker keeps what was not acknowledged."""
        self._sock_close()

    def has_buffered(self) -> bool:
        """Tell whether a TLS layer holds bytes that select cannot see."""
        pending = getattr(self.socket(), "pending", None)
        return bool(pending and pending())

    def acknowledge(self, mids: list[int]) -> None:
        """Send PUBACKs in one write. That they arrive is never assumed: a lost one means a redelivery, no more."""
        self._packet_queue(PUBACK[0], b"".join([PUBACK + mid.to_bytes(2, "big") for mid in mids]), 0, 1)

    def ping(self) -> None:
        """Tell the broker that we live."""
        self._packet_queue(PINGREQ[0], PINGREQ, 0, 0)

    def _sock_send(self, buf: bytes | bytearray) -> int:
        # A broker that was killed may leave us messages in the socket. So a write that fails does not end the
        # connection: reading does, after the last of them.
        try:
            return super()._sock_send(buf)
        except BlockingIOError:
            raise
        except OSError:
            return len(buf)


class BatchClient(Client):
    """Cuts whole receive buffers itself and leaves to paho what is no PUBLISH."""

    def __init__(self, client_id: str, sink: Sink, *, version: int = 5) -> None:
        super().__init__(client_id, sink, version=version)
        self._frames = Frames(self.arrivals)
        self._unread = b""  # bytes of packets that paho is to read next

    def renew(self, held: dict[int, Delivery]) -> None:
        """See Client."""
        self._unread = b""
        super().renew(held)
        self._frames = Frames(self.arrivals, has_properties=self.is_5)

    def loop_read(self, max_packets: int = 1) -> MQTTErrorCode:
        """Read one buffer: control packets go to paho first (CONNACK comes before all messages), then the messages."""
        chunk = self._receive()
        if chunk is None:
            return MQTTErrorCode.MQTT_ERR_SUCCESS
        if not chunk:
            self.abandon()
            return MQTTErrorCode.MQTT_ERR_CONN_LOST
        self.read_full = len(chunk) == READ_BYTES
        deliveries = self._frames.feed(chunk)
        self.oversized += self._frames.oversized
        self._frames.oversized.clear()
        while self._frames.others:
            self._unread = self._frames.others.pop(0)
            code = super().loop_read(max_packets)
            if code or self.socket() is None:
                return code
        if deliveries:
            self._sink(deliveries)
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _receive(self) -> bytes | None:
        try:
            chunk = super()._sock_recv(READ_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            return b""
        return self._with_more_records(chunk) if isinstance(self.socket(), ssl.SSLSocket) else chunk

    def _with_more_records(self, chunk: bytes) -> bytes:
        # TLS gives one record at a time, and mosquitto makes one of each message. The end of the stream, or what broke
        # it, shows again at the next read.
        chunks, room = [chunk], READ_BYTES - len(chunk)
        while chunk and room:
            try:
                chunk = super()._sock_recv(room)
            except OSError:  # BlockingIOError: that was all
                break
            chunks.append(chunk)
            room -= len(chunk)
        return b"".join(chunks)

    def _sock_recv(self, bufsize: int) -> bytes:
        if self._unread:
            taken, self._unread = self._unread[:bufsize], self._unread[bufsize:]
            return taken
        raise BlockingIOError


class StockClient(Client):
    """Lets paho read and call back for each message. A message of any size is held whole: the broker bounds it."""

    def __init__(self, client_id: str, sink: Sink, *, version: int = 5) -> None:
        super().__init__(client_id, sink, version=version)
        self._taken: list[Delivery] = []
        self._taken_bytes = 0  # of payloads
        self._has_more = False
        self.on_message = self._take

    def loop_read(self, max_packets: int = 1) -> MQTTErrorCode:
        """Read what is there, up to STOCK_PACKETS or READ_BYTES; a packet that is not whole yet stays with paho."""
        self.arrivals.begin()
        code, packets = MQTTErrorCode.MQTT_ERR_SUCCESS, 0
        self._has_more, self.read_full = True, False
        while self._has_more and not code and self.socket() is not None and not self.read_full:
            code = super().loop_read(max_packets)
            packets += 1
            self.read_full = packets == STOCK_PACKETS or self._taken_bytes >= READ_BYTES
        if self._taken:
            taken, self._taken, self._taken_bytes = self._taken, [], 0
            self._sink(taken)
        return code

    def _take(self, _client: Any, _userdata: Any, message: paho.MQTTMessage) -> None:
        try:
            name = message.topic.encode()
        except UnicodeDecodeError:  # the broker should have refused it; the service quarantines what has no topic
            name = b""
        first = (DUP if message.dup else 0) | (RETAIN if message.retain else 0)
        delivery = self.arrivals.take(name, bytes(message.payload), message.mid, first)
        if delivery is not None:
            self._taken.append(delivery)
            self._taken_bytes += len(delivery.payload)

    def _sock_recv(self, bufsize: int) -> bytes:
        try:
            return super()._sock_recv(bufsize)
        except BlockingIOError:
            self._has_more = False
            raise


READERS: dict[str, type[Client]] = {"batch": BatchClient, "paho": StockClient}
