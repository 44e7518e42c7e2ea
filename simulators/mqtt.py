"""A device's MQTT connection: publishes within a window, keeps what is not acknowledged and sends it again.

One instance per device on one event loop; not thread-safe. Knows nothing of what a message says. Thousands of them are
connected at once, so one that is has no task, no timer and no empty queue of its own.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from simulators import packets
from simulators.control import DeviceControl, Said
from simulators.dice import Dice
from simulators.link import ConnectRefused, Link, Pulse
from simulators.outbox import AUTH_GRACE_S, AUTH_RETRY_S, Login, Outgoing, Renew, Sink, Spawn, backoff_s
from simulators.resend import HOLD_S, Unsettled
from simulators.sparkplug import EdgeNode
from wire import clock, topics

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
    pulse: Pulse = field(default_factory=Pulse)  # that has them ping


class MqttClient:
    """The connection of one device, over all its reconnects."""

    __slots__ = (
        "_flying",
        "_inflight",
        "_is_closing",
        "_link",
        "_login",
        "_packet_id",
        "_publisher",
        "_ready",
        "_renew",
        "_resend",
        "_rng",
        "_settings",
        "_sink",
        "_spawn",
        "_unsettled",
        "_waiting",
        "_window",
        "control",
        "edge",
        "refusals",
    )

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
        self._waiting: list[Outgoing] = []  # a few, mostly: an empty deque alone takes 760 bytes
        self._inflight: dict[int, Outgoing] = {}  # packet id -> message, oldest first
        self._resend: list[int] = []  # ids to deliver again on this connection, the next one last
        self._flying = 0  # delivered on this connection, not acknowledged
        self._window = settings.window
        self._packet_id = 0
        self._link: Link | None = None
        self._spawn: Spawn | None = None
        self._ready: Callable[[], None] | None = None  # to call when it is accepted for the first time
        self._unsettled = Unsettled(settings.outbox) if settings.outbox and settings.qos else None
        self.control: DeviceControl | None = None  # what it does when it is told something
        self.edge: EdgeNode | None = None  # what it says of itself, where it speaks Sparkplug
        self.refusals = 0  # CONNACKs that were not 0
        self._is_closing = False

    @property
    def backlog(self) -> int:
        """Messages neither acknowledged nor (QoS 0) written."""
        return len(self._waiting) + len(self._inflight)

    @property
    def doubtful(self) -> int:
        """Messages that were acknowledged by a broker that vanished before, and are not known to have arrived."""
        return self._unsettled.doubtful(time.monotonic()) if self._unsettled is not None else 0

    @property
    def is_connected(self) -> bool:
        """Tell whether the broker has accepted the present connection."""
        return self._link is not None

    @property
    def is_done(self) -> bool:
        """Tell whether it was closed and the connection is gone."""
        return self._is_closing and self._link is None

    def start(self, spawn: Spawn, ready: Callable[[], None]) -> None:
        """Connect, and again after each loss, until closed."""
        self._spawn, self._ready = spawn, ready
        spawn(self._arrive())

    def offer(self, outgoing: Outgoing) -> None:
        """Take a message to publish; it goes out with what else is taken in this turn, or when the window opens."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self.pump)
        self._waiting.append(outgoing)

    def flush(self) -> None:
        """Nothing to do: MQTT messages are never held back."""

    def break_connection(self) -> None:
        """Cut the connection as a lost radio link would: no DISCONNECT, so the last will speaks."""
        if self._link is not None:
            self._link.abort()

    def lose_power(self) -> None:
        """Forget the connection and its packet ids; what is unacknowledged goes out again as if for the first time."""
        self.break_connection()
        for _ in self._inflight:
            self._sink.error("resent")
        self._waiting[:0] = self._inflight.values()
        self._inflight.clear()
        self._resend.clear()
        self._flying = 0
        self._link = None
        if self.control is not None:
            self.control.lose_power()

    def close(self) -> None:
        """Leave in good order: say offline, disconnect. What is unacknowledged stays so."""
        self._is_closing = True
        if self._link is not None:
            farewell = self._say(*self.edge.death()) if self.edge is not None else b""
            self._link.write(farewell + self._status(OFFLINE) + packets.DISCONNECT_BYTES)
            self._link.close()

    def on_lost(self) -> None:
        """Come back. What was acknowledged over this connection is in doubt."""
        self._link = None
        if self._unsettled is not None:
            self._unsettled.doubt()
        if not self._is_closing and self._spawn is not None:
            self._sink.error("reconnects")
            self._spawn(self._arrive(backoff_s(0, self._rng.random())))

    async def _arrive(self, pause_s: float = 0.0) -> None:
        failures, refused_since = 0, 0.0
        await asyncio.sleep(pause_s)
        while not self._is_closing:
            try:
                await self._connect()
            except ConnectRefused as refusal:
                refused_since = refused_since or time.monotonic()
                failures += 1
                await self._after_refusal(refusal, refused_since, failures)
            except (OSError, packets.PacketError):
                self._sink.error("connect")
                failures += 1
                await asyncio.sleep(backoff_s(failures, self._rng.random()))
            else:
                return

    def pump(self) -> None:
        """Put on the wire what the window lets out."""
        link = self._link
        if link is None or not (self._waiting or self._resend):
            return
        pieces: list[bytes] = []  # one system call of all of them
        if self._settings.qos == 0:
            while self._waiting and link.is_writable:
                outgoing = self._waiting.pop(0)
                self._mark_sent(outgoing)
                pieces.append(self._publisher.qos0(self._numbered(outgoing)))
        else:
            self._fill_window(link, pieces)
        link.write(pieces[0] if len(pieces) == 1 else b"".join(pieces))

    def _fill_window(self, link: Link, pieces: list[bytes]) -> None:
        room = self._window - self._flying if link.is_writable else 0
        while room > 0 and (self._resend or self._waiting):
            if self._resend:
                packet_id = self._resend.pop()
                outgoing, is_dup = self._inflight[packet_id], True
                self._sink.error("resent")
            else:
                outgoing, is_dup = self._waiting.pop(0), False
                packet_id = self._next_id()
                self._inflight[packet_id] = outgoing
            room -= 1
            self._flying += 1
            self._mark_sent(outgoing)
            publisher = self._publisher_of(outgoing.said.topic) if outgoing.said else self._publisher
            pieces.append(publisher.qos1(self._numbered(outgoing), packet_id, dup=is_dup))

    def _numbered(self, outgoing: Outgoing) -> bytes:
        is_reading = self.edge is not None and outgoing.said is None
        return self.edge.number(outgoing.payload) if is_reading and self.edge is not None else outgoing.payload

    def _say(self, topic: str, payload: bytes) -> bytes:
        return self._publisher_of(topic).qos0(payload)

    def _mark_sent(self, outgoing: Outgoing) -> None:
        if not outgoing.sent_at:
            outgoing.sent_at = time.monotonic()
            if outgoing.said is None:
                self._sink.sent(outgoing)

    def _publisher_of(self, topic: str) -> packets.Publisher:
        return packets.Publisher(topic, self._settings.version)

    def on_packet(self, packet: packets.Packet) -> None:
        """Act on what the broker sent after its CONNACK and is no PUBACK."""
        if packet.kind == packets.PUBLISH:
            self._hear(*packets.read_publish(packet, self._settings.version))
        elif packet.kind == packets.DISCONNECT:
            self._sink.error(f"disconnect_{packet.body[0] if packet.body else 0}")

    def on_puback(self, packet_id: int, reason: int) -> None:
        """Settle a message; whoever calls lets the next ones out."""
        outgoing = self._inflight.pop(packet_id, None)
        if outgoing is None:
            self._sink.error("puback_unknown")
            return
        self._flying -= 1
        if reason >= 0x80:  # noqa: PLR2004 - from here on reasons are refusals, 5.0 s. 3.4.2.1
            self._sink.error(f"puback_{reason}")
            if outgoing.said is None:
                self._sink.refused(outgoing)
            return
        if outgoing.said is not None:
            if self.control is not None:
                self.control.acked(outgoing.said)
            return
        self._sink.acked(outgoing)
        if self._unsettled is not None:
            self._unsettled.keep(outgoing)

    async def _connect(self) -> None:
        settings, loop = self._settings, asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            _, link = await loop.create_connection(
                lambda: Link(self, settings.version, settings.pulse),
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

    def _connect_packet(self) -> bytes:
        login = self._login
        return packets.Connect(
            login.device_id,
            self._settings.version,
            self._settings.keepalive_s,
            username=login.device_id if login.secret else "",
            password=login.secret,
            will=self._will(),
        ).encode()

    def _will(self) -> packets.Will:
        if self.edge is not None:
            return packets.Will(*self.edge.begin(), is_retained=False)
        return packets.Will(topics.status(self._login.device_id), OFFLINE)

    def _begin(self, link: Link, connack: packets.Connack) -> None:
        self._link = link
        settings = self._settings
        self._window = max(1, min(settings.window, connack.receive_maximum))
        self._resend = list(reversed(self._inflight))
        self._flying = 0
        link.keep_alive(connack.keepalive_s or settings.keepalive_s)
        link.write(self._status(ONLINE))
        if self.edge is not None:
            link.write(packets.subscribe(self.edge.commands, self._next_id(), settings.version))
            link.write(self._say(*self.edge.birth()))
        if self._unsettled is not None:
            self._follow_acks(link, self._unsettled)
        if self.control is not None:
            for topic in self.control.topics:
                link.write(packets.subscribe(topic, self._next_id(), settings.version, qos=1))
            self._say_all(self.control.begin())
        if self._ready is not None:
            self._ready()
            self._ready = None
        self.pump()

    def _status(self, state: bytes) -> bytes:
        return packets.Publisher(topics.status(self._login.device_id), self._settings.version).qos0(state, retain=True)

    def _follow_acks(self, link: Link, unsettled: Unsettled) -> None:
        topic = topics.acks(self._login.device_id)
        link.write(packets.subscribe(topic, self._next_id(), self._settings.version))
        if unsettled.doubtful(time.monotonic()):
            asyncio.get_running_loop().call_later(HOLD_S, self._end_hold, link)

    def _hear(self, topic: str, payload: bytes, packet_id: int) -> None:
        if packet_id and self._link is not None:
            self._link.write(packets.puback(packet_id))
        if self.edge is not None and topic == self.edge.commands:
            if self.edge.is_asked_for_birth(payload) and self._link is not None:
                self._link.write(self._say(*self.edge.birth()))
        elif topic == topics.acks(self._login.device_id):
            if self._unsettled is not None:
                self._send_again(self._unsettled.hear(payload, time.monotonic()))
        elif self.control is not None:
            self._say_all(self.control.hear(topic, payload, clock.now_ns()))

    def _say_all(self, sayings: list[Said]) -> None:
        for said in sayings:
            outgoing = Outgoing(0, 0, 0, said.payload, said=said)
            if said.delay_s:
                asyncio.get_running_loop().call_later(said.delay_s, self.offer, outgoing)
            else:
                self.offer(outgoing)

    def _end_hold(self, link: Link) -> None:
        if link is self._link and self._unsettled is not None:  # else the next connection has its own
            self._send_again(self._unsettled.overdue())

    def _send_again(self, readings: list[Outgoing]) -> None:
        """Publish readings once more, as new messages: their numbers tell that they are copies."""
        for outgoing in readings:
            self._sink.error("resent_missing")
            self._waiting.append(outgoing)
        if readings:
            self.pump()

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

    def _next_id(self) -> int:
        while True:
            self._packet_id = self._packet_id % _ID_LIMIT + 1
            if self._packet_id not in self._inflight:
                return self._packet_id
