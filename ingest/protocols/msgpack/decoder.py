"""MessagePack to records: the shapes of JSON, with typed integers. Knows no device."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import msgpack

from ingest.protocols.base import Context, Decoded
from ingest.protocols.flatten import Refused
from ingest.protocols.parse import Unreadable
from ingest.protocols.plain import read, refuse
from wire import clock


def decode(content: bytes, context: Context) -> Decoded:
    """Decode one object or an array of objects."""
    return read(content, context, _parse, _convert)


def _parse(content: bytes) -> Any:
    """Parse one value, the whole of it.

    Raises:
        Unreadable: it is not one value.
    """
    try:
        return msgpack.unpackb(content, strict_map_key=False, timestamp=0)
    except msgpack.ExtraData as error:
        raise Unreadable("trailing_data", f"{len(error.extra)} bytes after the value") from None
    except msgpack.StackError:
        raise Unreadable("too_deep", "nested deeper than any reading may be") from None
    except UnicodeDecodeError:
        raise Unreadable("bad_encoding", "a text that is not UTF-8") from None
    except (ValueError, TypeError, msgpack.UnpackException) as error:  # TypeError: a map or an array as a key
        raise Unreadable("bad_syntax", f"not MessagePack: {str(error)[:200] or type(error).__name__}") from None


def _convert(value: Any) -> Any:
    """Give a timestamp (extension type -1) as RFC 3339 text, exact to the ns; other extensions as their bytes."""
    if isinstance(value, msgpack.Timestamp):
        time_ns = value.to_unix_nano()
        if not clock.MIN_NS <= time_ns <= clock.MAX_NS:
            raise Refused("bad_time", "a timestamp outside signed 64-bit ns")
        return clock.format_ns(time_ns)
    return b64encode(value.data).decode() if isinstance(value, msgpack.ExtType) else refuse(value)
