"""Sparkplug B's Protocol Buffers messages, declared by their field numbers (Sparkplug 3.0, section 6.4.1).

Declared here and not generated: no compiler of schemas is needed to build or to change the project.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from ingest.protocols.parse import Unreadable

PACKAGE = "headwater.sparkplug"
MAX_BYTES = 1024 * 1024
_Field = descriptor_pb2.FieldDescriptorProto
_KINDS = {
    "u32": _Field.TYPE_UINT32,
    "u64": _Field.TYPE_UINT64,
    "float": _Field.TYPE_FLOAT,
    "double": _Field.TYPE_DOUBLE,
    "bool": _Field.TYPE_BOOL,
    "string": _Field.TYPE_STRING,
    "bytes": _Field.TYPE_BYTES,
}


class _F(NamedTuple):
    """A field: its number, its name, its kind (of `_KINDS`, or a message), and whether there are many of it."""

    number: int
    name: str
    kind: str
    is_many: bool = False
    choice: str = ""  # the oneof it is part of


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


def _declare() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="headwater/sparkplug.proto", package=PACKAGE, syntax="proto2")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        if any(field.choice for field in fields):
            message.oneof_decl.add(name="value")
        for field in fields:
            _add(message, field)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in _MESSAGES
    }


def _add(message: descriptor_pb2.DescriptorProto, field: _F) -> None:
    added = message.field.add(name=field.name, number=field.number)
    added.label = _Field.LABEL_REPEATED if field.is_many else _Field.LABEL_OPTIONAL
    if field.choice:
        added.oneof_index = 0
    if field.kind in _KINDS:
        added.type = _KINDS[field.kind]
    else:
        added.type, added.type_name = _Field.TYPE_MESSAGE, f".{PACKAGE}.{field.kind}"


_CLASSES = _declare()
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
    try:
        return Payload.FromString(content)
    except DecodeError as error:
        raise Unreadable("bad_syntax", f"not a Sparkplug payload: {str(error)[:200]}") from None
