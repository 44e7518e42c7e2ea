"""The MQTT 3.1.1 and 5 packets of a server: reading what clients send, building what they are told. Knows no socket.

Source: MQTT 3.1.1 and MQTT 5.0 (OASIS), sections 2 and 3. Left out: QoS 2, sessions that outlive a connection, wills
(who is gone is seen by the connection), topic aliases (none are allowed).
"""

from __future__ import annotations

from typing import NamedTuple

V31, V311, V5 = 3, 4, 5
CONNECT, PUBLISH, PUBACK, SUBSCRIBE, UNSUBSCRIBE, PINGREQ, DISCONNECT = 1, 3, 4, 8, 10, 12, 14
PINGRESP_BYTES = b"\xd0\x00"
REFUSED = 0x80  # in a SUBACK
NOT_AUTHORIZED, UNAVAILABLE, UNSPECIFIED, BAD_TOPIC, BAD_PAYLOAD = 0x87, 0x88, 0x83, 0x90, 0x99
_OLD_CODES = {NOT_AUTHORIZED: 5, UNAVAILABLE: 3}  # 3.1.1 s. 3.2.2.3
_MAX_LENGTH_BYTES = 4
_MORE = 0x80  # the bit of a length that goes on
_RECEIVE_MAXIMUM, _MAXIMUM_QOS, _MAXIMUM_PACKET, _SHARED = b"\x21", b"\x24\x01", b"\x27", b"\x2a\x00"
_NAMES = {b"MQTT": (V311, V5), b"MQIsdp": (V31,)}


class PacketError(ValueError):
    """The client does not speak MQTT, or asks for what is not offered: its connection ends."""


class Packet(NamedTuple):
    """A packet as received: type, the four flag bits, and all behind the fixed header."""

    kind: int
    flags: int
    body: bytes


class Connect(NamedTuple):
    """Who a client says to be."""

    version: int
    keepalive_s: int
    client_id: str
    username: str
    password: str


class Publish(NamedTuple):
    """A message; `packet_id` is 0 at QoS 0."""

    topic: str
    payload: bytes
    packet_id: int
    is_again: bool


class Subscribe(NamedTuple):
    """What a client wants to hear, each with the QoS it asks for; of an UNSUBSCRIBE only the filters count."""

    packet_id: int
    filters: list[tuple[str, int]]


class PacketReader:
    """Cut a byte stream into packets; it may be split anywhere."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._buffer = bytearray()

    def feed(self, data: bytes, most: int = -1) -> list[Packet]:
        """Take bytes, give the packets that are now complete, at most so many of them: the others wait.

        Raises:
            PacketError: the length is malformed or over the limit.
        """
        buffer = self._buffer
        buffer += data
        packets, offset = list[Packet](), 0
        while len(buffer) - offset > 1 and len(packets) != most:
            length, start = self._length(offset + 1)
            if not start or start + length > len(buffer):
                break
            first = buffer[offset]
            packets.append(Packet(first >> 4, first & 0x0F, bytes(buffer[start : start + length])))
            offset = start + length
        if offset:
            del buffer[:offset]
        return packets

    def _length(self, offset: int) -> tuple[int, int]:
        """Give the length of a packet and where its body starts; 0 when it is not all there."""
        value = 0
        for index, byte in enumerate(self._buffer[offset : offset + _MAX_LENGTH_BYTES]):
            value |= (byte & 0x7F) << 7 * index
            if byte < _MORE:
                if value > self.max_bytes:
                    raise PacketError(f"a packet of {value} bytes, limit {self.max_bytes}")
                return value, offset + index + 1
        if len(self._buffer) >= offset + _MAX_LENGTH_BYTES:
            raise PacketError("a packet length of more than four bytes")
        return 0, 0


class _Body:
    """Reads the body of a packet from its beginning. All methods raise PacketError where it is cut short."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    @property
    def is_over(self) -> bool:
        return self._at == len(self._body)

    def take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._body):
            raise PacketError("a packet shorter than what it holds")
        found, self._at = self._body[self._at : end], end
        return found

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def binary(self) -> bytes:
        return self.take(self.number(2))

    def text(self) -> str:
        try:
            found = self.binary().decode()
        except UnicodeDecodeError:
            raise PacketError("a text that is not UTF-8") from None
        if "\0" in found:
            raise PacketError("a text with a NUL")
        return found

    def skip_properties(self) -> None:
        length = 0
        for index in range(_MAX_LENGTH_BYTES):
            byte = self.number(1)
            length |= (byte & 0x7F) << 7 * index
            if byte < _MORE:
                self.take(length)
                return
        raise PacketError("a length of properties of more than four bytes")

    def rest(self) -> bytes:
        return self.take(len(self._body) - self._at)


