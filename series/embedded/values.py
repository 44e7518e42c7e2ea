"""Field values as SQLite keeps them, exactly: what fits, how it is stored, how it comes back. Knows no SQL.

Columns have no affinity, so a float stays the same eight bytes (-0.0 too) and a text is never taken for a number.
Integers beyond int64 are stored as decimal text, booleans as 0 and 1; the series' field types turn them back.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Any

import msgspec

from wire.points import INT64_MAX, INT64_MIN, UINT64_MAX, FieldValue

FLOAT, INT, BOOL, STRING = range(4)
TYPE_NAMES = ("float", "int", "bool", "string")
PYTHON_TYPES: tuple[type, ...] = (float, int, bool, str)
CODE_OF: dict[type, int] = {kind: code for code, kind in enumerate(PYTHON_TYPES)}

Stored = float | int | str  # as bound to SQLite


class Unfit(Exception):  # noqa: N818 - an outcome of one field or point, not an error of the program
    """A value or name that cannot be kept; `code` is of wire.errors.REASONS."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


def accept(value: FieldValue, known: int | None) -> tuple[int, FieldValue]:
    """Give the type code and the value to keep; an int widens into a float field.

    Args:
        value: as the device sent it.
        known: type code of the field so far, None for a new field.

    Raises:
        Unfit: the value fits no type, or not that of the field.
    """
    code = CODE_OF.get(type(value))
    if code is None:
        raise Unfit("bad_value", f"a value of type {type(value).__name__} cannot be stored")
    ENCODERS[code](value)
    if known is None or known == code:
        return code, value
    if known == FLOAT and code == INT:
        return FLOAT, float(value)
    raise Unfit("type_conflict", f"the field holds {TYPE_NAMES[known]}, the value is {TYPE_NAMES[code]}")


def encode(value: FieldValue) -> Stored:
    """Give the value as it is bound to SQLite; raises Unfit."""
    return ENCODERS[CODE_OF[type(value)]](value)


def decode(stored: Stored, code: int) -> FieldValue:
    """Turn a stored value back into the field's type."""
    if code == INT:
        return int(stored)
    return bool(stored) if code == BOOL else stored


def check_name(text: str, what: str) -> None:
    """Refuse a name that is no Unicode text; anything else is legal here.

    Raises:
        Unfit: it holds half a surrogate pair, which UTF-8 cannot carry.
    """
    if not text.isascii():
        _check_text(text, "bad_name", what)


def _encode_float(value: FieldValue) -> Stored:
    number = float(value)
    if not isfinite(number):
        raise Unfit("nonfinite", f"{value} is not a finite number")
    return number


def _encode_int(value: FieldValue) -> Stored:
    number = int(value)
    if INT64_MIN <= number <= INT64_MAX:
        return number
    if not 0 < number <= UINT64_MAX:
        raise Unfit("out_of_range", "an integer is from -2^63 to 2^64-1")
    return str(number)


def _encode_text(value: FieldValue) -> Stored:
    text = str(value)
    if not text.isascii():
        _check_text(text, "bad_value", "the string")
    return text


def _check_text(text: str, code: str, what: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Unfit(code, f"{what} is not Unicode text: it holds half a surrogate pair") from None


ENCODERS: tuple[Callable[[FieldValue], Stored], ...] = (_encode_float, _encode_int, int, _encode_text)

# Fields beyond the columns of their table live together in one column, `extra`: column number -> stored value.
_extra_encoder = msgspec.msgpack.Encoder()
_extra_decoder = msgspec.msgpack.Decoder(dict[int, float | int | str])


def pack_extra(fields: dict[int, Stored]) -> bytes:
    """Pack the fields that have no column of their own."""
    return _extra_encoder.encode(fields)


def unpack_extra(packed: bytes) -> dict[int, Stored]:
    """Undo `pack_extra`."""
    return _extra_decoder.decode(packed)


def merge_extra(*packed: Any) -> Any:
    """Union of two packed sets, old and new, the new value winning; an SQL function of the writer."""
    old, new = packed
    if old is None or new is None:
        return new if old is None else old
    return pack_extra(unpack_extra(old) | unpack_extra(new))


def pick_extra(*packed_and_number: Any) -> Any:
    """Give one field of a packed set, None when absent; an SQL function of the reader."""
    packed, number = packed_and_number
    return None if packed is None else unpack_extra(packed).get(number)
