"""The registry's connection to the broker for twins and commands, in one process and one thread.

What a device sends is acknowledged to the broker after it was committed, so the broker keeps it over restarts and
faults of the registry. What goes out is taken from the database and noted there once the broker has it.
"""

from __future__ import annotations

import threading
import time
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Protocol

import orjson
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from chassis import logs
from chassis.metrics import Counter, Gauge
from chassis.settings import split_address
from devices.control.traffic import Inbound, Outbound, Receipt, Traffic, Way, notice
from wire import topics
from wire.errors import Forbidden, HeadwaterError
from wire.topics import DeviceTopic

log = logs.get(__name__)
CONNECTED = Gauge("headwater_control_connected", "1 while twins and commands reach the broker", multiprocess_mode="max")
MESSAGES = Counter("headwater_control_messages", "Messages of twins and commands", ["channel", "direction"])
REFUSED = Counter("headwater_control_refused", "Messages of devices that were refused, by reason", ["code"])
KEEPALIVE_S = 15
TURN_S = 0.05  # longest rest of the loop
GATHER_S = 0.002  # quiet after which what came is committed
BATCH = 500  # messages a transaction
PUMP_S = 0.2  # how soon a change by another process goes out
RECONNECT_S = 1.0
SESSION_S = 7 * 86_400  # how long the broker keeps what devices send while the registry is away
# Retained messages not at subscribing, and the flag as the device gave it (MQTT 5 s. 3.8.3.1).
_AS_PUBLISHED = SubscribeOptions(1, retainAsPublished=True, retainHandling=SubscribeOptions.RETAIN_DO_NOT_SEND)
NO_SUBSCRIBERS = 16  # reason of a PUBACK, MQTT 5 s. 3.4.2.1
DEVICE_NOTICES = 10  # to one device a second
ALL_NOTICES = 500
FORESEEN_BY_NOBODY = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)  # in content

_NOBODY = "identity_mismatch"  # the child's id is none


class Rights(Protocol):
    """Who may speak for whom; see `devices.gateways.ways.Ways`."""

    def trespass(self, pairs: AbstractSet[tuple[str, str]]) -> Mapping[tuple[str, str], str]: ...
    def note(self, gateway: str, named: str) -> None: ...


class Everybody:
    """A Rights without any limit."""

    def trespass(self, pairs: AbstractSet[tuple[str, str]]) -> Mapping[tuple[str, str], str]:
        """See Rights."""
        del pairs
        return {}

    def note(self, gateway: str, named: str) -> None:
        """See Rights."""