def read_connect(packet: Packet) -> Connect:
    """Read the first packet of a connection. Raises PacketError: it is no CONNECT, or of an unknown version."""
    if packet.kind != CONNECT:
        raise PacketError("the first packet is no CONNECT")
    body = _Body(packet.body)
    versions, version = _NAMES.get(body.binary(), ()), body.number(1)
    if version not in versions:
        raise PacketError("neither MQTT 3.1.1 nor 5")
    flags, keepalive_s = body.number(1), body.number(2)
    if version == V5:
        body.skip_properties()
    client_id = body.text()
    if flags & 0x04:  # a will
        if version == V5:
            body.skip_properties()
        body.binary()
        body.binary()
    username = body.text() if flags & 0x80 else ""
    password = body.binary().decode(errors="replace") if flags & 0x40 else ""
    return Connect(version, keepalive_s, client_id, username, password)


def read_publish(packet: Packet, version: int) -> Publish:
    """Read a message. Raises PacketError: it is cut short, of QoS 2, or its topic is none."""
    body, qos = _Body(packet.body), packet.flags >> 1 & 3
    if qos > 1:
        raise PacketError("a message of QoS 2")
    topic = body.text()
    if not topic or "+" in topic or "#" in topic:
        raise PacketError("not a topic to publish on")
    packet_id = body.number(2) if qos else 0
    if qos and not packet_id:
        raise PacketError("a message of QoS 1 without an id")
    if version == V5:
        body.skip_properties()
    return Publish(topic, body.rest(), packet_id, bool(packet.flags & 0x08))


def read_subscribe(packet: Packet, version: int) -> Subscribe:
    """Read a SUBSCRIBE or UNSUBSCRIBE. Raises PacketError: it is cut short, or names nothing."""
    body = _Body(packet.body)
    packet_id = body.number(2)
    if version == V5:
        body.skip_properties()
    filters = list[tuple[str, int]]()
    while not body.is_over:
        text = body.text()
        filters.append((text, body.number(1) & 3 if packet.kind == SUBSCRIBE else 0))
    if not filters or not packet_id:
        raise PacketError("a subscription to nothing")
    return Subscribe(packet_id, filters)


def read_puback(packet: Packet) -> int:
    """Read the id of the message that a client has taken. Raises PacketError."""
    return _Body(packet.body).number(2)


def connack(version: int, code: int = 0, *, receive_maximum: int = 0, max_bytes: int = 0) -> bytes:
    """Build the answer to a CONNECT; `code` is a reason of MQTT 5."""
    if version != V5:
        return bytes((0x20, 2, 0, _OLD_CODES.get(code, 5) if code else 0))
    properties = b""
    if not code:
        limits = _RECEIVE_MAXIMUM + receive_maximum.to_bytes(2, "big") + _MAXIMUM_PACKET + max_bytes.to_bytes(4, "big")
        properties = limits + _MAXIMUM_QOS + _SHARED
    return bytes((0x20, 3 + len(properties), 0, code, len(properties))) + properties


def puback(version: int, packet_id: int, reason: int = 0) -> bytes:
    """Build the acknowledgement of a message; before MQTT 5 it carries no reason."""
    if version != V5 or not reason:
        return b"\x40\x02" + packet_id.to_bytes(2, "big")
    return b"\x40\x03" + packet_id.to_bytes(2, "big") + bytes((reason,))


def suback(version: int, packet_id: int, codes: list[int]) -> bytes:
    """Build the answer to a SUBSCRIBE: for each filter the QoS granted, or REFUSED."""
    return _framed(0x90, packet_id.to_bytes(2, "big") + (b"\x00" if version == V5 else b"") + bytes(codes))


def unsuback(version: int, packet_id: int, count: int) -> bytes:
    """Build the answer to an UNSUBSCRIBE."""
    return _framed(0xB0, packet_id.to_bytes(2, "big") + (bytes(1 + count) if version == V5 else b""))


def publish(version: int, topic: str, payload: bytes, packet_id: int = 0) -> bytes:
    """Build a message, of QoS 1 when it has an id."""
    name = topic.encode()
    head = len(name).to_bytes(2, "big") + name + (packet_id.to_bytes(2, "big") if packet_id else b"")
    return _framed(0x32 if packet_id else 0x30, head + (b"\x00" if version == V5 else b"") + payload)


def _framed(first: int, body: bytes) -> bytes:
    length, encoded = len(body), bytearray((first,))
    while length >= _MORE:
        encoded.append(length & 0x7F | _MORE)
        length >>= 7
    encoded.append(length)
    return bytes(encoded) + body
