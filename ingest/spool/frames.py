"""Frames: how readings lie in a spool segment. Pure functions over bytes; knows no file.

A segment is a run of frames. A frame is a header (little endian: magic, u32 body length, u32 crc32, u32 count,
u64 number of its first reading in this slot) and a body (MessagePack: a list of readings as arrays). The numbers make
every loss countable: a damaged frame is the distance between the number that was due and the number found next.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from ingest.readings import Reading
from wire.errors import TooLarge

MAGIC = b"\xf5HWF"  # its first byte never occurs in UTF-8, so device text cannot hold it
FRAME_READINGS = 500  # what one flipped bit may cost
FRAME_BYTES = 1024 * 1024  # larger bodies are halved, down to one reading
MAX_BODY_BYTES = 64 * 1024 * 1024  # a longer length in a header is damage; the largest reading is far below

_HEADER = struct.Struct("<4sIIIQ")
_COVERED = struct.Struct("<IIQ")  # length, count, number: covered by the CRC besides the body
HEADER_BYTES = _HEADER.size


class Body(NamedTuple):
    """Encoded readings that still lack their number; `readings` counts them."""

    content: bytes
    readings: int
    crc: int


class Frame(NamedTuple):
    """A whole and undamaged frame found in a buffer; `body` is a view into it, `end` the offset behind it."""

    first: int
    readings: int
    body: memoryview
    end: int


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Reading])


def encode(readings: Sequence[Reading]) -> Iterator[Body]:
    """Encode readings into bodies of at most FRAME_READINGS each (0.3 us a reading: bench/spool.py).

    Raises:
        TooLarge: a single reading is over MAX_BODY_BYTES.
    """
    for start in range(0, len(readings), FRAME_READINGS):
        yield from _bodies(readings[start : start + FRAME_READINGS])


def _bodies(readings: Sequence[Reading]) -> Iterator[Body]:
    content = _encoder.encode(readings)
    if len(content) <= FRAME_BYTES or len(readings) == 1:
        if len(content) > MAX_BODY_BYTES:
            raise TooLarge(f"reading of {len(content)} bytes, limit {MAX_BODY_BYTES}")
        yield Body(content, len(readings), zlib.crc32(content))
        return
    half = len(readings) // 2
    yield from _bodies(readings[:half])
    yield from _bodies(readings[half:])


def decode(body: bytes | memoryview) -> list[Reading]:
    """Decode a body; raises msgspec.DecodeError (also for what is not a list of readings)."""
    return _decoder.decode(body)


def to_bytes(body: Body, first: int) -> bytes:
    """Give the frame of a body whose first reading has the number `first`."""
    length = len(body.content)
    crc = zlib.crc32(_COVERED.pack(length, body.readings, first), body.crc)
    return _HEADER.pack(MAGIC, length, crc, body.readings, first) + body.content


def claimed_end(buffer: memoryview, offset: int) -> int:
    """Offset behind the frame that a header at `offset` claims; 0 when there is no such header."""
    if len(buffer) - offset < HEADER_BYTES:
        return 0
    magic, length, _, _, _ = _HEADER.unpack_from(buffer, offset)
    return offset + HEADER_BYTES + length if magic == MAGIC and length <= MAX_BODY_BYTES else 0


def read(buffer: memoryview, offset: int) -> Frame | None:
    """Give the frame at `offset`; None when it is damaged or not all there."""
    end = claimed_end(buffer, offset)
    if not end or end > len(buffer):
        return None
    _, length, crc, count, first = _HEADER.unpack_from(buffer, offset)
    body = buffer[offset + HEADER_BYTES : end]
    if zlib.crc32(_COVERED.pack(length, count, first), zlib.crc32(body)) != crc:
        return None
    return Frame(first, count, body, end)


def find(buffer: memoryview, offset: int, least: int) -> tuple[int, Frame] | None:
    """Find the next undamaged frame behind the damage at `offset`, with a number of at least `least`.

    The place that the damaged header claims is tried first: bytes inside a body are never taken for a frame as long
    as the length survived.
    """
    claimed = claimed_end(buffer, offset)
    frame = read(buffer, claimed) if claimed else None
    if frame is not None and frame.first >= least:
        return claimed, frame
    content = bytes(buffer)
    place = content.find(MAGIC, offset + 1)
    while place >= 0:
        frame = read(buffer, place)
        if frame is not None and frame.first >= least:
            return place, frame
        place = content.find(MAGIC, place + 1)
    return None
