"""The shape of a query: what is left of it without those values that make no difference to its SQL. Pure functions."""

from __future__ import annotations

from dataclasses import replace

from devices.query.tree import Compare, Every, Has, Node, Not, OneOf, Slot, Some, Value

_PLAIN = ("text", "label", "time")  # kinds of fields whose values are compared as they are


def lift(tree: Node) -> tuple[Node, dict[str, Value]]:
    """Put slots into the places of values; give the values by the names of their slots."""
    values: dict[str, Value] = {}
    return _lift(tree, values), values


def _lift(node: Node, values: dict[str, Value]) -> Node:
    match node:
        case Every(parts):
            return Every(tuple(_lift(part, values) for part in parts))
        case Some(parts):
            return Some(tuple(_lift(part, values) for part in parts))
        case Not(part):
            return Not(_lift(part, values))
        case Compare(field, operator, value) if field.kind in _PLAIN and operator != "~":
            slot = Slot(f"slot_{len(values)}")  # SQLAlchemy's own names are those of columns with a number
            values[slot.name] = value
            return Compare(replace(field, at=0), operator, slot)
    return node


def names_group(node: Node) -> bool:
    """Tell whether a query names a group anywhere."""
    match node:
        case Every(parts) | Some(parts):
            return any(names_group(part) for part in parts)
        case Not(part):
            return names_group(part)
        case Compare(field, _, _) | OneOf(field, _) | Has(field):
            return field.kind == "group"
    return False
