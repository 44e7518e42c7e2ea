"""Makes deliveries of what a reader got: topic taken apart, time of receipt, copies of held messages known again."""

from __future__ import annotations

from msgspec.structs import replace

from ingest.bridge.claims import Claims
from ingest.framing import Delivery
from wire import clock
from wire.protocols import HOST_STATES

MAX_ROUTES = 50_000  # topics remembered decoded; about 15 MB, since long ones are not
ROUTE_BYTES = 256
CLOCK_STEP_NS = clock.NS_PER_S
SLOT_NS = clock.NS_PER_MS  # more than the largest message has bytes
NOTICES = ("$SYS/", HOST_STATES.rstrip("+"))
DUP, RETAIN = 8, 1  # bits of a PUBLISH's first byte (MQTT 5.0 s. 3.3.1)


class Arrivals:
    """One connection's messages. Not thread-safe.

    `notices` (of `$SYS/` and of Sparkplug's hosts), `passed` (their message ids) and `retained` (topics on which the
    broker keeps a message that nobody should keep) are
    emptied by the caller, and `unclaimed` (a count of messages of nobody) is set back.

    Args:
        number: which of `bridges` this is, from 1. Each has time slots of its own, so that two of them never give the
            same time to two messages of one device.
        shows_retained: the subscription asks for the retain flag as published (MQTT 5.0 s. 3.8.3.1), and for no old
            messages: a flag means then that the broker keeps the message, not that it is an old one.
        held: un-acked messages of the last connection by message id. When the broker sends one of them again, it keeps
            its first `received_ns`: a reading without a time of its own stays the same point.
    """

    def __init__(
        self,
        held: dict[int, Delivery] | None = None,
        *,
        shows_retained: bool = False,
        number: int = 1,
        bridges: int = 1,
    ) -> None:
        self.notices: list[tuple[str, bytes]] = []
        self.passed: list[int] = []
        self.retained: set[str] = set()
        self.unclaimed, self.unclaimed_topic = 0, ""
        self._claims = Claims()
        self._shows_retained = shows_retained
        self._held = {} if held is None else held
        self._number, self._bridges = number % bridges, bridges
        self._last_ns = 0
        self._routes: dict[bytes, tuple[str, str, str]] = {}

    def learn(self, claims: Claims) -> None:
        """Go by these claims of topics from now on."""
        self._claims = claims
        self._routes.clear()

    def begin(self) -> None:
        """Look at the clock: what is taken next was received now."""
        # Times are made unique by counting up from here: two readings of one device without a time of their own would
        # otherwise share a point. Records of one message count up from its time, so each message is given as many ns
        # as it has bytes: it cannot hold more records. A clock that was set back is followed, not held up.
        now = clock.now_ns()
        if now > self._last_ns or self._last_ns - now > CLOCK_STEP_NS:
            self._last_ns = now

    def take(self, name: bytes, payload: bytes, mid: int, first: int) -> Delivery | None:
        """Give the delivery of one PUBLISH (`first`: its first byte), None when it is no device's message."""
        device, topic, protocol = self._routes.get(name) or self._route(name)
        if not device:
            if topic.startswith(NOTICES):
                self.notices.append((topic, payload))
                self.passed += [mid] if mid else []
                return None
            self.unclaimed, self.unclaimed_topic = self.unclaimed + 1, topic
        received_ns = self._last_ns + 1
        if self._bridges > 1:
            received_ns = self._own_ns(received_ns, len(payload))
        self._last_ns = received_ns + len(payload)
        is_old = bool(first & RETAIN)
        if is_old and self._shows_retained and not protocol:
            if not payload and not mid:
                return None  # our own clearing of a retained message
            if payload and len(self.retained) < MAX_ROUTES:
                self.retained.add(topic)
            is_old = False
        if first & DUP and self._held:
            return self._resumed(Delivery(device, topic, payload, received_ns, mid, True, is_old, False, protocol))
        return Delivery(device, topic, payload, received_ns, mid, bool(first & DUP), is_old, False, protocol)

    def _own_ns(self, time_ns: int, size: int) -> int:
        slot = time_ns // SLOT_NS
        if slot % self._bridges == self._number and (time_ns + size) // SLOT_NS == slot:
            return time_ns
        slot += 1
        return (slot + (self._number - slot) % self._bridges) * SLOT_NS

    def _resumed(self, delivery: Delivery) -> Delivery:
        before = self._held.pop(delivery.mid, None)
        if before is None or before.topic != delivery.topic or before.payload != delivery.payload:
            return delivery
        return replace(delivery, received_ns=before.received_ns, retain=before.retain)

    def _route(self, name: bytes) -> tuple[str, str, str]:
        """Give the device of a topic, the topic, and the protocol of one that is claimed."""
        topic = name.decode("utf-8", "replace")  # the broker checks UTF-8; what is odd is quarantined by the service
        parts = topic.split("/", 2)
        route = (parts[1] if len(parts) > 1 and parts[0] == "devices" else "", topic, "")
        if parts[0] != "devices" and not topic.startswith(NOTICES) and (claim := self._claims.find(topic)) is not None:
            route = (claim.device, topic, claim.protocol)
        if len(self._routes) >= MAX_ROUTES:
            self._routes.clear()
        if len(name) <= ROUTE_BYTES:
            self._routes[name] = route
        return route