class BrokerLink:
    """Carries the traffic; `run` and all callbacks are in one thread."""

    def __init__(
        self,
        broker: str,
        credential: tuple[str, str],
        traffic: Sequence[Traffic],
        heard: Callable[[Iterable[str]], None] = lambda _ids: None,
        rights: Rights | None = None,
    ) -> None:
        """Prepare; nothing is connected yet.

        Args:
            broker: host:port.
            credential: user name, which is the client id too, and password.
            traffic: what it carries.
            heard: told of each batch's devices.
            rights: tells which pairs of gateway and child are none, or none in service, and is told who tried.
        """
        self._address = split_address(broker, topics.MQTT_PORT)
        self._credential = credential
        self._traffic = traffic
        self._heard = heard
        self._rights = rights or Everybody()
        self._rung = threading.Event()
        self._is_away = False
        self._told: Tally[str] = Tally()
        self._told_s = 0.0
        self._forget()

    def ring(self) -> None:
        """Tell that there is something to send. From any thread."""
        self._rung.set()

    def run(self, stopping: threading.Event) -> None:
        """Carry until stopped; connect again whenever the connection is lost."""
        while not stopping.is_set():
            client = self._make_client()
            try:
                self._carry(client, stopping)
            finally:
                CONNECTED.set(0)
                client.disconnect()
                self._forget()
            stopping.wait(RECONNECT_S)

    def _forget(self) -> None:
        """Forget one connection: what was not acknowledged comes again, what was not confirmed is sent again."""
        self._inbox: list[tuple[int, Inbound]] = []
        self._sent: dict[int, tuple[Traffic, Outbound]] = {}
        self._receipts: list[tuple[Traffic, Receipt]] = []
        self._held: dict[Way, bytes] = {}
        self._is_ready = False
        self._pump_at_s = 0.0

    def _make_client(self) -> mqtt.Client:
        username, password = self._credential
        client = mqtt.Client(CallbackAPIVersion.VERSION2, username, protocol=mqtt.MQTTv5, manual_ack=True)
        client.username_pw_set(username, password)
        client.max_queued_messages_set(0)
        client.max_inflight_messages_set(BATCH * 4)
        client.on_connect = self._on_connect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_unsubscribe = self._on_unsubscribe
        return client

    def _carry(self, client: mqtt.Client, stopping: threading.Event) -> None:
        session = _properties(PacketTypes.CONNECT, SessionExpiryInterval=SESSION_S)
        try:
            client.connect(*self._address, keepalive=KEEPALIVE_S, clean_start=False, properties=session)
        except OSError as error:
            self._note_away(str(error))
            return
        while not stopping.is_set():
            before = len(self._inbox)
            if client.loop(GATHER_S if self._inbox or self._receipts else TURN_S) != mqtt.MQTT_ERR_SUCCESS:
                self._note_away("connection lost")
                return
            if len(self._inbox) in (before, BATCH):
                self._turn(client)
        self._turn(client)

    def _turn(self, client: mqtt.Client) -> None:
        self._confirm()
        self._take(client)
        if self._is_ready and (self._rung.is_set() or time.monotonic() >= self._pump_at_s):
            self._rung.clear()
            self._pump_at_s = time.monotonic() + PUMP_S
            self._pump(client)

    # -- from the broker

    def _on_connect(self, client: mqtt.Client, _data: Any, _flags: Any, code: Any, _more: Any) -> None:
        if code.is_failure:
            self._note_away(str(code))
            return
        self._is_away = False
        client.subscribe([(each, _AS_PUBLISHED) for traffic in self._traffic for each in traffic.filters])
        wanted = [each for traffic in self._traffic for each in traffic.found]
        if wanted:  # what is retained comes between these two and their answers
            client.subscribe([(each, 0) for each in wanted])
            client.unsubscribe(wanted)
        else:
            self._begin()

    def _on_unsubscribe(self, *_: Any) -> None:
        self._begin()

    def _begin(self) -> None:
        for traffic in self._traffic:
            traffic.begin(self._held if traffic.found else {})
        self._held = {}
        self._is_ready = True
        CONNECTED.set(1)

    def _on_message(self, client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        topic = topics.parse_device_topic(message.topic)
        if topic is not None and message.retain and self._is_wanted(message.topic):
            found = _inbound(topic, bytes(message.payload))
            self._held[Way(found.topic.device_id, found.gateway or "")] = found.payload
        elif topic is not None and message.payload:
            if message.retain:  # as published: the broker would keep it for ever, on as many topics as a device names
                client.publish(message.topic, b"", qos=0, retain=True)
            self._inbox.append((message.mid if message.qos else 0, _inbound(topic, bytes(message.payload))))
        elif message.qos:
            client.ack(message.mid, message.qos)  # our own clearing of a retained one

    def _is_wanted(self, topic: str) -> bool:
        return any(mqtt.topic_matches_sub(each, topic) for traffic in self._traffic for each in traffic.found)

    def _on_publish(self, _client: mqtt.Client, _data: Any, mid: int, code: Any, _more: Any) -> None:
        found = self._sent.pop(mid, None)
        if found is not None:
            traffic, message = found
            is_heard = not code.is_failure and code.value != NO_SUBSCRIBERS
            self._receipts.append((traffic, Receipt(message.token, is_heard)))

    def _take(self, client: mqtt.Client) -> None:
        batch, self._inbox = self._inbox, []
        messages = self._admit(client, [message for _, message in batch])
        for traffic in self._traffic if messages else ():
            mine = [message for message in messages if message.topic.channel in traffic.channels]
            MESSAGES.labels(traffic.channels[0], "up").inc(len(mine))
            for message, error in _take_each(traffic, mine) if mine else ():
                self._refuse(client, message, error)
        if batch:
            senders = {message.sender for _, message in batch}
            self._heard(senders | {message.topic.device_id for message in messages})
        for mid, _ in batch:
            if mid:
                client.ack(mid, 1)

    def _admit(self, client: mqtt.Client, messages: list[Inbound]) -> list[Inbound]:
        """Give those whose senders may say it: a gateway's rights end at its children."""
        pairs = {(message.gateway, message.topic.device_id) for message in messages if message.gateway}
        codes = self._rights.trespass(pairs) if pairs else {}
        admitted = []
        for message in messages:
            code = _NOBODY if message.topic.channel == "children" else codes.get((message.sender, message.topic[0]))
            if code is None:
                admitted.append(message)
            else:
                if code == _NOBODY:
                    self._rights.note(message.sender, _named(message))
                text = f"{message.sender} does not speak for such a child, or not now"
                self._refuse(client, message, Forbidden(text, code=code))
        return admitted

    def _refuse(self, client: mqtt.Client, message: Inbound, error: HeadwaterError) -> None:
        REFUSED.labels(error.code).inc()
        if time.monotonic() - self._told_s >= 1.0:
            self._told_s = time.monotonic()
            self._told.clear()
        device = message.sender
        if self._told[device] < DEVICE_NOTICES and self._told.total() < ALL_NOTICES:
            self._told[device] += 1
            client.publish(topics.errors(device), orjson.dumps(notice(message, error)), qos=0)

    # -- to the broker

    def _pump(self, client: mqtt.Client) -> None:
        for traffic in self._traffic:
            for message in traffic.outgoing():
                self._publish(client, traffic, message)

    def _publish(self, client: mqtt.Client, traffic: Traffic, message: Outbound) -> None:
        properties = None
        if message.expiry_s is not None:
            properties = _properties(PacketTypes.PUBLISH, MessageExpiryInterval=message.expiry_s)
        sent = client.publish(message.topic, message.payload, message.qos, message.retain, properties)
        MESSAGES.labels(traffic.channels[0], "down").inc()
        if message.qos:
            self._sent[sent.mid] = (traffic, message)
        else:
            self._receipts.append((traffic, Receipt(message.token, is_heard=True)))

    def _confirm(self) -> None:
        receipts, self._receipts = self._receipts, []
        for traffic in self._traffic if receipts else ():
            mine = [receipt for owner, receipt in receipts if owner is traffic]
            if mine:
                traffic.confirm(mine)

    def _note_away(self, reason: str) -> None:
        if not self._is_away:
            log.warning("control_away", reason=reason)
        self._is_away = True


def _named(message: Inbound) -> str:
    """Give the child that a message names, also when that can be none."""
    return message.topic.device_id if message.gateway else message.topic.rest.partition("/")[0]


def _inbound(topic: DeviceTopic, payload: bytes) -> Inbound:
    of_child = topics.parse_child_topic(topic)
    return Inbound(topic, payload) if of_child is None else Inbound(of_child, payload, topic.device_id)


def _take_each(traffic: Traffic, messages: Sequence[Inbound]) -> list[tuple[Inbound, HeadwaterError]]:
    """Give a batch to its traffic; a message that nobody foresaw is refused, or the broker would bring it for ever."""
    try:
        return traffic.take(messages)
    except FORESEEN_BY_NOBODY:
        if len(messages) > 1:
            return [refused for message in messages for refused in _take_each(traffic, [message])]
        log.fault("control_fault", device=messages[0].topic.device_id)
        return [(messages[0], HeadwaterError("an error of ours; it was logged"))]


def _properties(kind: int, **values: int) -> Properties:
    made = Properties(kind)  # type: ignore[no-untyped-call]  # paho gives no types here
    for name, value in values.items():
        setattr(made, name, value)
    return made
