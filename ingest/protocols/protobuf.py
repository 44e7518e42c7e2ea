"""Protocol Buffers messages declared by their field numbers, and read. Knows no protocol.

Declared and not generated: no compiler of schemas is needed to build or to change the project. Fields that nobody
reads need no declaration: they are skipped. Every field tells whether it was there; text that is no UTF-8 is bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from ingest.protocols.parse import Unreadable

_Field = descriptor_pb2.FieldDescriptorProto
_KINDS = {
    "i32": _Field.TYPE_INT32,
    "s32": _Field.TYPE_SINT32,
    "u32": _Field.TYPE_UINT32,
    "i64": _Field.TYPE_INT64,
    "u64": _Field.TYPE_UINT64,
    "fixed64": _Field.TYPE_FIXED64,
    "sfixed64": _Field.TYPE_SFIXED64,
    "float": _Field.TYPE_FLOAT,
    "double": _Field.TYPE_DOUBLE,
    "bool": _Field.TYPE_BOOL,
    "string": _Field.TYPE_STRING,
    "bytes": _Field.TYPE_BYTES,
}


class Field(NamedTuple):
    """A field: its number, its name, its kind (of `_KINDS`, or a message), and whether there are many of it."""

    number: int
    name: str
    kind: str
    is_many: bool = False
    choice: str = ""  # the oneof it is part of: one a message


def declare(package: str, messages: Mapping[str, Sequence[Field]]) -> dict[str, Any]:
    """Give the class of each message, by name; they may be of each other's."""
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto2")
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for choice in dict.fromkeys(field.choice for field in fields if field.choice):
            message.oneof_decl.add(name=choice)
        for field in fields:
            _add(package, message, field)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}")) for name in messages}


def read(message: Any, content: bytes, what: str) -> Any:
    """Read bytes as a message of a class; `what` names it for a person.

    Raises:
        Unreadable: they are none.
    """
    try:
        return message.FromString(content)
    except DecodeError as error:
        raise Unreadable("bad_syntax", f"not {what}: {str(error)[:200]}") from None


def _add(package: str, message: descriptor_pb2.DescriptorProto, field: Field) -> None:
    added = message.field.add(name=field.name, number=field.number)
    added.label = _Field.LABEL_REPEATED if field.is_many else _Field.LABEL_OPTIONAL
    if field.choice:
        added.oneof_index = 0
    if field.kind in _KINDS:
        added.type = _KINDS[field.kind]
    else:
        added.type, added.type_name = _Field.TYPE_MESSAGE, f".{package}.{field.kind}"
