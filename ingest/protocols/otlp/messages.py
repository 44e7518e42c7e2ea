"""OTLP's messages as far as they are read, in Protocol Buffers and in JSON (opentelemetry-proto 1.x, metrics.proto).

JSON is that of proto3 (lowerCamelCase, 64-bit integers as text or number); what is unknown is skipped in both.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable
from typing import Any

import orjson

from ingest.protocols import protobuf
from ingest.protocols.parse import Unreadable, trim

_F = protobuf.Field
MAX_LEVELS = 100  # as Protocol Buffers have it
MAX_DIGITS = 20  # of an integer within 64 bits, with its sign
_TIMES = (_F(3, "time_unix_nano", "fixed64"),)
_EXTREMES = (("min", "double"), ("max", "double"))
_MESSAGES: dict[str, list[_F]] = {
    "Request": [_F(1, "resource_metrics", "ResourceMetrics", is_many=True)],
    "ResourceMetrics": [_F(1, "resource", "Resource"), _F(2, "scope_metrics", "ScopeMetrics", is_many=True)],
    "Resource": [_F(1, "attributes", "KeyValue", is_many=True)],
    "ScopeMetrics": [_F(1, "scope", "Scope"), _F(2, "metrics", "Metric", is_many=True)],
    "Scope": [_F(1, "name", "string")],
    "KeyValue": [_F(1, "key", "string"), _F(2, "value", "AnyValue")],
    "AnyValue": [
        _F(number, name, kind, choice="value") for number, (name, kind) in enumerate((
            ("string_value", "string"), ("bool_value", "bool"), ("int_value", "i64"), ("double_value", "double"),
            ("array_value", "ArrayValue"), ("kvlist_value", "KeyValueList"), ("bytes_value", "bytes"),
        ), 1)
    ],
    "ArrayValue": [_F(1, "values", "AnyValue", is_many=True)],
    "KeyValueList": [_F(1, "values", "KeyValue", is_many=True)],
    "Metric": [
        _F(1, "name", "string"), _F(5, "gauge", "Numbers", choice="data"), _F(7, "sum", "Numbers", choice="data"),
        _F(9, "histogram", "Histogram", choice="data"),
        _F(10, "exponential_histogram", "Exponential", choice="data"), _F(11, "summary", "Summary", choice="data"),
    ],
    "Numbers": [_F(1, "data_points", "NumberPoint", is_many=True)],
    "Histogram": [_F(1, "data_points", "HistogramPoint", is_many=True)],
    "Exponential": [_F(1, "data_points", "ExponentialPoint", is_many=True)],
    "Summary": [_F(1, "data_points", "SummaryPoint", is_many=True)],
    "NumberPoint": [
        *_TIMES, _F(4, "as_double", "double", choice="value"), _F(6, "as_int", "sfixed64", choice="value"),
        _F(7, "attributes", "KeyValue", is_many=True), _F(8, "flags", "u32"),
    ],
    "HistogramPoint": [
        *_TIMES, _F(4, "count", "fixed64"), _F(5, "sum", "double"), _F(6, "bucket_counts", "fixed64", is_many=True),
        _F(7, "explicit_bounds", "double", is_many=True), _F(9, "attributes", "KeyValue", is_many=True),
        _F(10, "flags", "u32"), *(_F(number, *field) for number, field in enumerate(_EXTREMES, 11)),
    ],
    "ExponentialPoint": [
        _F(1, "attributes", "KeyValue", is_many=True), *_TIMES, _F(4, "count", "fixed64"), _F(5, "sum", "double"),
        _F(6, "scale", "s32"), _F(7, "zero_count", "fixed64"), _F(8, "positive", "Buckets"),
        _F(9, "negative", "Buckets"), _F(10, "flags", "u32"),
        *(_F(number, *field) for number, field in enumerate(_EXTREMES, 12)), _F(14, "zero_threshold", "double"),
    ],
    "Buckets": [_F(1, "offset", "s32"), _F(2, "bucket_counts", "u64", is_many=True)],
    "SummaryPoint": [
        *_TIMES, _F(4, "count", "fixed64"), _F(5, "sum", "double"), _F(6, "quantile_values", "Quantile", is_many=True),
        _F(7, "attributes", "KeyValue", is_many=True), _F(8, "flags", "u32"),
    ],
    "Quantile": [_F(1, "quantile", "double"), _F(2, "value", "double")],
    "Response": [_F(1, "partial_success", "PartialSuccess")],
    "PartialSuccess": [_F(1, "rejected_data_points", "i64"), _F(2, "error_message", "string")],
    "Status": [_F(1, "code", "i32"), _F(2, "message", "string")],
}  # fmt: skip

CLASSES = protobuf.declare("headwater.otlp", _MESSAGES)
Request: Any = CLASSES["Request"]
Response: Any = CLASSES["Response"]
Status: Any = CLASSES["Status"]


def parse(content: bytes) -> Any:
    """Parse a request in Protocol Buffers. Raises Unreadable."""
    return protobuf.read(Request, content, "an export request of OTLP")


def parse_json(content: bytes) -> Any:
    """Parse a request in JSON.

    Raises:
        Unreadable: it is none.
    """
    try:
        value = orjson.loads(trim(content))
    except orjson.JSONDecodeError as error:
        raise Unreadable("bad_syntax", f"not JSON: {str(error)[:200]}") from None
    try:
        return Request(**_members("Request", value, 0))
    except (TypeError, ValueError) as error:  # what no field of that kind holds; a text that is no Unicode
        raise Unreadable("bad_structure", f"not an export request of OTLP: {str(error)[:200]}") from None


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(map(str.capitalize, rest))


_BY_KEY = {
    name: {key: field for field in fields for key in (field.name, _camel(field.name))}
    for name, fields in _MESSAGES.items()
}


def _members(message: str, value: Any, level: int) -> dict[str, Any]:
    """Give what a message is made of: its fields by name."""
    if type(value) is not dict:
        raise TypeError(f"{message} is an object")
    if level > MAX_LEVELS:
        raise Unreadable("too_deep", f"nested more than {MAX_LEVELS} deep")
    fields, made = _BY_KEY[message], {}
    for key, given in value.items():
        field = fields.get(key)
        if field is None or given is None:
            continue
        if not field.is_many:
            made[field.name] = _read(field.kind, given, level)
        elif type(given) is list:
            made[field.name] = [_read(field.kind, each, level) for each in given]
        else:
            raise TypeError(f"{key} is an array")
    return made


def _read(kind: str, value: Any, level: int) -> Any:
    if kind in _BY_KEY:
        return _members(kind, value, level + 1)
    return _SCALARS[kind](value) if kind in _SCALARS else _integer(value)


def _integer(value: Any) -> int:
    if type(value) is int:
        return value
    if type(value) is str and len(value) <= MAX_DIGITS and value.isascii() and value.removeprefix("-").isdigit():
        return int(value)
    raise TypeError("an integer is a number or text of digits, of 64 bits")


def _double(value: Any) -> float:
    if type(value) in (float, int):
        return float(value)
    if type(value) is str and "_" not in value:  # NaN, Infinity, -Infinity
        return float(value)
    raise TypeError("not a number")


def _string(value: Any) -> str:
    if type(value) is not str:
        raise TypeError("not a text")
    return value


def _bool(value: Any) -> bool:
    if type(value) is not bool:
        raise TypeError("not a boolean")
    return value


def _bytes(value: Any) -> bytes:
    return b64decode(_string(value), validate=True)


_SCALARS: dict[str, Callable[[Any], Any]] = {
    "double": _double,
    "string": _string,
    "bool": _bool,
    "bytes": _bytes,
}
