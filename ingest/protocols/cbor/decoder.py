"""CBOR (RFC 8949) to records: the shapes of JSON, with typed integers. Knows no device.

Tags that mean nothing here stand for their content. Those that let one byte stand for much (shared values, string
references) or build a value that holds itself are refused; so are numbers whose exponent is a bomb.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import MappingProxyType
from typing import Any
from uuid import UUID

import cbor2

from ingest.protocols.base import Context, Decoded
from ingest.protocols.parse import Unreadable
from ingest.protocols.plain import read, refuse
from wire import clock

MAX_EXPONENT = 400  # powers of ten a float may need, with its digits; a larger one is no measurement
MAX_NUMBER_BITS = 4_096
UUID_BYTES = 16
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def decode(content: bytes, context: Context) -> Decoded:
    """Decode one object or an array of objects."""
    return read(content, context, parse, _convert)


def parse(content: bytes) -> Any:
    """Parse one data item, the whole of it.

    Raises:
        Unreadable: it is not one data item, or holds what is refused.
    """
    stream = io.BytesIO(content)
    try:
        value = cbor2.CBORDecoder(stream, tag_hook=_content, semantic_decoders=TAGS).decode()
    except (cbor2.CBORError, ValueError, OverflowError, RecursionError) as error:
        raise _fault(error) from None
    if stream.tell() != len(content):
        raise Unreadable("trailing_data", f"{len(content) - stream.tell()} bytes after the value")
    return value


class _Refused(Exception):  # noqa: N818 - an answer about the bytes
    """What a tag holds is refused; the message says why."""


def _fault(error: Exception) -> Unreadable:
    cause = error.__cause__ or error
    if isinstance(cause, _Refused):
        return Unreadable("bad_value", str(cause))
    if isinstance(cause, UnicodeDecodeError):
        return Unreadable("bad_encoding", "a text that is not UTF-8")
    if "nesting depth" in str(error):
        return Unreadable("too_deep", "nested deeper than any reading may be")
    return Unreadable("bad_syntax", f"not CBOR: {str(error)[:200]}")


def _convert(value: Any) -> Any:
    return None if value is cbor2.undefined else refuse(value)


def _content(tag: Any, _is_immutable: bool) -> Any:
    return tag.value


def _as_it_stands(value: Any, _is_immutable: bool) -> Any:
    return value


def _refuse(_value: Any, _is_immutable: bool) -> Any:
    raise _Refused("shared values and string references are not taken (tags 25, 28, 29, 256)")


def _epoch_time(value: Any, _is_immutable: bool) -> Any:
    """Give seconds since the epoch (RFC 8949 s. 3.4.2) as text, to the ns as far as a float holds it."""
    if type(value) is int and abs(value) <= clock.MAX_NS // clock.NS_PER_S:
        return clock.format_ns(value * clock.NS_PER_S)
    if type(value) is float and math.isfinite(value) and abs(value) <= clock.MAX_NS // clock.NS_PER_S:
        return clock.format_ns(int(Decimal(repr(value)) * clock.NS_PER_S))
    raise _Refused("a time outside signed 64-bit ns (tag 1)")


def _day(value: Any, _is_immutable: bool) -> Any:
    """Give days since the epoch (RFC 8943) as text."""
    try:
        return (EPOCH + timedelta(days=value)).date().isoformat() if type(value) is int else value
    except OverflowError:
        raise _Refused("a day outside the calendar (tag 100)") from None


def _decimal(value: Any, _is_immutable: bool) -> Decimal:
    exponent, mantissa = _pair(value, 4)
    if abs(exponent) > MAX_EXPONENT:
        raise _Refused(f"a decimal fraction with an exponent above {MAX_EXPONENT} (tag 4)")
    return Decimal(mantissa).scaleb(exponent)


def _bigfloat(value: Any, _is_immutable: bool) -> float:
    exponent, mantissa = _pair(value, 5)
    try:
        return math.ldexp(mantissa, exponent)
    except OverflowError:
        raise _Refused("a bigfloat that no float can hold (tag 5)") from None


def _rational(value: Any, _is_immutable: bool) -> float:
    numerator, denominator = _pair(value, 30)
    if denominator <= 0:
        raise _Refused("a rational whose denominator is not positive (tag 30)")
    return numerator / denominator


def _pair(value: Any, tag: int) -> tuple[int, int]:
    match value:
        case [int(first), int(second)] if max(first.bit_length(), second.bit_length()) <= MAX_NUMBER_BITS:
            return first, second
    raise _Refused(f"not two integers of ordinary size (tag {tag})")


def _uuid(value: Any, _is_immutable: bool) -> Any:
    return str(UUID(bytes=value)) if type(value) is bytes and len(value) == UUID_BYTES else value


# The library's own ways for these would lose digits, compile patterns, read mails or build what never ends.
TAGS: Mapping[int, Callable[[Any, bool], Any]] = MappingProxyType(
    {1: _epoch_time, 4: _decimal, 5: _bigfloat, 30: _rational, 37: _uuid, 100: _day}
    | dict.fromkeys((25, 28, 29, 256), _refuse)
    | dict.fromkeys((0, 35, 36, 52, 54, 258, 260, 261, 1004, 43000, 55799), _as_it_stands)
)
