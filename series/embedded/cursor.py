"""Opaque cursors: the key of the last thing a page held, so that they stay right while writing goes on."""

from __future__ import annotations

import base64
import binascii

import msgspec

from series.embedded.catalog import Key
from wire.errors import BadRequest


class RangeCursor(msgspec.Struct, array_like=True, forbid_unknown_fields=True, tag="r"):
    """The last point of a page of points."""

    time_ns: int
    device: str
    measurement: str
    tags: str


class LatestCursor(msgspec.Struct, array_like=True, forbid_unknown_fields=True, tag="l"):
    """The last series of a page of latest values."""

    device: str
    measurement: str
    tags: str


_decoder = msgspec.msgpack.Decoder(RangeCursor | LatestCursor)


def after_point(time_ns: int, key: Key) -> str:
    """Make the cursor that goes on after a point."""
    return _pack(RangeCursor(time_ns, *key[1:]))


def after_series(key: Key) -> str:
    """Make the cursor that goes on after a series."""
    return _pack(LatestCursor(*key[1:]))


def read_range(text: str) -> RangeCursor:
    """Read a cursor of `after_point`; raises BadRequest."""
    cursor = _unpack(text)
    if not isinstance(cursor, RangeCursor):
        raise BadRequest("the cursor is not one of a range query", fields=["cursor"])
    return cursor


def read_latest(text: str) -> LatestCursor:
    """Read a cursor of `after_series`; raises BadRequest."""
    cursor = _unpack(text)
    if not isinstance(cursor, LatestCursor):
        raise BadRequest("the cursor is not one of a latest query", fields=["cursor"])
    return cursor


def _pack(cursor: RangeCursor | LatestCursor) -> str:
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(cursor)).decode().rstrip("=")


def _unpack(text: str) -> RangeCursor | LatestCursor:
    try:
        packed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        cursor: RangeCursor | LatestCursor = _decoder.decode(packed)
    except (binascii.Error, ValueError, msgspec.DecodeError) as error:
        raise BadRequest("the cursor is not one of ours", fields=["cursor"]) from error
    return cursor
