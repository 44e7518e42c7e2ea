"""Sparkplug B's Protocol Buffers messages, declared by their field numbers (Sparkplug 3.0, section 6.4.1)."""

from __future__ import annotations

from typing import Any

from ingest.protocols import protobuf
from ingest.protocols.parse import Unreadable

_F = protobuf.Field
MAX_BYTES = 1024 * 1024


def _values(first: int, *kinds: tuple[str, str]) -> list[_F]:
    return [_F(number, f"{name}_value", kind, choice="value") for number, (name, kind) in enumerate(kinds, first)]


_PLAIN = (
    ("int", "u32"),
    ("long", "u64"),
    ("float", "float"),
    ("double", "double"),
    ("boolean", "bool"),
    ("string", "string"),
)
_MESSAGES: dict[str, list[_F]] = {
    "Payload": [
        _F(1, "timestamp", "u64"), _F(2, "metrics", "Metric", is_many=True), _F(3, "seq", "u64"),
        _F(4, "uuid", "string"), _F(5, "body", "bytes"),
    ],
    "Metric": [
        _F(1, "name", "string"), _F(2, "alias", "u64"), _F(3, "timestamp", "u64"), _F(4, "datatype", "u32"),
        _F(5, "is_historical", "bool"), _F(6, "is_transient", "bool"), _F(7, "is_null", "bool"),
        _F(8, "metadata", "MetaData"), _F(9, "properties", "PropertySet"),
        *_values(10, *_PLAIN, ("bytes", "bytes"), ("dataset", "DataSet"), ("template", "Template")),
    ],
    "MetaData": [_F(2, "content_type", "string"), _F(3, "size", "u64"), _F(6, "file_type", "string")],
    "PropertySet": [_F(1, "keys", "string", is_many=True), _F(2, "values", "PropertyValue", is_many=True)],
    "PropertyValue": [_F(1, "type", "u32"), _F(2, "is_null", "bool"), *_values(3, *_PLAIN)],
    "DataSet": [
        _F(1, "num_of_columns", "u64"), _F(2, "columns", "string", is_many=True), _F(3, "types", "u32", is_many=True),
        _F(4, "rows", "Row", is_many=True),
    ],
    "Row": [_F(1, "elements", "Element", is_many=True)],
    "Element": _values(1, *_PLAIN),
    "Template": [
        _F(1, "version", "string"), _F(2, "metrics", "Metric", is_many=True), _F(4, "template_ref", "string"),
        _F(5, "is_definition", "bool"),
    ],
}  # fmt: skip

_CLASSES = protobuf.declare("headwater.sparkplug", _MESSAGES)
Payload: Any = _CLASSES["Payload"]
Metric: Any = _CLASSES["Metric"]


def parse(content: bytes) -> Any:
    """Parse a payload as it stands, compressed or not.

    Raises:
        Unreadable: it is empty, too large, or not such a message.
    """
    if not content:
        raise Unreadable("no_values", "an empty message")
    if len(content) > MAX_BYTES:
        raise Unreadable("too_large", f"a payload of {len(content)} bytes, limit {MAX_BYTES}")
    return protobuf.read(Payload, content, "a Sparkplug payload")
