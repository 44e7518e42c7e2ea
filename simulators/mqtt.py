"""A device's MQTT connection: publishes within a window, keeps what is not acknowledged and sends it again.

One instance per device on one event loop; not thread-safe. Knows nothing of what a message says.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from dataclasses import dataclass
from typing import cast

from simulators import packets
from simulators.dice import Dice
from simulators.outbox import AUTH_GRACE_S, AUTH_RETRY_S, Login, Outgoing, Renew, Sink, backoff_s
from simulators.resend import HOLD_S, Unsettled
from wire import topics

CONNECT_TIMEOUT_S = 10.0
ONLINE, OFFLINE = b"online", b"offline"
_ID_LIMIT = 65_535


@dataclass(frozen=True, slots=True)
class MqttSettings:
    """What all devices of a run share."""

    host: str
    port: int
    version: int = packets.V311
    qos: int = 1
    window: int = 100  # unacknowledged messages on the wire; the broker's Receive Maximum can lower it
    keepalive_s: int = 30
    tls: ssl.SSLContext | None = None
    topic: str = "devices/%i/telemetry"  # %i is the device id, as in emqtt-bench
    outbox: int = 0  # acknowledged readings kept until the `acks` topic covers them; 0 = none, and no subscription


class ConnectRefused(ConnectionError):  # noqa: N818 - as HTTP and MQTT name it
    """The broker answered CONNECT with a code other than 0."""

    def __init__(self, code: int) -> None:
        super().__init__(f"CONNACK {code}")
        self.code = code


class MqttClient:
    """The connection of one device, over all its reconnects."""

    def __init__(
        self,
        settings: MqttSettings,
        login: Login,
        sink: Sink,
        rng: Dice,
        renew: Renew | None = None,
    ) -> None:
        self._settings, self._login, self._sink, self._rng, self._renew = settings, login, sink, rng, renew
        self._publisher = packets.Publisher(settings.topic.replace("%i", login.device_id), settings.version)
        self._status = packets.Publisher(topics.status(login.device_id), settings.version)
        self._waiting: deque[Outgoing] = deque()
        self._inflight: dict[int, Outgoing] = {}  # packet id -> message, oldest first
        self._resend: deque[int] = deque()  # ids to deliver again on this connection
        self._flying = 0  # delivered on this connection, not acknowledged
        self._window = settings.window
        self._packet_id = 0
        self._link: _Link | None = None
        self._ready = asyncio.Event()
        self._unsettled = Unsettled(settings.outbox if settings.qos else 0)
        self.refusals = 0  # CONNACKs that were not 0
        self._is_closing = False

    @property
    def backlog(self) -> int:
        """Messages neither acknowledged nor (QoS 0) written."""
        return len(self._waiting) + len(self._inflight)

    @property
    def doubtful(self) -> int:
        """Messages that were acknowledged over a connection that is gone, and are not known to have arrived."""
        return self._unsettled.doubtful

    @property
    def is_connected(self) -> bool:
        """Tell whether the broker has accepted the present connection."""
        return self._link is not None

    async def ready(self) -> None:
        """Wait until the broker has accepted the device for the first time."""
        await self._ready.wait()

    def offer(self, outgoing: Outgoing) -> None:
        """Take a message to publish; it goes out now or when the window opens."""
        self._waiting.append(outgoing)
        self.pump()

    def flush(self) -> None:
        """Nothing to do: MQTT messages are never held back."""

    def break_connection(self) -> None:
        """Cut the connection as a lost radio link would: no DISCONNECT, so the last will speaks."""
        if self._link is not None:
            self._link.abort()

    def lose_power(self) -> None:
        """Forget the connection and its packet ids; what is unacknowledged goes out again as if for the first time."""
        self.break_connection()
        self._waiting.extendleft(reversed(self._inflight.values()))
        self._inflight.clear()
        self._resend.clear()
        self._flying = 0
        self._link = None

    def close(self) -> None:
        """Leave in good order: say offline, disconnect. What is unacknowledged stays so."""
        self._is_closing = True
        if self._link is not None:
            self._link.write(self._status.qos0(OFFLINE, retain=True) + packets.DISCONNECT_BYTES)
            self._link.close()

    async def run(self) -> None:
        """Keep the device connected until it is closed."""
        failures, refused_since = 0, 0.0
        while not self._is_closing:
            try:
                link = await self._connect()
            except ConnectRefused as refusal:
                refused_since = refused_since or time.monotonic()
                failures += 1
                await self._after_refusal(refusal, refused_since, failures)
            except (OSError, packets.PacketError):
                self._sink.error("connect")
                failures += 1
                await asyncio.sleep(backoff_s(failures, self._rng.random()))
            else:
                failures, refused_since = 0, 0.0
                await self._stay(link)

    def pump(self) -> None:
        """Put on the wire what the window lets out."""
        link = self._link
        if link is None:
            return
        if self._settings.qos == 0:
            self._pump_unacknowledged(link)
            return
        while self._flying < self._window and link.is_writable:
            if self._resend:
                packet_id = self._resend.popleft()
                outgoing, is_dup = self._inflight[packet_id], True
                self._sink.error("resent")
            elif self._waiting:
                outgoing, is_dup = self._waiting.popleft(), False
                packet_id = self._next_id()
                self._inflight[packet_id] = outgoing
            else:
                return
            self._flying += 1
            self._mark_sent(outgoing)
            link.write(self._publisher.qos1(outgoing.payload, packet_id, dup=is_dup))

    def on_packet(self, packet: packets.Packet) -> None:
        """Act on what the broker sent after its CONNACK."""
        if packet.kind == packets.PUBACK:
            packet_id, reason = packets.read_puback(packet.body)
            self._on_puback(packet_id, reason)
        elif packet.kind == packets.PUBLISH:
            self._send_again(
                self._unsettled.hear(packets.read_publish(packet, self._settings.version)[1], time.monotonic())
            )
        elif packet.kind == packets.DISCONNECT:
            self._sink.error(f"disconnect_{packet.body[0] if packet.body else 0}")

    async def _connect(self) -> _Link:
        settings, loop = self._settings, asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            _, link = await loop.create_connection(
                lambda: _Link(self, settings.version),
                settings.host,
                settings.port,
                ssl=settings.tls,
            )
            try:
                link.write(self._connect_packet())
                connack = await link.accepted()
            except BaseException:
                link.abort()
                raise
        self._begin(link, connack)
        return link

    def _connect_packet(self) -> bytes:
        login = self._login
        return packets.Connect(
            login.device_id,
            self._settings.version,
            self._settings.keepalive_s,
            username=login.device_id if login.secret else "",
            password=login.secret,
            will=packets.Will(topics.status(login.device_id), OFFLINE),
        ).encode()

    def _begin(self, link: _Link, connack: packets.Connack) -> None:
        self._link = link
        self._window = max(1, min(self._settings.window, connack.receive_maximum))
        self._resend = deque(self._inflight)
        self._flying = 0
        link.keep_alive(connack.keepalive_s or self._settings.keepalive_s)
        link.write(self._status.qos0(ONLINE, retain=True))
        if self._settings.outbox and self._settings.qos:
            self._follow_acks(link)
        self._ready.set()
        self.pump()

    def _follow_acks(self, link: _Link) -> None:
        topic = topics.acks(self._login.device_id)
        link.write(packets.subscribe(topic, self._next_id(), self._settings.version))
        if self._unsettled.doubtful:
            asyncio.get_running_loop().call_later(HOLD_S, self._end_hold, link)

    def _end_hold(self, link: _Link) -> None:
        if link is self._link:  # else the next connection has its own
            self._send_again(self._unsettled.overdue())

    def _send_again(self, readings: list[Outgoing]) -> None:
        """Publish readings once more, as new messages: their numbers tell that they are copies."""
        for outgoing in readings:
            self._sink.error("resent_missing")
            self._waiting.append(outgoing)
        if readings:
            self.pump()

    async def _stay(self, link: _Link) -> None:
        try:
            await link.closed.wait()
        finally:
            self._link = None
            link.abort()
            self._unsettled.doubt()
        if not self._is_closing:
            self._sink.error("reconnects")
            await asyncio.sleep(backoff_s(0, self._rng.random()))

    async def _after_refusal(self, refusal: ConnectRefused, since: float, failures: int) -> None:
        self.refusals += 1
        is_login = refusal.code in packets.REFUSED_LOGIN
        if is_login and time.monotonic() - since < AUTH_GRACE_S:
            await asyncio.sleep(AUTH_RETRY_S * (0.75 + 0.5 * self._rng.random()))
            return
        self._sink.error(f"connack_{refusal.code}")
        if is_login and self._renew is not None:
            self._login = await self._renew(self._login.device_id) or self._login
        await asyncio.sleep(backoff_s(failures, self._rng.random()))

    def _on_puback(self, packet_id: int, reason: int) -> None:
        outgoing = self._inflight.pop(packet_id, None)
        if outgoing is None:
            self._sink.error("puback_unknown")
            return
        self._flying -= 1
        if reason >= 0x80:  # noqa: PLR2004 - from here on reasons are refusals, 5.0 s. 3.4.2.1
            self._sink.error(f"puback_{reason}")
            self._sink.refused(outgoing)
        else:
            self._sink.acked(outgoing)
            self._unsettled.keep(outgoing)
        self.pump()

    def _pump_unacknowledged(self, link: _Link) -> None:
        while self._waiting and link.is_writable:
            outgoing = self._waiting.popleft()
            self._mark_sent(outgoing)
            link.write(self._publisher.qos0(outgoing.payload))

    def _mark_sent(self, outgoing: Outgoing) -> None:
        if not outgoing.sent_at:
            outgoing.sent_at = time.monotonic()
            self._sink.sent(outgoing)

    def _next_id(self) -> int:
        while True:
            self._packet_id = self._packet_id % _ID_LIMIT + 1
            if self._packet_id not in self._inflight:
                return self._packet_id


class _Link(asyncio.Protocol):
    """One TCP connection: collects writes of a loop turn into one, reads packets, pings."""

    def __init__(self, client: MqttClient, version: int) -> None:
        self._client, self._version = client, version
        self._loop = asyncio.get_running_loop()
        self._reader = packets.PacketReader()
        self._transport: asyncio.Transport | None = None
        self._pieces: list[bytes] = []
        self._heard_at = time.monotonic()
        self._timer: asyncio.TimerHandle | None = None
        self._is_awaiting_connack = True
        self.connack: asyncio.Future[packets.Connack] = self._loop.create_future()
        self.closed = asyncio.Event()
        self.is_writable = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transports are no subclass of it

    def data_received(self, data: bytes) -> None:
        self._heard_at = time.monotonic()
        try:
            for packet in self._reader.feed(data):
                if self._is_awaiting_connack:
                    self._on_connack(packet)
                else:
                    self._client.on_packet(packet)
        except packets.PacketError:
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio.Protocol
        if self._timer is not None:
            self._timer.cancel()
        if not self.connack.done():
            self.connack.set_exception(ConnectionError("closed before CONNACK"))
            self.connack.exception()  # retrieved: the waiter may have given up already
        self.is_writable = False
        self.closed.set()

    def pause_writing(self) -> None:
        self.is_writable = False

    def resume_writing(self) -> None:
        self.is_writable = True
        self._client.pump()

    async def accepted(self) -> packets.Connack:
        """Wait for the broker's answer.

        Raises:
            ConnectRefused: it is not 0.
        """
        connack = await self.connack
        if connack.code:
            raise ConnectRefused(connack.code)
        return connack

    def write(self, data: bytes) -> None:
        """Send with the other writes of this turn of the loop: one system call for many small packets."""
        if not self._pieces:
            self._loop.call_soon(self._flush)
        self._pieces.append(data)

    def keep_alive(self, keepalive_s: int) -> None:
        """Ping twice per keep-alive time; silence of one and a half of it ends the connection (3.1.1 s. 3.1.2.10)."""
        if not keepalive_s:
            return
        silence_s = time.monotonic() - self._heard_at
        if silence_s > 1.5 * keepalive_s:
            self.abort()
            return
        self.write(packets.PINGREQ_BYTES)
        self._timer = self._loop.call_later(keepalive_s / 2, self.keep_alive, keepalive_s)

    def close(self) -> None:
        """Close after all that was written has gone out."""
        self._flush()
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Drop the connection at once."""
        self._pieces.clear()
        if self._transport is not None:
            self._transport.abort()

    def _flush(self) -> None:
        if self._pieces and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(self._pieces))
        self._pieces.clear()

    def _on_connack(self, packet: packets.Packet) -> None:
        if packet.kind != packets.CONNACK:
            raise packets.PacketError("first packet is not CONNACK")
        self._is_awaiting_connack = False
        if not self.connack.done():
            self.connack.set_result(packets.read_connack(packet.body, self._version))
