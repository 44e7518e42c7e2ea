"""A bridge's batch taken apart: each message ends by itself, whatever its neighbours are."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from ingest.children import Children
from ingest.children import Found as ChildrenFound
from ingest.framing import Delivery, Ending
from ingest.gate import Found
from ingest.message import Message
from ingest.ports import Ports, report_parts, to_refused
from ingest.protocols import Protocol
from ingest.protocols.base import MAX_MESSAGE_BYTES
from ingest.quarantine import WAITS, Item, Kept, RawMessage, Refused
from ingest.rates import LIMITED, UNLIMITED, Limits, closer
from ingest.readings import Reading
from ingest.reports import AuditEntry
from ingest.usage import Use
from ingest.validation import TypeChecker
from wire import topics
from wire.errors import PeerUnavailable

MAX_TOPICS = 20_000  # topics whose parts are remembered: parsing one costs as much as decoding its payload
DEVICE_FULL = "the device's share of the quarantine is full"
DEFAULT_PROTOCOL = "json"
SORT_S = 2.0  # of a batch with slow codecs: the bridge waits 10 s for its answer, and would send all of it again
TENANT_SORT_S = 0.5  # of that for one tenant of several: what is slow at it holds up itself


Whose = tuple[str, str]  # tenant of the sender, or "", and protocol


class _Held(NamedTuple):
    """A message of which something has to be quarantined before its readings may be kept."""

    position: int  # in the batch
    whose: Whose
    readings: list[Reading]
    items: Sequence[Item]


class BatchSorting:
    """The state of sorting one batch. Use: `find_devices`, `take_all`, keep `refused`, `settle`, keep its readings."""

    def __init__(self, ports: Ports, protocols: dict[str, Protocol], bridge: str, speakers: Children) -> None:
        self.endings: list[Ending] = []
        self.refused: list[Refused] = []
        self.counts: Counter[tuple[str, str, str]] = Counter()  # (tenant, protocol, end) -> readings
        self.used: list[Use] = []
        self._ports = ports
        self._protocols = protocols
        self._bridge = bridge
        self._speakers = speakers
        self._found = Found({}, frozenset())
        self._children = ChildrenFound({}, {})
        self._held: list[_Held] = []  # in the order of `refused`
        self._readings: list[Reading] = []
        self._positions: list[int] = []  # in the batch, of each reading
        self._accepted: defaultdict[Whose, int] = defaultdict(int)
        self._seen: dict[str, int] = {}  # device -> time of its newest message
        self._enough_s = time.monotonic() + SORT_S
        self._is_shared = False  # it holds messages of several tenants
        self._spent_s: defaultdict[str, float] = defaultdict(float)  # by tenant
        self._late: Counter[str] = Counter()  # device -> messages of it that are over its rate

    def find_devices(self, deliveries: Sequence[Delivery]) -> None:
        """Ask the gate for all senders at once."""
        gate = self._ports.gate
        names = {delivery.device for delivery in deliveries}
        senders = (name for name in names if gate.is_cached(name) or topics.is_device_id(name))
        self._found = gate.find(senders, doubts=True)
        self._is_shared = len({device.tenant for device in self._found.known.values()}) > 1
        spoken_for: dict[tuple[str, str], int] = {}
        for delivery in deliveries:
            if child := route(delivery.topic)[2]:
                spoken_for[delivery.device, child] = delivery.received_ns
        if spoken_for:
            self._find_children(spoken_for)

    def _find_children(self, spoken_for: dict[tuple[str, str], int]) -> None:
        known = self._found.known
        self._children = self._speakers.find((known[name], child) for name, child in spoken_for if name in known)
        self._seen |= {gateway: spoken_for[gateway, child] for gateway, child in self._children.known}

    def take_all(self, deliveries: Iterable[Delivery]) -> None:
        """Sort all messages, each for itself; what comes late in a batch that takes long is to be sent again."""
        known, protocols, bridge = self._found.known, self._protocols, self._bridge
        children = self._children.known
        rates, checker_of = self._ports.rates, self._ports.gate.checker_of
        for index, delivery in enumerate(deliveries):
            device_id, topic = delivery.device, delivery.topic
            named, protocol_name, child = _route_of(delivery) if delivery.protocol else route(topic)
            device = children.get((device_id, child)) if child else known.get(device_id)
            protocol = protocols.get(protocol_name)
            size = len(delivery.payload)
            if device is None or protocol is None or named != device_id or not 0 < size <= MAX_MESSAGE_BYTES:
                self._turn_away(index, delivery)
                continue
            if not device.is_active:
                self._refuse(index, (device.tenant, protocol_name), "device_disabled", f"{device.id} is disabled")
                continue
            message = Message(
                device, protocol, delivery.payload, delivery.received_ns, "mqtt", topic,
                delivery.mid, delivery.dup, delivery.retain and not topic.endswith(protocol.states), bridge,
            )  # fmt: skip
            checker = checker_of(device)
            limits = closer(device.rate, checker.limits if checker is not None else UNLIMITED)
            is_limited = rates.is_on or limits is not UNLIMITED or delivery.is_surplus
            if is_limited and not self._is_admitted(index, message, limits, is_surplus=delivery.is_surplus):
                continue
            self._seen[device.id] = delivery.received_ns
            if device.is_held:
                self._wait(index, message, checker)
                continue
            readings = self._ports.intake.read(message, checker)
            own = self._sort(index, message, checker) if readings is None else self._take(index, message, readings)
            if is_limited:
                rates.charge(message.whose, limits, own)
        self._ports.reports.note_all_seen(self._seen)

    def settle(self, kept: Sequence[Kept]) -> list[Reading]:
        """Give the readings to keep, in receipt order, now that it is known what the quarantine took."""
        for held, outcome in zip(self._held, kept, strict=True):
            if outcome.state == "full":
                self.endings.append(Ending(held.position, "deferred", "quarantine_full", "the quarantine is full"))
                continue
            self._put(held.position, held.whose, held.readings)
            end = "quarantined" if outcome.state == "kept" else "refused"
            for item in held.items:
                told = item if outcome.state == "kept" else not_kept(item)
                self.endings.append(Ending(held.position, end, told.code, told.detail, told.record, told.field))
            self.counts[(*held.whose, end)] += len(held.items)
        self.counts |= {(*whose, "accepted"): count for whose, count in self._accepted.items()}
        if not self._held:
            return self._readings
        ordered = sorted(range(len(self._readings)), key=self._positions.__getitem__)
        return [self._readings[place] for place in ordered]

    def count_refused(self, deliveries: Sequence[Delivery]) -> Counter[str]:
        """Count what was refused, by tenant of the sender; "" when nobody knows it."""
        known = self._found.known
        senders = (deliveries[each.index].device for each in self.endings if each.end == "refused")
        return Counter(known[name].tenant if name in known else "" for name in senders)

    def _put(self, position: int, whose: Whose, readings: list[Reading]) -> None:
        self._readings += readings
        self._positions += [position] * len(readings)
        self._accepted[whose] += len(readings)

    def _wait(self, index: int, message: Message, checker: TypeChecker | None) -> None:
        """Keep a message until its device is accepted; how many readings it holds is seen then."""
        self._hold(_Held(index, _whose(message), [], [WAITS]), message.to_raw(checker, is_readable=True))
        self.used.append(message.use(0))

    def _take(self, index: int, message: Message, readings: list[Reading]) -> int:
        """Take readings in as they are; give how many there are."""
        count = len(readings)
        self.used.append(message.use(count))
        if count == 1:  # nearly all
            self._readings.append(readings[0])
            self._positions.append(index)
            self._accepted[_whose(message)] += 1
            return 1
        self._put(index, _whose(message), readings)
        return count

    def _sort(self, index: int, message: Message, checker: TypeChecker | None) -> int:
        """Take a message apart; give how many readings of its sender it held."""
        began_s, tenant = time.monotonic(), message.device.tenant
        is_late = began_s > self._enough_s or (self._is_shared and self._spent_s[tenant] > TENANT_SORT_S)
        if is_late and not message.protocol.host:
            self.endings.append(Ending(index, "deferred", "unavailable", "other messages of the batch took long"))
            return 0
        try:
            found = self._ports.intake.sort(message, checker)
        except PeerUnavailable as error:  # before anything of it was noted
            self.endings.append(Ending(index, "deferred", error.code, error.detail))
            return 0
        finally:
            self._spent_s[tenant] += time.monotonic() - began_s
        self.used += found.uses(message)
        refused = to_refused(message, checker, found)
        if refused is None:
            self._put(index, _whose(message), found.readings)
        elif not found.is_readable and found.items[0].code == "too_large":
            self._refuse(index, _whose(message), "too_large", found.items[0].detail)
        else:
            self._hold(_Held(index, _whose(message), found.readings, found.items), refused.message)
        if not found.is_news:
            return found.count
        report_parts(self._ports.reports, message, found)
        return found.own_count(message.device.id)

    def _is_admitted(self, index: int, message: Message, limits: Limits, *, is_surplus: bool) -> bool:
        """Take a token, or let the bridge come again; keep in the quarantine what it has no room for.

        The broker has acknowledged it to the device, so it cannot be refused as over HTTP.
        """
        late, size = self._late[message.device.id], len(message.content)
        wait = self._ports.rates.take(message.whose, limits, size=size, ahead=late)
        # What the bridge has no room for comes before older messages: a host must not take it for the next one.
        if not wait.seconds and not (is_surplus and message.protocol.host):
            return True
        self._late[message.device.id] += 1
        LIMITED.labels(wait.scope or "device", "quarantined" if is_surplus else "deferred").inc()
        if is_surplus:
            raw = message.to_raw(self._ports.gate.checker_of(message.device), is_readable=True)
            self._hold(_Held(index, _whose(message), [], [Item(None, "rate_limited", wait.in_words())]), raw)
        else:
            self.endings.append(Ending(index, "deferred", "rate_limited", retry_s=wait.seconds))
        return False

    def _turn_away(self, index: int, delivery: Delivery) -> None:
        """Say why a message is not sorted."""
        if not delivery.payload:
            return  # a deleted retained message: no reading was sent
        named, protocol, child = _route_of(delivery)
        if not named:
            self._hold_unknown(index, delivery, "", "bad_topic", "neither a telemetry topic nor one that is claimed")
        elif named != delivery.device:
            self._refuse_stranger(index, delivery, named)
        elif delivery.device in self._found.unanswered:
            self.endings.append(Ending(index, "deferred", "peer_unavailable", "the registry is away"))
        elif delivery.device not in self._found.known:
            self._hold_unknown(index, delivery, protocol, "unknown_device", f"no device {delivery.device}")
        elif code := self._children.refused.get((named, child)):
            self._turn_child_away(index, delivery, child, code)
        elif protocol not in self._protocols:
            self._hold_unknown(index, delivery, protocol, "unsupported", f"no protocol {protocol[:64]!r} here")
        else:
            detail = f"message of {len(delivery.payload)} bytes, limit {MAX_MESSAGE_BYTES}"
            self._refuse(index, (self._found.known[delivery.device].tenant, protocol), "too_large", detail)

    def _turn_child_away(self, index: int, delivery: Delivery, child: str, code: str) -> None:
        if code == "peer_unavailable":
            self.endings.append(Ending(index, "deferred", code, "the registry is away"))
        elif code == "identity_mismatch":
            self._refuse_stranger(index, delivery, child)
        else:
            self._refuse(index, ("", "unknown"), code, f"{delivery.device} may not speak for {child[:64]}")

    def _hold(self, held: _Held, message: RawMessage) -> None:
        self._held.append(held)
        self.refused.append(Refused(message, held.items))

    def _hold_unknown(self, index: int, delivery: Delivery, protocol: str, code: str, detail: str) -> None:
        child = route(delivery.topic)[2]
        sender = child if (delivery.device, child) in self._children.known else delivery.device
        raw = RawMessage(sender, protocol[:64], "mqtt", delivery.payload, delivery.received_ns, delivery.topic)
        label = protocol if protocol in self._protocols else "unknown"  # a metric's labels must stay few
        self._hold(_Held(index, ("", label), [], [Item(None, code, detail)]), raw)

    def _refuse(self, index: int, whose: Whose, code: str, detail: str) -> None:
        self.endings.append(Ending(index, "refused", code, detail))
        self.counts[(*whose, "refused")] += 1

    def _refuse_stranger(self, index: int, delivery: Delivery, named: str) -> None:
        detail = f"the topic names {named}"
        self._refuse(index, ("", "unknown"), "identity_mismatch", detail)
        tenant, said = self._ports.gate.tenant_of(delivery.device), f"over MQTT: {detail}"
        entry = AuditEntry(
            f"device:{delivery.device}", "telemetry.identity_mismatch", f"device:{named}", said, tenant=tenant
        )
        self._ports.reports.note_attempt(entry)


def not_kept(item: Item) -> Item:
    """Give what a device is told of data that is refused because its share of the quarantine is full."""
    return item._replace(code="quarantine_full", detail=f"{item.code}: {item.detail}; {DEVICE_FULL}")


def _whose(message: Message) -> Whose:
    return message.device.tenant, message.protocol.name


def _route_of(delivery: Delivery) -> tuple[str, str, str]:
    return (delivery.device, delivery.protocol, "") if delivery.protocol else route(delivery.topic)


@lru_cache(maxsize=MAX_TOPICS)
def route(topic: str) -> tuple[str, str, str]:
    """Give device, protocol and child that a topic names; all empty when it is not one of telemetry."""
    parsed = topics.parse_device_topic(topic)
    if parsed is not None and parsed.channel == "telemetry":
        return parsed.device_id, parsed.rest or DEFAULT_PROTOCOL, ""
    if parsed is None or parsed.channel != "children":
        return "", "", ""
    child, _, rest = parsed.rest.partition("/")
    channel, _, protocol = rest.partition("/")
    return (parsed.device_id, protocol or DEFAULT_PROTOCOL, child) if channel == "telemetry" and child else ("", "", "")
