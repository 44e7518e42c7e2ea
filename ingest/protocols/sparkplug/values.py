"""Values of Sparkplug metrics, by their data types (Sparkplug 3.0, section 6.4.16). Pure.

Clients disagree about negative integers: some send them cut to their width, some sign-extended to 32 bits. Both are
right here; anything else that does not fit the declared width is out of range.
"""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import orjson

from ingest.protocols.base import MAX_STRING_BYTES
from ingest.protocols.flatten import Refused
from ingest.protocols.sparkplug.packed import BOOLEANS, ELEMENTS, STRINGS, read_array
from wire import clock
from wire.points import FieldValue

DATETIME, DATASET, BYTES, FILE = 13, 16, 17, 18
UNKNOWN = 0
SIGNED = {1: 8, 2: 16, 3: 32, 4: 64}  # bits by data type
UNSIGNED = {5: 8, 6: 16, 7: 32, 8: 64}
WIDTHS = (32, 64)  # of the fields that carry integers
TYPE_NAMES = dict(
    enumerate(
        (
            "Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64", "Float", "Double", "Boolean",
            "String", "DateTime", "Text", "UUID",
        ),
        1,
    )
)  # fmt: skip


def read(holder: Any, datatype: int) -> FieldValue:
    """Give the value of a metric, or of an element of a dataset.

    Args:
        holder: the message with the field `value`.
        datatype: what it is declared to be; 0: by what it is carried in.

    Raises:
        Refused: there is none, it is of another kind than declared, or outside its range.
    """
    carried = holder.WhichOneof("value")
    if carried is None:
        raise Refused("bad_value", "a metric without a value that does not say that it is null")
    reader = _READERS.get(datatype)
    if reader is None:
        raise Refused("unsupported", f"data type {datatype}")
    return reader(getattr(holder, carried), carried, datatype)


def _integer(value: Any, carried: str, datatype: int) -> int:
    if carried not in ("int_value", "long_value"):
        raise _mismatch(carried, datatype)
    number = int(value)
    if (unsigned := UNSIGNED.get(datatype)) is not None:
        if number >> unsigned:
            raise Refused("out_of_range", f"{number} in an unsigned integer of {unsigned} bits")
        return number
    bits = SIGNED[datatype]
    if number >> bits and not any(0 < (1 << wide) - number <= 1 << bits - 1 for wide in WIDTHS):
        raise Refused("out_of_range", f"{number} in a signed integer of {bits} bits")
    number &= (1 << bits) - 1
    return number - (1 << bits) if number >> bits - 1 else number


def _float(value: Any, carried: str, datatype: int) -> float:
    if carried not in ("float_value", "double_value"):
        raise _mismatch(carried, datatype)
    if not math.isfinite(value):
        raise Refused("nonfinite", "not a finite number")
    return float(value)


def _boolean(value: Any, carried: str, datatype: int) -> bool:
    if carried != "boolean_value":
        raise _mismatch(carried, datatype)
    return bool(value)


def text(value: Any) -> str:
    """Give a text; the parser hands one that is not UTF-8 out as bytes. Raises Refused."""
    if not isinstance(value, str):
        raise Refused("bad_encoding", "a text that is not UTF-8")
    return value


def _text(value: Any, carried: str, datatype: int) -> str:
    if carried != "string_value":
        raise _mismatch(carried, datatype)
    return _short(text(value))


def _time(value: Any, carried: str, datatype: int) -> str:
    if carried != "long_value":
        raise _mismatch(carried, datatype)
    if value > clock.MAX_NS // clock.NS_PER_MS:
        raise Refused("out_of_range", "a time outside signed 64-bit ns")
    return clock.format_ns(value * clock.NS_PER_MS)


def _bytes(value: Any, carried: str, datatype: int) -> str:
    if carried != "bytes_value":
        raise _mismatch(carried, datatype)
    return _short(b64encode(value).decode())


def _array(value: Any, carried: str, datatype: int) -> str:
    if carried != "bytes_value":
        raise _mismatch(carried, datatype)
    return _short(orjson.dumps(read_array(value, datatype)).decode())


def _dataset(value: Any, carried: str, datatype: int) -> str:
    if carried != "dataset_value":
        raise _mismatch(carried, datatype)
    columns, types = [text(column) for column in value.columns], list(value.types)
    if not len(columns) == len(types) == value.num_of_columns:
        raise Refused("bad_structure", "a dataset whose columns, types and their number disagree")
    rows = [_row(row.elements, types) for row in value.rows]
    named = [TYPE_NAMES.get(datatype, str(datatype)) for datatype in types]
    return _short(orjson.dumps({"columns": columns, "types": named, "rows": rows}).decode())


def _row(elements: Any, types: list[int]) -> list[FieldValue | None]:
    if len(elements) != len(types):
        raise Refused("bad_structure", "a row of a dataset that is not as long as its columns")
    return [_element(element, datatype) for element, datatype in zip(elements, types, strict=True)]


def _element(element: Any, datatype: int) -> FieldValue | None:
    if element.WhichOneof("value") is None:
        return None
    if datatype not in TYPE_NAMES:
        raise Refused("unsupported", f"data type {datatype} in a dataset")
    return read(element, datatype)


def _guess(value: Any, carried: str, _datatype: int) -> FieldValue:
    """Give a value whose type nobody declared, as it is carried."""
    if carried in ("int_value", "long_value"):
        return int(value)
    return _BY_CARRIER.get(carried, _text)(value, carried, UNKNOWN)


def _short(value: str) -> str:
    if len(value) > MAX_STRING_BYTES // 4 and len(value.encode()) > MAX_STRING_BYTES:
        raise Refused("too_large", f"a text of more than {MAX_STRING_BYTES} bytes")
    return value


def _mismatch(carried: str, datatype: int) -> Refused:
    return Refused("bad_value", f"data type {datatype} carried as {carried.removesuffix('_value')}")


_BY_CARRIER: dict[str, Callable[[Any, str, int], FieldValue]] = {
    "float_value": _float,
    "double_value": _float,
    "boolean_value": _boolean,
    "bytes_value": _bytes,
    "dataset_value": _dataset,
}
_READERS: dict[int, Callable[[Any, str, int], FieldValue]] = {
    UNKNOWN: _guess,
    **dict.fromkeys((*SIGNED, *UNSIGNED), _integer),
    **dict.fromkeys((9, 10), _float),
    11: _boolean,
    **dict.fromkeys((12, 14, 15), _text),
    DATETIME: _time,
    DATASET: _dataset,
    **dict.fromkeys((BYTES, FILE), _bytes),
    **dict.fromkeys((*ELEMENTS, BOOLEANS, STRINGS), _array),
}
