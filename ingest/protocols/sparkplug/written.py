"""Commands to edge nodes: metrics by the names, types and aliases of their births (Sparkplug 3.0, s. 6.4.23). Pure.

Data types are written although the specification would rather have them left out: clients cannot read a value without
(sparkplug-payload 1.0.3, pysparkplug 0.6.1). Integers go out as Tahu sends them: 32 bits for up to 32 bits, else 64.
"""

from __future__ import annotations

import binascii
import math
import struct
from base64 import b64decode
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from ingest.protocols.base import MAX_FIELDS, MAX_STRING_BYTES
from ingest.protocols.flatten import Refused
from ingest.protocols.sparkplug import values
from ingest.protocols.sparkplug.messages import Payload
from ingest.protocols.sparkplug.packed import BOOLEANS, ELEMENTS, STRINGS, TIMES
from ingest.protocols.sparkplug.session import Birth
from ingest.protocols.sparkplug.values import BYTES, DATETIME, FILE, SIGNED, TYPE_NAMES, UNSIGNED
from wire import clock
from wire.points import FieldValue

FLOAT, DOUBLE, BOOLEAN, STRING, TEXT, UUID_TEXT = 9, 10, 11, 12, 14, 15
MAX_FLOAT = 3.4028234663852886e38  # of 32 bits
WORD = 32
ARRAY_FLOATS = (30, 31)


def write_all(birth: Birth, wanted: Mapping[str, Any], time_ms: int) -> tuple[bytes, dict[str, FieldValue]]:
    """Give the payload that writes metrics, and the values as they will be read when they are told back.

    Raises:
        Refused: the birth has no metric of a name, or a value does not fit its data type; `detail` names both.
    """
    if not 1 <= len(wanted) <= MAX_FIELDS:
        raise Refused("bad_structure", f'params are {{"metric": value}}, 1 to {MAX_FIELDS} of them')
    names = {name: alias for alias, name in birth.aliases.items()}
    payload, told = Payload(timestamp=time_ms), dict[str, FieldValue]()
    for name, value in wanted.items():
        if name not in birth.types:
            raise Refused("bad_name", f"{name}: the birth has no metric of this name")
        metric = payload.metrics.add()
        if name in names:
            metric.alias = names[name]
        else:
            metric.name = name
        metric.timestamp, metric.datatype = time_ms, birth.types[name]
        told[name] = _write(metric, name, value)
    content: bytes = payload.SerializeToString()
    return content, told


def _write(metric: Any, name: str, value: Any) -> FieldValue:
    writer = _WRITERS.get(metric.datatype)
    if writer is None:
        raise Refused("unsupported", f"{name}: data type {metric.datatype} cannot be written by a command")
    try:
        writer(metric, value, metric.datatype)
        return values.read(metric, metric.datatype)
    except Refused as error:
        raise Refused(error.code, f"{name}: {error.detail}") from None


def _integer(metric: Any, value: Any, datatype: int) -> None:
    bits = SIGNED.get(datatype) or UNSIGNED[datatype]
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if datatype in SIGNED else (0, (1 << bits) - 1)
    number = _whole(value, low, high, TYPE_NAMES[datatype])
    if bits > WORD:
        metric.long_value = number & (1 << 64) - 1
    else:
        metric.int_value = number & (1 << WORD) - 1


def _whole(value: Any, low: int, high: int, what: str) -> int:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or value != math.floor(value):
        raise Refused("bad_value", f"{what} takes a whole number")
    if not low <= value <= high:
        raise Refused("out_of_range", f"{value} in {what}, which goes from {low} to {high}")
    return int(value)


def _number(value: Any, datatype: int) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise Refused("bad_value", f"{TYPE_NAMES[datatype]} takes a number")
    if datatype == FLOAT and abs(value) > MAX_FLOAT:
        raise Refused("out_of_range", f"{value} in Float, which goes to {MAX_FLOAT}")
    return float(value)


