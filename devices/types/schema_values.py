"""What schemas of single values and of arrays say, as far as a field of a device type can say it exactly. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeGuard

from wire.devices import MAX_CHOICES, MAX_WHOLE

MAX_ELEMENTS = 32  # ingestion names so many elements of an array; a longer one becomes one text
ARRAY_WORDS = frozenset(("items", "prefixItems", "additionalItems", "minItems", "maxItems"))
_SAYS_NOTHING = ("title", "description", "$comment", "examples", "default")


class Elements(NamedTuple):
    """The elements of an array: place and schema of each, and how many there are at least."""

    schemas: list[tuple[str, dict[str, Any]]]
    least: int


def elements_of(schema: dict[str, Any]) -> Elements | str:
    """Give the elements that a schema of an array names, or why they cannot be fields."""
    word = "prefixItems" if isinstance(schema.get("prefixItems"), list) else "items"
    first = schema.get(word)
    own = list(enumerate(first)) if isinstance(first, list) else []
    others = schema.get("items" if word == "prefixItems" else "additionalItems" if own else "items")
    most, least = schema.get("maxItems"), schema.get("minItems")
    found = [(f"{word}.{at}", each if isinstance(each, dict) else {}) for at, each in own]
    if isinstance(others, dict) and others:
        if not _is_count(most):
            return "an array whose number of elements is not limited (maxItems) is not taken for fields"
        place = "items" if word == "prefixItems" or not own else "additionalItems"
        found += [(place, others)] * (min(most, MAX_ELEMENTS + 1) - len(found))
    if _is_count(most):
        found = found[:most]
    if len(found) > MAX_ELEMENTS:
        return f"an array of more than {MAX_ELEMENTS} elements is one text to a device, it is not taken for fields"
    if not found:
        return "an array that says nothing of its elements is not taken for fields"
    return Elements(found, least if _is_count(least) else 0)


def join_choices(kinds: Sequence[dict[str, Any]], *, is_one: bool) -> dict[str, Any] | None:
    """Give one schema that takes what any (exactly one, with `is_one`) of these takes; None when there is none."""
    bare = [{name: value for name, value in each.items() if name not in _SAYS_NOTHING} for each in kinds]
    named = [_only_values(each) for each in bare]
    if all(each is not None for each in named):
        every = [value for each in named for value in each or ()]
        if len({_kind_of(value) == "string" for value in every}) == 1 and (len(set(every)) == len(every) or not is_one):
            return {"enum": list(dict.fromkeys(every))} | _kind_named(bare)
        return None
    if is_one:
        return None  # a value that two of them take would be refused
    if all(each == bare[0] for each in bare):
        return dict(bare[0])
    return {"type": "number"} if all(each in ({"type": "integer"}, {"type": "number"}) for each in bare) else None


def number_choices(schema: dict[str, Any], kind: str) -> list[float] | None:
    """Give the numbers that a schema names one by one, as a field takes them."""
    named = [each for each in _named(schema) or () if each is not None]  # null is no value
    if not named or len(named) > MAX_CHOICES or not all(_is_number(each) and abs(each) <= MAX_WHOLE for each in named):
        return None
    if kind == "float":
        return list(dict.fromkeys(named))
    return list(dict.fromkeys(map(int, named))) if all(float(each).is_integer() for each in named) else None


def numbers_named(schema: dict[str, Any], kind: str) -> tuple[float, float] | None:
    """Give the least and greatest number that a schema names one by one, when nothing lies between them."""
    named = [each for each in _named(schema) or () if each is not None]
    if not named or not all(_is_number(each) for each in named):
        return None
    low, high = min(named), max(named)
    least, most = schema.get("minimum", low), schema.get("maximum", high)
    if not (_is_number(least) and _is_number(most) and least <= low <= high <= most):
        return None
    is_whole = kind == "int" and all(float(each).is_integer() for each in named)
    has_all = low == high or (is_whole and len(set(named)) == high - low + 1)
    return (low, high) if has_all and (kind == "float" or is_whole) else None


def texts(schema: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Give what a schema of a string says as members of a field."""
    named = [each for each in _named(schema) or () if each is not None]  # null is no value
    if ("enum" in schema or "const" in schema) and all(isinstance(each, str) for each in named):
        yield "choices", named
    if isinstance(schema.get("maxLength"), int):
        yield "max_length", schema["maxLength"]


def guess_kind(schema: dict[str, Any]) -> str | None:
    """Give the type that the named values have, where a schema names values but no type."""
    named = [each for each in _named(schema) or () if each is not None]
    if not named or "type" in schema:
        return None
    kinds = {_kind_of(each) for each in named}
    if kinds == {"int", "float"}:
        return "float"
    return kinds.pop() if len(kinds) == 1 else None


def _kind_of(value: object) -> str | None:
    if isinstance(value, bool):
        return "bool"
    return "string" if isinstance(value, str) else {int: "int", float: "float"}.get(type(value))


def _only_values(schema: dict[str, Any]) -> list[Any] | None:
    """Give the strings or numbers that a schema takes, when it takes these and says no more."""
    named, kind = _named(schema), schema.get("type")
    if not named or not schema.keys() <= {"type", "enum", "const"}:
        return None
    if kind in (None, "string") and all(isinstance(each, str) for each in named):
        return named
    return named if kind in (None, "integer", "number") and all(map(_is_number, named)) else None


def _kind_named(schemas: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Give the type that schemas of values have in common; numbers are what their values are."""
    kinds = {each.get("type") for each in schemas}
    if None in kinds or not kinds <= {"string", "integer"}:
        return {"type": "number"} if "number" in kinds else {}
    return {"type": kinds.pop()}


def _named(schema: dict[str, Any]) -> list[Any] | None:
    named = [schema["const"]] if "const" in schema else schema.get("enum")
    return named if isinstance(named, list) else None


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
