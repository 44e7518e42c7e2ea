"""Cuts the broker's byte stream into messages, a whole receive buffer at a time. Knows no socket and no client.

MQTT 3.1.1 only: under MQTT 5 every PUBLISH carries properties, which doubles the work per message and gives the
bridge nothing it uses (the broker's `persistent_client_expiration` bounds the session's life instead).
"""

from __future__ import annotations

from ingest.framing import Delivery
from wire import clock

PUBLISH = 0x30
MAX_PACKET_BYTES = 1024 * 1024  # larger ones are refused unread: the broker should not have let them in
MAX_ROUTES = 50_000  # topics remembered decoded; about 15 MB, since long ones are not
ROUTE_BYTES = 256
HEAD_BYTES = 2 + 65_535 + 2  # of a PUBLISH before its payload: topic length, topic, message id
CLOCK_STEP_NS = clock.NS_PER_S


class Frames:
    """One connection's incoming stream. Not thread-safe.

    `feed` leaves what it found in `others` (whole packets that are not PUBLISH), `notices` (of `$SYS/`) and
    `oversized` (messages without their payload); the caller empties them.

    Args:
        held: un-acked messages of the last connection by message id. When the broker sends one of them again, it keeps
            its first `received_ns`: a reading without a time of its own stays the same point.
    """

    def __init__(self, held: dict[int, Delivery] | None = None) -> None:
        self.others: list[bytes] = []
        self.notices: list[tuple[str, bytes]] = []
        self.oversized: list[Delivery] = []
        self._held = {} if held is None else held
        self._rest = b""
        self._skip = 0
        self._last_ns = 0
        self._routes: dict[bytes, tuple[str, str]] = {}

    def feed(self, chunk: bytes) -> list[Delivery]:
        """Take the next bytes and give the messages that are now complete, in order.

        Raises:
            ConnectionError: the bytes are not MQTT.
        """
        data = self._rest + chunk if self._rest else chunk
        self._last_ns = self._next_ns()
        deliveries: list[Delivery] = []
        pos, end = self._pass_over(len(data)), len(data)
        while end - pos >= 2:  # noqa: PLR2004 - type and at least one byte of length (MQTT 3.1.1 s. 2.2)
            size, body = data[pos + 1], pos + 2
            if size > 127:  # noqa: PLR2004 - more bytes of length follow (s. 2.2.3)
                size, body = _long_size(data, pos + 1)
            stop = body + size
            if not body or stop > end:
                break
            if data[pos] & 0xF0 != PUBLISH:
                self.others.append(data[pos:stop])
            elif (delivery := self._read(data, data[pos], body, stop)) is not None:
                deliveries.append(delivery)
            pos = stop
        self._rest = data[pos:]
        if len(self._rest) > HEAD_BYTES:
            self._refuse_oversized()
        return deliveries

    def _next_ns(self) -> int:
        # Times are made unique by counting up from here: two readings of one device without a time of their own would
        # otherwise share a point. Records of one message count up from its time, so each message is given as many ns
        # as it has bytes: it cannot hold more records. A clock that was set back is followed, not held up.
        now = clock.now_ns()
        return now if now > self._last_ns or self._last_ns - now > CLOCK_STEP_NS else self._last_ns

    def _pass_over(self, available: int) -> int:
        passed = min(self._skip, available)
        self._skip -= passed
        return passed

    def _read(self, data: bytes, first: int, body: int, stop: int) -> Delivery | None:
        start = body + 2 + (data[body] << 8 | data[body + 1]) if stop - body >= 2 else stop + 1  # noqa: PLR2004
        mid = 0
        if first & 6:
            mid = data[start] << 8 | data[start + 1] if start + 2 <= stop else 0
            start += 2
        if start > stop:
            raise ConnectionError("a PUBLISH shorter than its topic")
        name = data[body + 2 : start - 2 if first & 6 else start]
        device, topic = self._routes.get(name) or self._route(name)
        payload = data[start:stop]
        if not device and topic.startswith("$SYS/"):
            self.notices.append((topic, payload))
            return None
        received_ns = self._last_ns + 1
        self._last_ns = received_ns + len(payload)
        if first & 8 and self._held:
            return self._resumed(Delivery(device, topic, payload, received_ns, mid, True))
        return Delivery(device, topic, payload, received_ns, mid, bool(first & 8), bool(first & 1))

    def _resumed(self, delivery: Delivery) -> Delivery:
        before = self._held.pop(delivery.mid, None)
        if before is None or before.topic != delivery.topic or before.payload != delivery.payload:
            return delivery
        return Delivery(
            delivery.device, delivery.topic, delivery.payload, before.received_ns, delivery.mid, True, before.retain
        )

    def _route(self, name: bytes) -> tuple[str, str]:
        topic = name.decode("utf-8", "replace")  # the broker checks UTF-8; what is odd is quarantined by the service
        parts = topic.split("/", 2)
        route = (parts[1] if len(parts) > 1 and parts[0] == "devices" else "", topic)
        if len(self._routes) >= MAX_ROUTES:
            self._routes.clear()
        if len(name) <= ROUTE_BYTES:
            self._routes[name] = route
        return route

    def _refuse_oversized(self) -> None:
        data = self._rest
        size, body = _long_size(data, 1)
        if size <= MAX_PACKET_BYTES:
            return
        if data[0] & 0xF0 != PUBLISH:
            raise ConnectionError("a control packet over 1 MiB")
        start = body + 2 + (data[body] << 8 | data[body + 1])
        if data[0] & 6:
            start += 2
        delivery = self._read(data, data[0], body, start)
        if delivery is not None:
            self.oversized.append(delivery)
        self._skip = body + size - len(data)
        self._rest = b""


def _long_size(data: bytes, pos: int) -> tuple[int, int]:
    """Read a length of one to four bytes; gives it and where the body starts, or (0, 0) when bytes are missing."""
    size = 0
    for index, byte in enumerate(data[pos : pos + 4]):
        size |= (byte & 127) << 7 * index
        if byte < 128:  # noqa: PLR2004
            return size, pos + index + 1
    if len(data) - pos >= 4:  # noqa: PLR2004
        raise ConnectionError("a packet length of more than four bytes")
    return 0, 0
