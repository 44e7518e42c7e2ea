"""Sparkplug B as an edge node speaks it: births, aliases, message numbers, a death for a will. An encoder of its own.

Each simulated device is an edge node `spBv1.0/sim/.../{device}`, known here by the name `spb:sim/{device}`. A birth
tells no values, so that the platform holds the readings and nothing else. Source: Sparkplug 3.0, sections 5 and 6.4.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping
from typing import Any
from zlib import crc32

import orjson

SPARKPLUG = "sparkplug"  # the protocol's name
ROOT, GROUP = "spBv1.0", "sim"
INT64, DOUBLE, BOOLEAN, STRING = 4, 10, 11, 12
TYPES = {"int": INT64, "float": DOUBLE, "bool": BOOLEAN, "string": STRING}
REBIRTH = "Node Control/Rebirth"
SEQUENCE = 256
MILLIS_BELOW = 10**14  # a time below it is in ms, else in us
# Fields of Payload and Metric with their wire types, as they are written.
_TIMESTAMP, _METRIC, _SEQ = 0x08, 0x12, 0x18
_NAME, _ALIAS, _DATATYPE, _IS_NULL = 0x0A, 0x10, 0x20, 0x38
_LONG, _DOUBLE, _BOOLEAN, _STRING = 0x58, 0x69, 0x70, 0x7A


def topic(verb: str, device_id: str) -> str:
    """Give the topic of a node's messages."""
    return f"{ROOT}/{GROUP}/{verb}/{device_id}"


def external_name(device_id: str) -> str:
    """Give the name by which the platform knows a node."""
    return f"spb:{GROUP}/{device_id}"


def claim(device_id: str) -> str:
    """Give the filter of a node's topics."""
    return f"{ROOT}/{GROUP}/+/{device_id}"


def encode(reading: dict[str, Any]) -> bytes:
    """Encode a reading as data with aliases, without its number: that comes when it is sent (`EdgeNode.number`)."""
    ts = reading["ts"] if reading["ts"] < MILLIS_BELOW else reading["ts"] // 1_000
    metrics = (_metric(_named(name), value) for name, value in reading["values"].items())
    return _tag(_TIMESTAMP, ts) + b"".join(metrics)


class EdgeNode:
    """What a node says of itself over all its connections. `kinds` are its metrics: int, float, bool or string."""

    __slots__ = ("_device_id", "_metrics", "_number", "_session")

    def __init__(self, device_id: str, kinds: Mapping[str, str]) -> None:
        self._device_id = device_id
        self._metrics = b"".join(
            _part(_METRIC, _text(_NAME, name) + _alias(name) + _tag(_DATATYPE, TYPES[kind]) + _tag(_IS_NULL, 1))
            for name, kind in kinds.items()
        )
        self._session = self._number = 0

    @property
    def commands(self) -> str:
        """The topic on which it is told something."""
        return topic("NCMD", self._device_id)

    def begin(self) -> tuple[str, bytes]:
        """Begin another session; give the death that the broker tells when its connection breaks."""
        self._session = (self._session + 1) % SEQUENCE
        return self.death()

    def death(self) -> tuple[str, bytes]:
        """Give the end of the session."""
        return topic("NDEATH", self._device_id), _now() + self._session_metric()

    def birth(self) -> tuple[str, bytes]:
        """Give the birth: from it on messages are numbered anew."""
        self._number = 0
        control = _part(_METRIC, _text(_NAME, REBIRTH) + _tag(_DATATYPE, BOOLEAN) + _tag(_BOOLEAN, 0))
        content = _now() + self._session_metric() + control + self._metrics
        return topic("NBIRTH", self._device_id), self.number(content)

    def number(self, content: bytes) -> bytes:
        """Give a message its number."""
        numbered = content + _tag(_SEQ, self._number)
        self._number = (self._number + 1) % SEQUENCE
        return numbered

    def is_asked_for_birth(self, payload: bytes) -> bool:
        """Tell whether a command asks for a birth."""
        return REBIRTH.encode() in payload

    def _session_metric(self) -> bytes:
        return _part(_METRIC, _text(_NAME, "bdSeq") + _tag(_DATATYPE, INT64) + _tag(_LONG, self._session))


def _named(name: str) -> bytes:
    return _alias(name) if name != "pad" else _text(_NAME, name)  # which no birth declares


def _alias(name: str) -> bytes:
    return _tag(_ALIAS, crc32(name.encode()))  # fields of one thing are few: two of the same are not to be feared


def _metric(named: bytes, value: Any) -> bytes:
    datatype, carried = _value(value)
    return _part(_METRIC, named + _tag(_DATATYPE, datatype) + carried)


def _value(value: Any) -> tuple[int, bytes]:
    if isinstance(value, bool):
        return BOOLEAN, _tag(_BOOLEAN, value)
    if isinstance(value, int):
        return INT64, _tag(_LONG, value & (1 << 64) - 1)
    if isinstance(value, float):
        return DOUBLE, bytes((_DOUBLE,)) + struct.pack("<d", value)
    return STRING, _text(_STRING, value if isinstance(value, str) else orjson.dumps(value).decode())


def _now() -> bytes:
    return _tag(_TIMESTAMP, time.time_ns() // 1_000_000)


def _text(tag: int, text: str) -> bytes:
    return _part(tag, text.encode())


def _part(tag: int, content: bytes) -> bytes:
    return bytes((tag,)) + _varint(len(content)) + content


def _tag(tag: int, value: int) -> bytes:
    return bytes((tag,)) + _varint(value)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:  # noqa: PLR2004 - seven bits a byte
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
