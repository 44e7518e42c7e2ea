"""Evidence of presence from the broker: status topics and the log lines of connections. The registry's only paho user.

One connection carries both, so their order is the broker's. Its session is durable, and what came is acknowledged
after it was written: what happens while this service restarts, or is killed, waits at the broker (log lines for 20 s).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from chassis import logs, metrics
from chassis.settings import split_address
from devices.metrics import BROKER_NEWS
from devices.presence import state as presence
from devices.presence.keeper import Keeper
from devices.presence.state import Evidence
from wire import clock, topics

log = logs.get(__name__)
LOST = metrics.Counter("headwater_presence_evidence_lost", "Pieces of evidence dropped while the database was away")
BROKER_LOG = "$SYS/broker/log/N"  # notices: connections; needs `log_dest topic` and `log_type notice`
BROKER_STARTS = "$SYS/broker/log/I"  # a start of the broker; needs `log_type information`, else silence decides
KEEPALIVE_S = 15
TURN_S = 0.1  # how long evidence is collected before it is written
FEW = 20  # after so many without an acknowledgement a broker may send no more (mosquitto's default)
GATHER_S = 0.005
LOOK_S = 1.0
MAX_PENDING = 100_000  # pieces of evidence kept while the database is away
RECONNECT_S = 1.0


class BrokerFeed:
    """Hears from the broker in one thread, in which all its methods but the constructor run."""

    def __init__(self, broker: str, credential: tuple[str, str], keeper: Keeper, refused: Callable[[], None]) -> None:
        """Prepare; nothing is connected yet.

        Args:
            broker: host:port.
            credential: user name, which is the client id too, and password.
            keeper: takes the evidence.
            refused: called after the broker refused somebody's credential.
        """
        self._address = split_address(broker, topics.MQTT_PORT)
        self._credential = credential
        self._keeper = keeper
        self._refused = refused
        self._pending: list[Evidence] = []
        self._unacked: list[int] = []  # packet ids
        self._has_refusal = False
        self._is_connected = False
        self._was_lost = False
        self._look_at_s = 0.0
        self._is_away = False  # so that an absence is one line, not one a second

    def run(self, stopping: threading.Event) -> None:
        """Hear until stopped; connect again whenever the connection is lost."""
        while not stopping.is_set():
            client = self._make_client()
            try:
                self._hear(client, stopping)
            finally:
                self._lose()
                client.disconnect()
            stopping.wait(RECONNECT_S)

    def _make_client(self) -> mqtt.Client:
        username, password = self._credential
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=username, clean_session=False, manual_ack=True)
        client.username_pw_set(username, password)
        client.on_connect = self._on_connect
        client.on_message = self._on_message
        return client

    def _hear(self, client: mqtt.Client, stopping: threading.Event) -> None:
        try:
            client.connect(*self._address, keepalive=KEEPALIVE_S)
        except OSError as error:
            self._note_away(str(error))
            self._turn(client)
            return
        flush_at_s = time.monotonic() + TURN_S
        while not stopping.is_set():
            before = len(self._unacked)
            if client.loop(GATHER_S if before >= FEW else TURN_S) != mqtt.MQTT_ERR_SUCCESS:
                self._note_away("connection lost")
                break
            is_stuck = len(self._unacked) == before >= FEW
            if is_stuck or time.monotonic() >= flush_at_s:
                self._turn(client)
                flush_at_s = time.monotonic() + TURN_S
        self._turn(client)

    def _on_connect(self, client: mqtt.Client, _data: Any, flags: mqtt.ConnectFlags, code: Any, _more: Any) -> None:
        if code.is_failure:
            self._note_away(str(code))
            return
        # A connection that broke may mean a broker that was started anew, with nobody connected.
        self._keeper.resume(has_session=flags.session_present and not self._was_lost)
        self._was_lost = self._is_away = False
        self._is_connected = True
        BROKER_NEWS.set(1)
        client.subscribe([(BROKER_LOG, 1), (BROKER_STARTS, 1), (topics.STATUS, 1)])

    def _on_message(self, _client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        now_ns = clock.now_ns()
        if message.qos:
            self._unacked.append(message.mid)
        if message.topic.startswith("$SYS/"):
            self._take_line(message.payload.decode("utf-8", "replace"), now_ns)
            return
        topic, word = topics.parse_device_topic(message.topic), presence.parse_status(bytes(message.payload))
        if topic is not None and word is not None:
            kind: presence.Kind = "retained" if message.retain else "said"
            self._add(Evidence(kind, topic.device_id, now_ns, word))

    def _take_line(self, line: str, now_ns: int) -> None:
        news = presence.parse_line(line.rstrip())
        if news is None:
            return
        if news.kind in {"connected", "disconnected"}:
            self._add(Evidence(news.kind, news.device, now_ns))
        elif news.kind in {"bridge_came", "bridge_went"}:
            self._write()
            self._keeper.note_bridge(news.device, now_ns, is_here=news.kind == "bridge_came")
        elif news.kind == "refused":
            self._has_refusal = True
        else:
            self._write()
            self._keeper.restart()

    def _add(self, evidence: Evidence) -> None:
        if len(self._pending) >= MAX_PENDING:
            LOST.inc()
            return
        self._pending.append(evidence)

    def _turn(self, client: mqtt.Client) -> None:
        self._write()
        for packet_id in self._unacked:
            client.ack(packet_id, 1)
        self._unacked = []
        if self._has_refusal:
            self._has_refusal = False
            self._refused()
        if time.monotonic() >= self._look_at_s:
            self._look_at_s = time.monotonic() + LOOK_S
            self._keeper.look(hears=self._is_connected)

    def _write(self) -> None:
        if self._pending:
            self._keeper.apply(self._pending)
            self._pending = []  # only now: a fault of the database leaves them for the next turn

    def _note_away(self, reason: str) -> None:
        self._was_lost = self._was_lost or self._is_connected
        if not self._is_away:
            log.warning("broker_away", reason=reason)
        self._is_away = True

    def _lose(self) -> None:
        self._is_connected = False
        self._unacked = []  # they come again
        BROKER_NEWS.set(0)
