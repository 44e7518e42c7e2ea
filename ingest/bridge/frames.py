"""Cuts the broker's byte stream into messages, a whole receive buffer at a time. Knows no socket and no client.

MQTT 3.1.1 and 5; of the properties that MQTT 5 adds to a PUBLISH none is of use here, so they are passed over.
"""

from __future__ import annotations

from ingest.bridge.arrivals import Arrivals
from ingest.framing import Delivery

PUBLISH = 0x30
MAX_PACKET_BYTES = 1024 * 1024  # larger ones are refused unread: the broker should not have let them in
HEAD_BYTES = 2 + 65_535 + 2  # of a PUBLISH before its payload: topic length, topic, message id


class Frames:
    """One connection's incoming stream. Not thread-safe.

    `feed` leaves what it found in `others` (whole packets that are not PUBLISH) and `oversized` (messages without their
    payload); the caller empties them.
    """

    def __init__(self, arrivals: Arrivals, *, has_properties: bool = False) -> None:
        """`has_properties`: the stream is MQTT 5."""
        self.others: list[bytes] = []
        self.oversized: list[Delivery] = []
        self._take = arrivals.take
        self._begin = arrivals.begin
        self._has_properties = has_properties
        self._rest = b""
        self._skip = 0

    def feed(self, chunk: bytes) -> list[Delivery]:
        """Take the next bytes and give the messages that are now complete, in order.

        Raises:
            ConnectionError: the bytes are not MQTT.
        """
        data = self._rest + chunk if self._rest else chunk
        self._begin()
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

    def _pass_over(self, available: int) -> int:
        passed = min(self._skip, available)
        self._skip -= passed
        return passed

    def _read(self, data: bytes, first: int, body: int, stop: int) -> Delivery | None:
        name, mid, start = _read_head(data, first, body, stop)
        if self._has_properties:
            start = _pass_properties(data, start, stop)
        return self._take(name, data[start:stop], mid, first)

    def _refuse_oversized(self) -> None:
        data = self._rest
        size, body = _long_size(data, 1)
        if size <= MAX_PACKET_BYTES:
            return
        if data[0] & 0xF0 != PUBLISH:
            raise ConnectionError("a control packet over 1 MiB")
        name, mid, _ = _read_head(data, data[0], body, len(data))
        delivery = self._take(name, b"", mid, data[0])
        if delivery is not None:
            self.oversized.append(delivery)
        self._skip = body + size - len(data)
        self._rest = b""


def _read_head(data: bytes, first: int, body: int, stop: int) -> tuple[bytes, int, int]:
    """Give the topic, the message id (0: none) and where what follows starts."""
    start = body + 2 + (data[body] << 8 | data[body + 1]) if stop - body >= 2 else stop + 1  # noqa: PLR2004
    mid = 0
    if first & 6:
        mid = data[start] << 8 | data[start + 1] if start + 2 <= stop else 0
        start += 2
    if start > stop:
        raise ConnectionError("a PUBLISH shorter than its topic")
    return data[body + 2 : start - 2 if first & 6 else start], mid, start


def _pass_properties(data: bytes, start: int, stop: int) -> int:
    if start < stop and not data[start]:
        return start + 1  # none, nearly always
    size, begin = _long_size(data[:stop], start)
    if not begin or begin + size > stop:
        raise ConnectionError("a PUBLISH shorter than its properties")
    return begin + size


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
