r"""Device types as JSON Schema (draft 2020-12), both ways. Pure.

What JSON Schema has no word for travels in members of ours: `x-headwater-unit` of a property, `x-headwater-type` of the
whole. Nested objects are names with dots, as ingestion makes of them (a `.` inside a key is written `\.`). What other
people's schemas say beyond that is listed, not guessed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from devices.types.rules import demand_sound
from devices.types.schema_reading import REQUIRED, TO_JSON, TYPE, UNIT, Reading
from devices.types.schema_values import MAX_ELEMENTS
from wire.devices import DeviceTypeSpec, FieldSpec
from wire.errors import Unprocessable, in_words

DRAFT = "https://json-schema.org/draft/2020-12/schema"
_OURS = "urn:headwater:device-type:"  # how the `$id` of what we export begins
_OF_GROUPS = ("type", "properties", "required", "additionalProperties")
_WORDS = {
    "min": "minimum", "max": "maximum", "choices": "enum", "max_length": "maxLength", "unit": UNIT,
}  # fmt: skip


def to_schema(name: str, version: int, spec: DeviceTypeSpec) -> dict[str, Any]:
    """Write a type as the JSON Schema of one reading."""
    root: dict[str, Any] = {
        "$schema": DRAFT,
        "$id": f"{_OURS}{name}:{version}",
        "title": name,
        "type": "object",
        "properties": {},
        "additionalProperties": spec.unknown_fields != "quarantine",
    }
    if spec.description:
        root["description"] = spec.description
    parted = [(split(name), each) for name, each in spec.fields.items()]
    groups = {tuple(parts[:depth]) for parts, _ in parted for depth in range(1, len(parts))}
    loose = {tuple(parts) for parts, each in parted if each.nullable}  # below these, JSON Schema demands nothing
    for parts, each in parted:
        leaf = _leaf(each)
        if each.required and any(tuple(parts[:depth]) in loose for depth in range(1, len(parts))):
            leaf[REQUIRED] = True
        if tuple(parts) in groups:  # a field may have the name of a group of others, and be less required than these
            kinds = leaf["type"] if each.nullable else [leaf["type"]]
            leaf |= {"type": [*kinds, "object"], REQUIRED: each.required}
        _place(root, parts, leaf, is_required=each.required)
    root["properties"] = {name: _with_arrays(each) for name, each in root["properties"].items()}
    rest = spec.model_dump(mode="json", exclude={"fields", "description"}, exclude_defaults=True)
    return root | ({TYPE: rest} if rest else {})


def from_schema(schema: dict[str, Any], *, is_partial: bool = False) -> tuple[DeviceTypeSpec, list[str]]:
    """Read a JSON Schema of a reading; give also what of it means nothing here.

    Values that can be no field are left out and listed too when `is_partial`.

    Raises:
        Unprocessable: it describes no object, or values that can be no field, or gives no type that can be one of
            ours; `fields` are places in it.
    """
    reading = Reading(schema, keeps_times=str(schema.get("$id", "")).startswith(_OURS))
    target = reading.start()
    if reading.refused and not is_partial:
        sentence = "; ".join(f"{place}: {why}" for place, why in list(reading.refused.items())[:5])
        raise Unprocessable(sentence, fields=list(reading.refused)[:20])
    own = schema.get(TYPE)
    members: dict[str, Any] = dict(own) if isinstance(own, dict) else {}
    if target.get("additionalProperties") is False:
        members.setdefault("unknown_fields", "quarantine")
    title = "" if reading.keeps_times else schema.get("title")
    members["description"] = str(schema.get("description") or title or "")[:1024]
    try:
        spec = DeviceTypeSpec.model_validate(members | {"fields": reading.fields})
        demand_sound(spec)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        faults = [(_place_of(reading.places, each["loc"]), in_words(each)) for each in found]
        sentence = "; ".join(f"{place}: {text}" for place, text in faults[:5])
        raise Unprocessable(sentence, fields=[place for place, _ in faults]) from None
    except Unprocessable as error:
        raise _at_places(reading.places, error) from None
    return spec, reading.ignored + [f"{place}: {why}" for place, why in reading.refused.items()]


def _at_places(places: dict[str, str], error: Unprocessable) -> Unprocessable:
    """Tell what is wrong with a type in the words of its schema: `fields.a.b.min` is a `minimum` somewhere."""
    detail, found = error.detail, []
    for path in error.fields or ():
        head, _, name = path.partition("fields.")
        field, _, member = name.rpartition(".")
        place = _place_of(places, ("fields", field, member)) if not head and field else _place_of(places, (path,))
        detail = detail.replace(f"{path}: ", f"{place}: ", 1)
        found.append(place)
    return Unprocessable(detail, fields=found)


def _place_of(places: dict[str, str], loc: Sequence[Any]) -> str:
    """Give the place in the schema of a member of the type."""
    if loc[0] == "description":
        return "description"
    if loc[0] != "fields":
        return ".".join(map(str, (TYPE, *loc)))
    if len(loc) < 2:  # noqa: PLR2004 - the fields as a whole
        return "properties"
    words = [_WORDS.get(str(word), str(word)) for word in loc[2:] if word != "[key]"]
    return ".".join((places.get(str(loc[1]), "properties"), *words))


def split(name: str) -> list[str]:
    r"""Take a field's name apart at its dots; `\.` is a dot inside a part."""
    return [part.replace("\\.", ".") for part in re.split(r"(?<!\\)\.", name)]


