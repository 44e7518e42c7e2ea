"""The MQTT 3.1.1 and 5 packets that a publishing device needs: building and reading them. Knows no socket.

Source: MQTT 3.1.1 and MQTT 5.0 (OASIS), sections 2 and 3.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple

V311, V5 = 4, 5
CONNECT, CONNACK, PUBLISH, PUBACK = 1, 2, 3, 4
SUBSCRIBE, SUBACK = 8, 9
PINGREQ, DISCONNECT = 12, 14
PINGREQ_BYTES = b"\xc0\x00"
DISCONNECT_BYTES = b"\xe0\x00"  # both versions: reason 0 and no properties may be left out (5.0 s. 3.14.2.1)
REFUSED_LOGIN = frozenset({4, 5, 0x86, 0x87})  # 3.1.1 s. 3.2.2.3, 5.0 s. 3.2.2.2
MAX_INCOMING_BYTES = 1 << 20
_MAX_LENGTH_BYTES = 4
_RETAIN, _DUP, _QOS1, _QOS2 = 0x01, 0x08, 0x02, 0x04
_SUBSCRIBE_FLAGS = 0x02  # 3.1.1 s. 3.8.1

# Properties a CONNACK may carry: identifier -> how its value is laid out (5.0 s. 2.2.2.2).
_PROPERTY_SIZES = {0x11: 4, 0x13: 2, 0x21: 2, 0x22: 2, 0x24: 1, 0x25: 1, 0x27: 4, 0x28: 1, 0x29: 1, 0x2A: 1}
_PROPERTY_STRINGS = frozenset({0x12, 0x15, 0x16, 0x1A, 0x1C, 0x1F})
_USER_PROPERTY = 0x26
_RECEIVE_MAXIMUM, _SERVER_KEEP_ALIVE = 0x21, 0x13


class PacketError(ValueError):
    """The peer does not speak MQTT as we read it."""


class Packet(NamedTuple):
    """A packet as received: type, the four flag bits, and all behind the fixed header."""

    kind: int
    flags: int
    body: bytes


class Connack(NamedTuple):
    """The broker's answer to CONNECT; 0 = accepted."""

    code: int
    receive_maximum: int = 65_535
    keepalive_s: int | None = None


@dataclass(frozen=True, slots=True)
class Will:
    """The last will, QoS 1."""

    topic: str
    payload: bytes
    is_retained: bool = True


class PacketReader:
    """Cut a byte stream into packets; the stream may be split anywhere."""

    def __init__(self, max_bytes: int = MAX_INCOMING_BYTES) -> None:
        self._buffer = bytearray()
        self._max_bytes = max_bytes

    @property
    def is_empty(self) -> bool:
        """Tell whether all that came has been given."""
        return not self._buffer

    def feed(self, data: bytes) -> list[Packet]:
        """Take bytes, give the packets that are now complete.

        Raises:
            PacketError: the length is malformed or over the limit; the connection is of no use any more.
        """
        buffer = self._buffer
        buffer += data
        packets: list[Packet] = []
        offset = 0
        while (frame := self._frame(offset)) is not None:
            start, end = frame
            first = buffer[offset]
            packets.append(Packet(first >> 4, first & 0x0F, bytes(buffer[start:end])))
            offset = end
        if offset:
            del buffer[:offset]
        return packets

    def _frame(self, offset: int) -> tuple[int, int] | None:
        length = shift = 0
        for position in range(offset + 1, min(len(self._buffer), offset + 1 + _MAX_LENGTH_BYTES)):
            byte = self._buffer[position]
            length |= (byte & 0x7F) << shift
            if byte < 0x80:  # noqa: PLR2004 - the continuation bit, 3.1.1 s. 2.2.3
                return self._bounds(position + 1, length)
            shift += 7
        if len(self._buffer) > offset + _MAX_LENGTH_BYTES:
            raise PacketError("remaining length of more than four bytes")
        return None

    def _bounds(self, start: int, length: int) -> tuple[int, int] | None:
        if length > self._max_bytes:
            raise PacketError(f"packet of {length} bytes, limit {self._max_bytes}")
        return (start, start + length) if len(self._buffer) >= start + length else None


class Publisher:
    """Builds the PUBLISH packets of one topic; what does not change is encoded once."""

    __slots__ = ("_properties", "_topic")

    def __init__(self, topic: str, version: int) -> None:
        self._topic = _text(topic)
        self._properties = b"\x00" if version == V5 else b""

    def qos0(self, payload: bytes, *, retain: bool = False) -> bytes:
        """Build a packet that nobody acknowledges."""
        body = self._topic + self._properties + payload
        return bytes((PUBLISH << 4 | (_RETAIN if retain else 0),)) + encode_length(len(body)) + body

    def qos1(self, payload: bytes, packet_id: int, *, dup: bool = False) -> bytes:
        """Build a packet that is acknowledged by its id; `dup` marks a second delivery."""
        topic, properties = self._topic, self._properties
        length = len(topic) + 2 + len(properties) + len(payload)
        head = _QOS1_HEADS[length] if not dup and length < len(_QOS1_HEADS) else _qos1_head(length, dup=dup)
        return b"".join((head, topic, packet_id.to_bytes(2, "big"), properties, payload))


