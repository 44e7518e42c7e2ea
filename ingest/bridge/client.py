"""A paho client that reads whole buffers and acknowledges in bulk. Knows nothing of batches or services.

Stock paho spends 20 us on a message (a select, four recv calls, locks, a callback); parsing a receive buffer at once
costs about 1 us (bench/bridge.py). Everything but PUBLISH and PUBACK is still paho's: connecting, CONNACK, subscribing,
publishing, TLS. Four private names of paho are used, `_sock_recv`, `_sock_send`,
`_sock_close` and `_packet_queue`; tests/ingest/bridge/test_client.py fails when a new paho no longer has them.
"""

from __future__ import annotations

from collections.abc import Callable

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion

from ingest.bridge.frames import Frames
from ingest.framing import Delivery

READ_BYTES = 65_536
PUBACK = b"\x40\x02"
PINGREQ = b"\xc0\x00"
CONNECT_TIMEOUT_S = 2.0
Sink = Callable[[list[Delivery]], None]


class BulkClient(paho.Client):
    """Gives received messages to `sink` in lists; used by one thread only, which calls loop_read and loop_write.

    Durable session: MQTT 3.1.1 with `clean_session=False` and a fixed client id. Nothing is acknowledged by itself.
    """

    def __init__(self, client_id: str, sink: Sink) -> None:
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=False,
            protocol=MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,  # reconnecting is the session's business, with its own back-off
            manual_ack=True,
        )
        self.connect_timeout = CONNECT_TIMEOUT_S
        self.frames = Frames()
        self.read_full = False  # whether the last read filled the buffer: more is waiting then
        self._sink = sink
        self._unread = b""  # bytes of packets that paho is to read next

    def renew(self, held: dict[int, Delivery]) -> None:
        """Connect anew with an empty stream (`held`: see Frames); raises OSError when the broker is not there."""
        self.frames, self._unread = Frames(held), b""
        self.reconnect()

    def loop_read(self, max_packets: int = 1) -> MQTTErrorCode:
        """Read one buffer: control packets go to paho first (CONNACK comes before all messages), then the messages."""
        chunk = self._receive()
        if chunk is None:
            return MQTTErrorCode.MQTT_ERR_SUCCESS
        if not chunk:
            self.abandon()
            return MQTTErrorCode.MQTT_ERR_CONN_LOST
        self.read_full = len(chunk) == READ_BYTES
        deliveries = self.frames.feed(chunk)
        while self.frames.others:
            self._unread = self.frames.others.pop(0)
            code = super().loop_read(max_packets)
            if code or self.socket() is None:
                return code
        if deliveries:
            self._sink(deliveries)
        return MQTTErrorCode.MQTT_ERR_SUCCESS

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

    def _receive(self) -> bytes | None:
        try:
            return super()._sock_recv(READ_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def _sock_send(self, buf: bytes | bytearray) -> int:
        # A broker that was killed may leave us messages in the socket. So a write that fails does not end the
        # connection: reading does, after the last of them.
        try:
            return super()._sock_send(buf)
        except BlockingIOError:
            raise
        except OSError:
            return len(buf)

    def _sock_recv(self, bufsize: int) -> bytes:
        if self._unread:
            taken, self._unread = self._unread[:bufsize], self._unread[bufsize:]
            return taken
        raise BlockingIOError