def _float(metric: Any, value: Any, datatype: int) -> None:
    setattr(metric, "float_value" if datatype == FLOAT else "double_value", _number(value, datatype))


def _boolean(metric: Any, value: Any, _datatype: int) -> None:
    if not isinstance(value, bool):
        raise Refused("bad_value", "Boolean takes true or false")
    metric.boolean_value = value


def _text_of(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise Refused("bad_value", f"{what} takes a text")
    if len(value.encode()) > MAX_STRING_BYTES:
        raise Refused("too_large", f"a text of more than {MAX_STRING_BYTES} bytes")
    return value


def _text(metric: Any, value: Any, datatype: int) -> None:
    metric.string_value = _text_of(value, TYPE_NAMES[datatype])
    if datatype != UUID_TEXT:
        return
    try:
        UUID(metric.string_value)
    except ValueError:
        raise Refused("bad_value", "UUID takes a text such as 123e4567-e89b-12d3-a456-426614174000") from None


def _time(metric: Any, value: Any, _datatype: int) -> None:
    metric.long_value = _time_ms(value)


def _time_ms(value: Any) -> int:
    if isinstance(value, str):
        try:
            return clock.parse_time(value) // clock.NS_PER_MS
        except ValueError:
            raise Refused("bad_value", "DateTime takes RFC 3339 text or milliseconds") from None
    return _whole(value, 0, clock.MAX_NS // clock.NS_PER_MS, "DateTime")


def _bytes(metric: Any, value: Any, _datatype: int) -> None:
    try:
        metric.bytes_value = b64decode(_text_of(value, "Bytes"), validate=True)
    except binascii.Error:
        raise Refused("bad_value", "Bytes takes Base64") from None


def _array(metric: Any, value: Any, datatype: int) -> None:
    if not isinstance(value, list):
        raise Refused("bad_value", "an array takes a list")
    metric.bytes_value = _pack(value, datatype)
    if len(metric.bytes_value) > MAX_STRING_BYTES:
        raise Refused("too_large", f"an array of more than {MAX_STRING_BYTES} bytes")


def _pack(elements: list[Any], datatype: int) -> bytes:
    if datatype == STRINGS:
        return b"".join(_text_of(each, "String").replace("\0", "").encode() + b"\0" for each in elements)
    if datatype == BOOLEANS:
        return _pack_booleans(elements)
    code = ELEMENTS[datatype]
    if datatype in ARRAY_FLOATS:
        numbers: list[Any] = [_number(each, FLOAT + datatype - ARRAY_FLOATS[0]) for each in elements]
    elif datatype == TIMES:
        numbers = [_time_ms(each) for each in elements]
    else:
        kind = datatype - min(ELEMENTS) + 1  # of an element
        bits = SIGNED.get(kind) or UNSIGNED[kind]
        low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if kind in SIGNED else (0, (1 << bits) - 1)
        numbers = [_whole(each, low, high, TYPE_NAMES[kind]) for each in elements]
    return struct.pack(f"<{len(numbers)}{code}", *numbers)


def _pack_booleans(elements: list[Any]) -> bytes:
    if not all(isinstance(each, bool) for each in elements):
        raise Refused("bad_value", "Boolean takes true or false")
    packed = bytearray((len(elements) + 7) // 8)
    for place, is_set in enumerate(elements):
        packed[place // 8] |= 0x80 >> place % 8 if is_set else 0
    return struct.pack("<I", len(elements)) + bytes(packed)


_WRITERS: dict[int, Callable[[Any, Any, int], None]] = {
    **dict.fromkeys((*SIGNED, *UNSIGNED), _integer),
    **dict.fromkeys((FLOAT, DOUBLE), _float),
    BOOLEAN: _boolean,
    **dict.fromkeys((STRING, TEXT, UUID_TEXT), _text),
    DATETIME: _time,
    **dict.fromkeys((BYTES, FILE), _bytes),
    **dict.fromkeys((*ELEMENTS, BOOLEANS, STRINGS), _array),
}
