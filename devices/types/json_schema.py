r"""Device types as JSON Schema (draft 2020-12), both ways. Pure.

What JSON Schema has no word for travels in members of ours: `x-headwater-unit` of a property, `x-headwater-type` of the
whole. Nested objects are names with dots, as ingestion makes of them (a `.` inside a key is written `\.`). What other
people's schemas say beyond that is listed, not guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from wire.devices import DeviceTypeSpec, FieldSpec
from wire.errors import Unprocessable, in_words

DRAFT = "https://json-schema.org/draft/2020-12/schema"
UNIT, TYPE = "x-headwater-unit", "x-headwater-type"
MAX_DEPTH = 16
MAX_IGNORED = 200
_TO_JSON = {"float": "number", "int": "integer", "bool": "boolean", "string": "string"}
_FROM_JSON = {word: kind for kind, word in _TO_JSON.items()}
_MESSAGE = frozenset(("ts", "time", "timestamp", "Time", "boot_id", "seq"))  # the message's own, no fields
_SILENT = frozenset((  # say nothing about which data is taken
    "$schema", "$id", "$anchor", "$comment", "$defs", "definitions", "title", "description", "default", "examples",
    "deprecated", "readOnly", "writeOnly", "type", UNIT, TYPE,
))  # fmt: skip
_OF_KIND = {
    "float": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    "int": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    "string": ("enum", "const", "maxLength"),
    "bool": (),
}


def to_schema(name: str, version: int, spec: DeviceTypeSpec) -> dict[str, Any]:
    """Write a type as the JSON Schema of one reading."""
    root: dict[str, Any] = {
        "$schema": DRAFT,
        "$id": f"urn:headwater:device-type:{name}:{version}",
        "title": name,
        "type": "object",
        "properties": {},
        "additionalProperties": spec.unknown_fields != "quarantine",
    }
    if spec.description:
        root["description"] = spec.description
    for field_name, field_spec in spec.fields.items():
        _place(root, split(field_name), field_spec, is_open=spec.unknown_fields != "quarantine")
    rest = spec.model_dump(mode="json", exclude={"fields", "description"}, exclude_defaults=True)
    return root | ({TYPE: rest} if rest else {})


def from_schema(schema: dict[str, Any]) -> tuple[DeviceTypeSpec, list[str]]:
    """Read a JSON Schema of a reading; give also what of it means nothing here.

    Raises:
        Unprocessable: it describes no object, or gives no type that can be one of ours.
    """
    reading = _Reading(schema)
    target = reading.resolve(schema, "")
    if target.get("type", "object") != "object" or not isinstance(target.get("properties"), dict):
        raise Unprocessable("the schema describes no object with properties", fields=["type"])
    reading.walk(target, (), is_required=True)
    own = schema.get(TYPE)
    members: dict[str, Any] = dict(own) if isinstance(own, dict) else {}
    if target.get("additionalProperties") is False:
        members.setdefault("unknown_fields", "quarantine")
    members["description"] = str(schema.get("description") or schema.get("title") or "")[:1024]
    try:
        return DeviceTypeSpec.model_validate(members | {"fields": reading.fields}), reading.ignored
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        sentence = "; ".join(f"{'.'.join(map(str, each['loc']))}: {in_words(each)}" for each in found[:5])
        raise Unprocessable(sentence, fields=[".".join(map(str, each["loc"])) for each in found]) from None


def split(name: str) -> list[str]:
    r"""Take a field's name apart at its dots; `\.` is a dot inside a part."""
    return [part.replace("\\.", ".") for part in re.split(r"(?<!\\)\.", name)]


def _place(root: dict[str, Any], parts: list[str], spec: FieldSpec, *, is_open: bool) -> None:
    *parents, last = parts
    at = root
    for part in parents:
        if spec.required and part not in at.setdefault("required", []):
            at["required"].append(part)
        at = at["properties"].setdefault(part, {"type": "object", "properties": {}, "additionalProperties": is_open})
        at.setdefault("properties", {})  # a field may have the name of a group of others
    at["properties"][last] = at["properties"].get(last, {}) | _leaf(spec)
    if spec.required:
        at.setdefault("required", []).append(last)


def _leaf(spec: FieldSpec) -> dict[str, Any]:
    members = {
        "type": _TO_JSON[spec.type],
        "description": spec.description or None,
        "minimum": spec.min,
        "maximum": spec.max,
        "enum": spec.choices,
        "maxLength": spec.max_length,
        UNIT: spec.unit or None,
    }
    return {name: value for name, value in members.items() if value is not None}


