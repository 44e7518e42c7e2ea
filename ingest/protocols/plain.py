"""Values of binary formats as the JSON family holds them: texts as keys, no bytes, a bounded depth.

Knows no format: their decoders give Python values, this makes dicts, lists and scalars of them, and readings of those.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from ingest.protocols.base import MAX_DEPTH, Context, Decoded, Fault
from ingest.protocols.flatten import Refused
from ingest.protocols.json.decoder import Reader, take_all, unreadable
from ingest.protocols.parse import Unreadable
from wire.points import INT64_MIN, UINT64_MAX

MAX_LEVELS = MAX_DEPTH + 1  # a reading's envelope comes on top; flattening says exactly what is too deep
_AS_THEY_ARE = frozenset((str, int, float, bool, type(None), Decimal))


Parse = Callable[[bytes], Any]
Convert = Callable[[Any], Any]


def read(content: bytes, context: Context, parse: Parse, convert: Convert) -> Decoded:
    """Give the readings of a message: an object, or an array of objects, as those of JSON with typed integers.

    Args:
        content: the message.
        context: of the message.
        parse: gives the value that the bytes, at least one, are; raises Unreadable.
        convert: gives what stands for a value of a kind that only this format has; raises Refused.
    """
    if not content:
        return unreadable(Unreadable("no_values", "an empty message"))
    reader = Reader(context, is_typed=True)

    def take(element: Any, index: int, _is_exact: bool) -> None:
        try:
            reader.take(plain(element, convert), index, True)
        except Refused as error:
            reader.decoded.faults.append(Fault(index, error.code, error.detail))

    try:
        value = parse(content)
        take_all(dict(value) if isinstance(value, Mapping) else value, take, is_exact=True, size=len(content))
    except Unreadable as error:
        return unreadable(error)
    return reader.decoded


def plain(value: Any, convert: Convert, level: int = 0) -> Any:
    """Give a value as JSON would hold it: bytes as base64 text, sets and tuples as arrays, keys as text.

    Raises:
        Refused: it is nested too deeply, or of a kind that no field can hold.
    """
    if type(value) in _AS_THEY_ARE:
        return value
    if level > MAX_LEVELS:
        raise Refused("too_deep", f"nested more than {MAX_DEPTH} deep")
    if isinstance(value, Mapping):
        return {_key(key): plain(member, convert, level + 1) for key, member in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(member, convert, level + 1) for member in value]
    if isinstance(value, bytes):
        return b64encode(value).decode()
    return convert(value)


def refuse(value: Any) -> Any:
    """Convert nothing. Raises Refused."""
    raise Refused("bad_value", f"a value of a kind that no field holds: {type(value).__name__}")


def _key(key: Any) -> str:
    if type(key) is str:
        return key
    if type(key) is int and INT64_MIN <= key <= UINT64_MAX:
        return str(key)
    if type(key) is bytes:
        return b64encode(key).decode()
    raise Refused("bad_name", f"a key is a text or an integer of 64 bits, not {type(key).__name__}")
