"""A query as read: a tree of conditions whose values are already of their kind. Plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from wire.errors import BadRequest

Operator = Literal["=", "<", "<=", ">", ">=", "~"]
Kind = Literal["text", "label", "attribute", "state", "version", "time", "group", "presence"]


@dataclass(slots=True, frozen=True)
class Slot:
    """Stands for a value that is given by this name when the query is asked; see `devices.query.shape`."""

    name: str


Value = str | int | Slot


class BadQuery(BadRequest):
    """A query that cannot be read; says where, and what would fit there."""

    code = "bad_query"

    def __init__(self, detail: str, at: int, length: int, expected: str) -> None:
        where = f" at character {at + 1}: expected {expected}" if expected else f" at character {at + 1}"
        super().__init__(f"{detail}{where}", fields=["q"], position=at, length=length, expected=expected)


@dataclass(slots=True, frozen=True)
class Field:
    """What a condition is about: `tag.site` is name "tag", key "site"."""

    name: str
    kind: Kind
    key: str = ""
    at: int = 0


@dataclass(slots=True, frozen=True)
class Every:
    """All parts hold; of none, always."""

    parts: tuple[Node, ...]


@dataclass(slots=True, frozen=True)
class Some:
    """At least one part holds."""

    parts: tuple[Node, ...]


@dataclass(slots=True, frozen=True)
class Not:
    """The part does not hold."""

    part: Node


@dataclass(slots=True, frozen=True)
class Contains:
    """Id, type, a tag's value or an external name contains a text, whatever the case."""

    text: str


@dataclass(slots=True, frozen=True)
class Is:
    """A mark holds: online, gateway."""

    mark: str


@dataclass(slots=True, frozen=True)
class Has:
    """The device has such a thing at all."""

    field: Field


@dataclass(slots=True, frozen=True)
class Compare:
    """A field stands so to a value; one that the device lacks stands in no way."""

    field: Field
    operator: Operator
    value: Value


@dataclass(slots=True, frozen=True)
class OneOf:
    """A field equals one of the values."""

    field: Field
    values: tuple[Value, ...]


Node = Every | Some | Not | Contains | Is | Has | Compare | OneOf
EVERY_DEVICE: Node = Every(())