@dataclass(slots=True)
class _Reading:
    """The state of reading one schema."""

    root: dict[str, Any]
    fields: dict[str, Any] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)

    def walk(self, schema: dict[str, Any], parents: tuple[str, ...], *, is_required: bool) -> None:
        """Take the properties of an object in, those of objects below it too."""
        path = ".".join(("properties", *parents)) if parents else ""
        self._note(schema, path, {"properties", "required", "additionalProperties"})
        listed = schema.get("required")
        required = set(map(str, listed)) if isinstance(listed, list) else set()
        for key, value in schema["properties"].items() if isinstance(schema.get("properties"), dict) else ():
            where = f"{path}.{key}" if path else f"properties.{key}"
            if not isinstance(value, dict):
                self._ignore(where, "says nothing about the value")
            elif not parents and key in _MESSAGE:
                self._ignore(where, "belongs to the message, it is no field")
            elif len(parents) >= MAX_DEPTH:
                self._ignore(where, f"lies deeper than {MAX_DEPTH}")
            else:
                self._take(value, (*parents, str(key)), where, is_required=is_required and key in required)

    def resolve(self, schema: dict[str, Any], where: str) -> dict[str, Any]:
        """Follow references within the schema, and leave null out of what a value may be."""
        seen: list[str] = []
        while isinstance(pointer := schema.get("$ref"), str):
            target = self._find(pointer) if pointer not in seen and len(seen) < MAX_DEPTH else None
            if target is None:
                self._ignore(f"{where}.$ref".lstrip("."), f"{pointer[:80]} is not within this schema")
                return {name: value for name, value in schema.items() if name != "$ref"}
            seen.append(pointer)
            schema = target | {name: value for name, value in schema.items() if name != "$ref"}
        for word in ("anyOf", "oneOf"):
            kinds = schema.get(word)
            real = [each for each in kinds if each != {"type": "null"}] if isinstance(kinds, list) else []
            if len(real) == 1 and isinstance(real[0], dict):
                rest = {name: value for name, value in schema.items() if name != word}
                return self.resolve(real[0] | rest, where)
        return schema

    def _take(self, value: dict[str, Any], parts: tuple[str, ...], where: str, *, is_required: bool) -> None:
        value = self.resolve(value, where)
        kinds = value.get("type")
        listed = [kind for kind in kinds if kind != "null"] if isinstance(kinds, list) else [kinds]
        kind = listed[0] if len(listed) == 1 else "number" if set(listed) == {"integer", "number"} else None
        if kind == "object" or (kind is None and "properties" in value):
            self.walk(value, parts, is_required=is_required)
            return
        ours = _FROM_JSON.get(str(kind)) or _guess(value)
        if ours is None:
            self._ignore(where, f"{kind or 'no single type'} is not taken for a field")
            return
        name = ".".join(part.replace(".", "\\.") for part in parts)
        self.fields[name] = dict(self._members(value, ours, where)) | {"type": ours, "required": is_required}
        self._note(value, where, {*_OF_KIND[ours], "unit"})

    def _members(self, value: dict[str, Any], kind: str, where: str) -> Iterator[tuple[str, Any]]:
        unit, text = value.get(UNIT, value.get("unit")), value.get("description") or value.get("title")
        if isinstance(unit, str):
            yield "unit", unit[:32]
        if isinstance(text, str):
            yield "description", text[:256]
        if kind == "string":
            yield from _texts(value)
        elif kind in ("float", "int"):
            yield from self._bounds(value, kind, where)

    def _bounds(self, value: dict[str, Any], kind: str, where: str) -> Iterator[tuple[str, float]]:
        for word, ours, step in (("inimum", "min", 1), ("aximum", "max", -1)):
            limit, beyond = value.get(f"m{word}"), value.get(f"exclusiveM{word}")
            if isinstance(beyond, int | float) and not isinstance(beyond, bool):
                if kind == "float":
                    self._ignore(f"{where}.exclusiveM{word}", "the limit itself is taken too")
                limit = beyond + step if kind == "int" else beyond
            if isinstance(limit, int | float) and not isinstance(limit, bool):
                yield ours, limit

    def _note(self, schema: dict[str, Any], path: str, understood: set[str]) -> None:
        for word in schema:
            if word not in understood and word not in _SILENT:
                self._ignore(f"{path}.{word}".lstrip("."), "is not understood")

    def _find(self, pointer: str) -> dict[str, Any] | None:
        at: Any = self.root
        if pointer != "#" and not pointer.startswith("#/"):
            return None
        for part in pointer[2:].split("/") if len(pointer) > 1 else ():
            at = at.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(at, dict) else None
        return at if isinstance(at, dict) else None

    def _ignore(self, where: str, why: str) -> None:
        if len(self.ignored) < MAX_IGNORED:
            self.ignored.append(f"{where}: {why}")


def _texts(value: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    choices = [value["const"]] if "const" in value else value.get("enum")
    if isinstance(choices, list) and all(isinstance(each, str) for each in choices):
        yield "choices", choices
    if isinstance(value.get("maxLength"), int):
        yield "max_length", value["maxLength"]


def _guess(value: dict[str, Any]) -> str | None:
    """Give the type that the named values have, where a schema names values but no type."""
    named = [value["const"]] if "const" in value else value.get("enum")
    if not isinstance(named, list) or not named or "type" in value:
        return None
    kinds = {"bool" if isinstance(each, bool) else "string" if isinstance(each, str) else None for each in named}
    return kinds.pop() if len(kinds) == 1 else None
