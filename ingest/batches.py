"""A bridge's batch taken apart: each message ends by itself, whatever its neighbours are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from ingest.framing import Delivery, Ending
from ingest.gate import Found
from ingest.intake import Message
from ingest.ports import Ports, to_refused
from ingest.protocols import Protocol
from ingest.protocols.base import MAX_MESSAGE_BYTES
from ingest.quarantine import Item, Kept, RawMessage, Refused
from ingest.rates import LIMITED, Wait
from ingest.readings import Reading
from ingest.reports import AuditEntry
from wire import topics

MAX_TOPICS = 20_000  # topics whose parts are remembered: parsing one costs as much as decoding its payload
DEVICE_FULL = "the device's share of the quarantine is full"
DEFAULT_PROTOCOL = "json"


class _Held(NamedTuple):
    """A message of which something has to be quarantined before its readings may be kept."""

    position: int  # in the batch
    protocol: str
    readings: list[Reading]
    items: Sequence[Item]


class BatchSorting:
    """The state of sorting one batch. Use: `find_devices`, `take` each, keep `refused`, `settle`, keep its readings."""

    def __init__(self, ports: Ports, protocols: dict[str, Protocol], bridge: str) -> None:
        self.endings: list[Ending] = []
        self.refused: list[Refused] = []
        self.counts: Counter[tuple[str, str]] = Counter()  # (protocol, end) -> readings
        self._ports = ports
        self._protocols = protocols
        self._bridge = bridge
        self._found = Found({}, frozenset())
        self._held: list[_Held] = []  # in the order of `refused`
        self._readings: list[tuple[int, list[Reading]]] = []
        self._late: Counter[str] = Counter()  # device -> messages of it that are over its rate

    def find_devices(self, deliveries: Iterable[Delivery]) -> None:
        """Ask the gate for all senders at once."""
        device_ids = {delivery.device for delivery in deliveries if topics.is_device_id(delivery.device)}
        self._found = self._ports.gate.find(device_ids)

    def take(self, index: int, delivery: Delivery) -> None:
        """Sort one message."""
        if not delivery.payload:
            return  # a deleted retained message: no reading was sent
        topic = _parse(delivery.topic)
        if topic is None or topic.channel != "telemetry":
            self._hold_unknown(index, delivery, "", "bad_topic", "not a telemetry topic")
        elif topic.device_id != delivery.device:
            self._refuse_stranger(index, delivery, topic.device_id)
        elif delivery.device in self._found.unanswered:
            self.endings.append(Ending(index, "deferred", "peer_unavailable", "the registry is away"))
        else:
            self._take_known(index, delivery, topic.rest or DEFAULT_PROTOCOL)

    def settle(self, kept: Sequence[Kept]) -> list[Reading]:
        """Give the readings to keep, in receipt order, now that it is known what the quarantine took."""
        for held, outcome in zip(self._held, kept, strict=True):
            if outcome.state == "full":
                self.endings.append(Ending(held.position, "deferred", "quarantine_full", "the quarantine is full"))
                continue
            self._readings.append((held.position, held.readings))
            end = "quarantined" if outcome.state == "kept" else "refused"
            for item in held.items:
                detail = item.detail if outcome.state == "kept" else f"{item.detail}; {DEVICE_FULL}"
                self.endings.append(Ending(held.position, end, item.code, detail, item.record))
            self.counts[held.protocol, end] += len(held.items)
            self.counts[held.protocol, "accepted"] += len(held.readings)
        if self._held:
            self._readings.sort(key=lambda each: each[0])
        return [reading for _, readings in self._readings for reading in readings]

    def _take_known(self, index: int, delivery: Delivery, name: str) -> None:
        device, protocol = self._found.known.get(delivery.device), self._protocols.get(name)
        if device is None:
            self._hold_unknown(index, delivery, name, "unknown_device", f"no device {delivery.device}")
        elif protocol is None:
            self._hold_unknown(index, delivery, name, "unsupported", f"no protocol {name[:64]!r} here")
        elif not device.is_active:
            self._refuse(index, name, "device_disabled", f"{device.id} is disabled")
        elif len(delivery.payload) > MAX_MESSAGE_BYTES:
            detail = f"message of {len(delivery.payload)} bytes, limit {MAX_MESSAGE_BYTES}"
            self._refuse(index, name, "too_large", detail)
        else:
            message = Message(
                device, protocol, delivery.payload, delivery.received_ns, "mqtt", delivery.topic,
                delivery.mid, delivery.dup, delivery.retain, self._bridge,
            )  # fmt: skip
            self._sort(index, message, is_surplus=delivery.is_surplus)

    def _sort(self, index: int, message: Message, *, is_surplus: bool) -> None:
        checker = self._ports.gate.checker_of(message.device)
        rates, rate = self._ports.rates, checker.rate if checker else None
        is_limited = rates.is_on or rate is not None
        if is_limited and (wait := rates.take(message.whose, rate, ahead=self._late[message.device.id])).seconds:
            self._put_off(index, message, wait, is_surplus=is_surplus)
            return
        found = self._ports.intake.sort(message, checker)
        if is_limited:
            rates.charge(message.whose, rate, found.count)
        self._ports.reports.note_seen(message.device.id, message.received_ns)
        refused = to_refused(message, checker, found)
        if refused is None:
            self._readings.append((index, found.readings))
            self.counts[message.protocol.name, "accepted"] += len(found.readings)
        elif not found.is_readable and found.items[0].code == "too_large":
            self._refuse(index, message.protocol.name, "too_large", found.items[0].detail)
        else:
            self._hold(_Held(index, message.protocol.name, found.readings, found.items), refused.message)

    def _put_off(self, index: int, message: Message, wait: Wait, *, is_surplus: bool) -> None:
        """Let the bridge come again with a message over a rate; keep in the quarantine what it has no room for.

        The broker has acknowledged it to the device, so it cannot be refused as over HTTP.
        """
        self._late[message.device.id] += 1
        LIMITED.labels(wait.scope, "quarantined" if is_surplus else "deferred").inc()
        if is_surplus:
            raw = message.to_raw(self._ports.gate.checker_of(message.device), is_readable=True)
            self._hold(_Held(index, message.protocol.name, [], [Item(None, "rate_limited", wait.in_words())]), raw)
        else:
            self.endings.append(Ending(index, "deferred", "rate_limited", retry_s=wait.seconds))

    def _hold(self, held: _Held, message: RawMessage) -> None:
        self._held.append(held)
        self.refused.append(Refused(message, held.items))

    def _hold_unknown(self, index: int, delivery: Delivery, protocol: str, code: str, detail: str) -> None:
        raw = RawMessage(delivery.device, protocol[:64], "mqtt", delivery.payload, delivery.received_ns, delivery.topic)
        label = protocol if protocol in self._protocols else "unknown"  # a metric's labels must stay few
        self._hold(_Held(index, label, [], [Item(None, code, detail)]), raw)

    def _refuse(self, index: int, protocol: str, code: str, detail: str) -> None:
        self.endings.append(Ending(index, "refused", code, detail))
        self.counts[protocol, "refused"] += 1

    def _refuse_stranger(self, index: int, delivery: Delivery, named: str) -> None:
        detail = f"the topic names {named}"
        self._refuse(index, "unknown", "identity_mismatch", detail)
        self._ports.reports.note_attempt(
            AuditEntry(delivery.device, "telemetry.identity_mismatch", f"device:{named}", f"over MQTT: {detail}"),
        )


@lru_cache(maxsize=MAX_TOPICS)
def _parse(topic: str) -> topics.DeviceTopic | None:
    return topics.parse_device_topic(topic)