@dataclass(frozen=True, slots=True)
class Connect:
    """A CONNECT packet: clean start, last will, user name and password when given."""

    client_id: str
    version: int
    keepalive_s: int
    username: str = ""
    password: str = ""
    will: Will | None = None

    def encode(self) -> bytes:
        """Build the packet (3.1.1 s. 3.1, 5.0 s. 3.1)."""
        properties = b"\x00" if self.version == V5 else b""
        flags = 0x02 | (0x80 if self.username else 0) | (0x40 if self.password else 0)
        payload = _text(self.client_id)
        if self.will is not None:
            flags |= 0x04 | 0x08 | (0x20 if self.will.is_retained else 0)  # will, QoS 1, retained
            payload += properties + _text(self.will.topic) + _binary(self.will.payload)
        payload += _text(self.username) if self.username else b""
        payload += _text(self.password) if self.password else b""
        head = _text("MQTT") + bytes((self.version, flags)) + struct.pack("!H", self.keepalive_s) + properties
        return bytes((CONNECT << 4,)) + encode_length(len(head) + len(payload)) + head + payload


def subscribe(topic: str, packet_id: int, version: int, *, qos: int = 0) -> bytes:
    """Build a SUBSCRIBE to one topic (3.1.1 s. 3.8, 5.0 s. 3.8)."""
    properties = b"\x00" if version == V5 else b""
    body = packet_id.to_bytes(2, "big") + properties + _text(topic) + bytes((qos,))
    return bytes((SUBSCRIBE << 4 | _SUBSCRIBE_FLAGS,)) + encode_length(len(body)) + body


def puback(packet_id: int) -> bytes:
    """Build the acknowledgement of a message (3.1.1 s. 3.4; 5.0 s. 3.4.2.1: without a reason it is success)."""
    return bytes((PUBACK << 4, 2)) + packet_id.to_bytes(2, "big")


def encode_length(length: int) -> bytes:
    """Write a variable byte integer (3.1.1 s. 2.2.3)."""
    if length < 0x80:  # noqa: PLR2004 - fits one byte: nearly every telemetry packet of a small device
        return bytes((length,))
    encoded = bytearray()
    while True:
        length, byte = length >> 7, length & 0x7F
        encoded.append(byte | 0x80 if length else byte)
        if not length:
            return bytes(encoded)


def _qos1_head(length: int, *, dup: bool) -> bytes:
    return bytes((PUBLISH << 4 | _QOS1 | (_DUP if dup else 0),)) + encode_length(length)


_QOS1_HEADS = tuple(_qos1_head(length, dup=False) for length in range(1024))  # of nearly all telemetry there is


def read_connack(body: bytes, version: int) -> Connack:
    """Read the broker's answer.

    Raises:
        PacketError: it is cut short, or carries a property that MQTT 5 does not allow there.
    """
    if len(body) < 2:  # noqa: PLR2004 - flags and code
        raise PacketError("CONNACK cut short")
    if version != V5 or len(body) == 2:  # noqa: PLR2004
        return Connack(body[1])
    found = _read_properties(body, 2)
    return Connack(body[1], found.get(_RECEIVE_MAXIMUM, 65_535), found.get(_SERVER_KEEP_ALIVE))


def read_puback(body: bytes) -> tuple[int, int]:
    """Read packet id and reason; without a reason (3.1.1, or success under 5.0) it is 0.

    Raises:
        PacketError: it is cut short.
    """
    if len(body) < 2:  # noqa: PLR2004 - the packet id
        raise PacketError("PUBACK cut short")
    return body[0] << 8 | body[1], body[2] if len(body) > 2 else 0  # noqa: PLR2004


def read_publish(packet: Packet, version: int) -> tuple[str, bytes, int]:
    """Read topic, payload and packet id (0 at QoS 0) of a PUBLISH.

    Raises:
        PacketError: it is cut short, or came at QoS 2, which was not asked for.
    """
    body, packet_id = packet.body, 0
    end = start = 2 + int.from_bytes(body[:2], "big")
    if packet.flags & _QOS1:
        start += 2
        packet_id = int.from_bytes(body[end:start], "big")
    if packet.flags & _QOS2 or len(body) < start:
        raise PacketError("PUBLISH cut short, or of QoS 2")
    if version == V5:
        length, start = _read_length(body, start)
        start += length
    return body[2:end].decode(errors="replace"), body[start:], packet_id


def _read_properties(body: bytes, offset: int) -> dict[int, int]:
    length, position = _read_length(body, offset)
    end = position + length
    if end > len(body):
        raise PacketError("properties cut short")
    found: dict[int, int] = {}
    while position < end:
        identifier = body[position]
        size = _property_size(body, position + 1, identifier)
        if identifier in _PROPERTY_SIZES:
            found[identifier] = int.from_bytes(body[position + 1 : position + 1 + size], "big")
        position += 1 + size
    if position != end:
        raise PacketError("property cut short")
    return found


def _property_size(body: bytes, position: int, identifier: int) -> int:
    if identifier in _PROPERTY_SIZES:
        return _PROPERTY_SIZES[identifier]
    if identifier not in _PROPERTY_STRINGS and identifier != _USER_PROPERTY:
        raise PacketError(f"property {identifier:#x} in a CONNACK")
    size = 2 + int.from_bytes(body[position : position + 2], "big")
    if identifier == _USER_PROPERTY:
        size += 2 + int.from_bytes(body[position + size : position + size + 2], "big")
    return size


def _read_length(body: bytes, offset: int) -> tuple[int, int]:
    value = shift = 0
    for position in range(offset, min(len(body), offset + _MAX_LENGTH_BYTES)):
        value |= (body[position] & 0x7F) << shift
        if body[position] < 0x80:  # noqa: PLR2004
            return value, position + 1
        shift += 7
    raise PacketError("variable byte integer cut short")


def _text(text: str) -> bytes:
    return _binary(text.encode())


def _binary(data: bytes) -> bytes:
    return struct.pack("!H", len(data)) + data
