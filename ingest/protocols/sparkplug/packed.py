"""Compressed payloads and arrays packed into bytes (Sparkplug 3.0, sections 6.4.16 and 6.4.17). Pure."""

from __future__ import annotations

import struct
import zlib
from typing import Any

from ingest.protocols.flatten import Refused
from ingest.protocols.parse import Unreadable
from ingest.protocols.sparkplug.messages import MAX_BYTES, parse
from wire import clock

COMPRESSED = "SPBV1.0_COMPRESSED"
GZIP_BITS, ZLIB_BITS, RAW_BITS = 31, 15, -15  # of zlib.decompressobj
BOOLEANS, STRINGS, TIMES = 32, 33, 34
# Little-endian elements of the array types 22 to 31 and 34, by data type.
ELEMENTS = {22: "b", 23: "h", 24: "i", 25: "q", 26: "B", 27: "H", 28: "I", 29: "Q", 30: "f", 31: "d", 34: "q"}
COUNT_BYTES = 4


def unpack(content: bytes) -> Any:
    """Parse a payload; one that is compressed is inflated first.

    Raises:
        Unreadable: it cannot be read, or its algorithm is not known.
    """
    payload = parse(content)
    if payload.uuid != COMPRESSED:
        return payload
    names = {metric.name: metric.string_value for metric in payload.metrics}
    algorithm = str(names.get("algorithm", "DEFLATE")).upper()
    ways = {"GZIP": (GZIP_BITS,), "DEFLATE": (ZLIB_BITS, RAW_BITS)}.get(algorithm)
    if ways is None:
        raise Unreadable("unsupported", f"compressed by {algorithm[:32]!r}; known: GZIP, DEFLATE")
    return parse(_inflate(payload.body, ways))


def _inflate(body: bytes, ways: tuple[int, ...]) -> bytes:
    for bits in ways:
        inflater = zlib.decompressobj(bits)
        try:
            content = inflater.decompress(body, MAX_BYTES)
        except zlib.error:
            continue
        if inflater.unconsumed_tail:
            raise Unreadable("too_large", f"a payload of more than {MAX_BYTES} bytes when inflated")
        if not inflater.eof:
            raise Unreadable("bad_syntax", "a compressed payload that is cut off")
        return content
    raise Unreadable("bad_syntax", "a compressed payload that cannot be inflated")


def read_array(content: bytes, datatype: int) -> list[Any]:
    """Give the elements of an array; times as RFC 3339 text.

    Raises:
        Refused: its length does not fit, or a text in it is not UTF-8.
    """
    if datatype == BOOLEANS:
        return _booleans(content)
    if datatype == STRINGS:
        return _strings(content)
    kind = ELEMENTS[datatype]
    count, rest = divmod(len(content), struct.calcsize(f"<{kind}"))
    if rest:
        raise Refused("bad_value", f"an array of {len(content)} bytes: not a whole number of elements")
    elements = list(struct.unpack(f"<{count}{kind}", content))
    return [_time(element) for element in elements] if datatype == TIMES else elements


def _booleans(content: bytes) -> list[bool]:
    if len(content) < COUNT_BYTES:
        raise Refused("bad_value", "an array of booleans without their number")
    (count,) = struct.unpack_from("<I", content)
    if (count + 7) // 8 != len(content) - COUNT_BYTES:
        raise Refused("bad_value", f"an array said to hold {count} booleans in {len(content) - COUNT_BYTES} bytes")
    return [bool(content[COUNT_BYTES + at // 8] & (0x80 >> at % 8)) for at in range(count)]


def _strings(content: bytes) -> list[str]:
    if content and content[-1]:
        raise Refused("bad_value", "an array of texts whose last one does not end in NUL")
    try:
        return [part.decode() for part in content.split(b"\0")[:-1]]
    except UnicodeDecodeError:
        raise Refused("bad_encoding", "a text that is not UTF-8") from None


def _time(milliseconds: int) -> str:
    if not clock.MIN_NS <= milliseconds * clock.NS_PER_MS <= clock.MAX_NS:
        raise Refused("out_of_range", "a time outside signed 64-bit ns")
    return clock.format_ns(milliseconds * clock.NS_PER_MS)