def _place(root: dict[str, Any], parts: list[str], leaf: dict[str, Any], *, is_required: bool) -> None:
    *parents, last = parts
    at = root
    for part in parents:
        if is_required and part not in at.setdefault("required", []):
            at["required"].append(part)
        at = at["properties"].setdefault(part, {})
        group = {"type": "object", "properties": {}, "additionalProperties": root["additionalProperties"]}
        at |= {name: value for name, value in group.items() if name not in at}
    at["properties"].setdefault(last, {}).update(leaf)
    if is_required and last not in at.setdefault("required", []):
        at["required"].append(last)


def _with_arrays(schema: dict[str, Any]) -> dict[str, Any]:
    """Write groups whose members are 0, 1, 2... as arrays: that is what ingestion makes these names of."""
    members = schema.get("properties")
    if members is None:
        return schema
    members = {name: _with_arrays(each) for name, each in members.items()}
    numbers = [str(at) for at in range(len(members))]
    if len(members) > MAX_ELEMENTS or members.keys() != set(numbers):
        return schema | {"properties": members}
    required = [int(name) for name in schema.get("required", ())]
    rest = {name: value for name, value in schema.items() if name not in _OF_GROUPS}
    kinds = schema["type"]
    rest["type"] = [*kinds[:-1], "array"] if isinstance(kinds, list) else "array"
    if required:
        rest["minItems"] = max(required) + 1
    for at in range(max(required, default=-1) + 1):
        if at not in required and "properties" not in members[str(at)] and "prefixItems" not in members[str(at)]:
            members[str(at)] = {REQUIRED: False} | members[str(at)]
    rest["prefixItems"] = [members[name] for name in numbers]
    return rest if schema["additionalProperties"] else rest | {"items": False}


def _leaf(spec: FieldSpec) -> dict[str, Any]:
    kind, choices = TO_JSON[spec.type], spec.choices
    members = {
        "type": [kind, "null"] if spec.nullable else kind,
        "description": spec.description or None,
        "minimum": spec.min,
        "maximum": spec.max,
        "enum": [*choices, None] if spec.nullable and choices is not None else choices,
        "maxLength": spec.max_length,
        UNIT: spec.unit or None,
    }
    return {name: value for name, value in members.items() if value is not None}
