"""Reading JSON Schemas that other people wrote: which fields they name, and what of them means nothing here. Pure.

Understood are the drafts from 4 to 2020-12 and the dialect of OpenAPI 3.0 (`nullable`), as far as they say something
that a device type can say. A value that can be no field is refused with its place; what says less is listed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from devices.types.schema_values import (
    ARRAY_WORDS,
    Elements,
    elements_of,
    guess_kind,
    join_choices,
    number_choices,
    numbers_named,
    texts,
)
from wire.errors import Unprocessable

UNIT, TYPE, REQUIRED = "x-headwater-unit", "x-headwater-type", "x-headwater-required"
MAX_DEPTH = 16
MAX_OWN_DEPTH = 128  # of what we exported: a name has no more dots
MAX_PLACES = 5_000  # looked at: references make a small schema as large as they like
MAX_IGNORED = 200
TO_JSON = {"float": "number", "int": "integer", "bool": "boolean", "string": "string"}
_FROM_JSON = {word: kind for kind, word in TO_JSON.items()}
_MESSAGE = frozenset(("ts", "time", "timestamp", "Time", "boot_id", "seq"))  # the message's own, no fields
_SILENT = frozenset((  # say nothing about which data is taken
    "$schema", "$id", "id", "$anchor", "$comment", "$defs", "definitions", "title", "description", "default",
    "example", "examples", "deprecated", "readOnly", "writeOnly", "type", "nullable", UNIT, TYPE, REQUIRED,
))  # fmt: skip
_OF_KIND = {
    "float": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    "int": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    "string": ("enum", "const", "maxLength"),
    "bool": (),
}
_OF_OBJECTS = frozenset(("properties", "required", "additionalProperties"))
CHOICES = ("anyOf", "oneOf")


@dataclass(slots=True)
class Reading:
    """The state of reading one schema."""

    root: dict[str, Any]
    keeps_times: bool = False  # also names that a message has of its own: it was exported by us
    fields: dict[str, Any] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)  # by the name of the field
    ignored: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)  # place -> why the value there can be no field
    looked_at: int = 0

    def start(self) -> dict[str, Any]:
        """Take everything in; give the schema of the whole reading.

        Raises:
            Unprocessable: it describes no object with properties, or is too large.
        """
        target = self.resolve(self.root, "")
        if target.get("type", "object") != "object" or not isinstance(target.get("properties"), dict):
            choice = next((word for word in (*CHOICES, "type", "properties", "$ref") if word in target), "type")
            why = f"{choice}: the schema must describe one object with properties"
            raise Unprocessable("; ".join((why, *self.ignored[:3])), fields=[choice])
        self.walk(target, (), "", is_required=True)
        return target

    def walk(self, schema: dict[str, Any], parents: tuple[str, ...], path: str, *, is_required: bool) -> None:
        """Take the properties of an object in, those of objects below it too."""
        listed = schema.get("required")
        required = set(map(str, listed)) if isinstance(listed, list) else set()
        if not parents:
            self._note(schema, path, _OF_OBJECTS)
        for key, value in schema["properties"].items() if isinstance(schema.get("properties"), dict) else ():
            where = f"{path}.properties.{key}".lstrip(".")
            deepest = MAX_OWN_DEPTH if self.keeps_times else MAX_DEPTH
            if not isinstance(value, dict):
                self._ignore(where, "says nothing about the value")
            elif not parents and key in _MESSAGE and not self.keeps_times:
                self._ignore(where, "belongs to the message, it is no field")
            elif len(parents) >= deepest:
                self._ignore(where, f"lies deeper than {deepest}")
            else:
                self._take(value, (*parents, str(key)), where, is_required=is_required and key in required)

    def resolve(self, schema: dict[str, Any], where: str) -> dict[str, Any]:
        """Follow references within the schema, join what holds all together, take null from what a value may be."""
        seen: list[str] = []
        while isinstance(pointer := schema.get("$ref"), str):
            self._count(where)
            target = self._find(pointer) if pointer not in seen and len(seen) < MAX_DEPTH else None
            if target is None:
                self._ignore(f"{where}.$ref".lstrip("."), f"{pointer[:80]} is not within this schema")
                return {name: value for name, value in schema.items() if name != "$ref"}
            seen.append(pointer)
            schema = target | {name: value for name, value in schema.items() if name != "$ref"}
        return self._without_null(self._joined(schema, where), where)

    def _joined(self, schema: dict[str, Any], where: str) -> dict[str, Any]:
        """Give a schema with the members of its `allOf`."""
        parts = schema.get("allOf")
        if not isinstance(parts, list) or not all(isinstance(each, dict) for each in parts):
            return schema
        joined: dict[str, Any] = {}
        rest = {name: value for name, value in schema.items() if name != "allOf"}
        for at, part in enumerate((*parts, rest)):
            self._count(where)
            each = self.resolve(part, f"{where}.allOf.{at}".lstrip(".")) if part is not rest else rest
            before, joined = joined, joined | each
            for name, kind in (("properties", dict), ("required", list)):
                if isinstance(before.get(name), kind) and isinstance(each.get(name), kind):
                    joined[name] = before[name] | each[name] if kind is dict else before[name] + each[name]
        return joined

    def _without_null(self, schema: dict[str, Any], where: str) -> dict[str, Any]:
        for word in CHOICES:
            kinds = schema.get(word)
            real = [each for each in kinds if each != {"type": "null"}] if isinstance(kinds, list) else []
            if len(real) == 1 and isinstance(real[0], dict):
                self._count(where)
                rest = {name: value for name, value in schema.items() if name != word}
                found = self.resolve(real[0] | rest, where)
                return found | {"nullable": True} if isinstance(kinds, list) and len(kinds) > 1 else found
            if real and all(isinstance(each, dict) for each in real):
                self._count(where)
                joined = join_choices([self.resolve(each, where) for each in real], is_one=word == "oneOf")
                if joined is not None:
                    rest = {name: value for name, value in schema.items() if name != word}
                    return joined | rest | ({"nullable": True} if len(real) < len(kinds or ()) else {})
        return schema

    def _take(self, value: dict[str, Any], parts: tuple[str, ...], where: str, *, is_required: bool) -> None:
        self._count(where)
        value = self.resolve(value, where)
        kinds = value.get("type")
        listed = [kind for kind in kinds if kind != "null"] if isinstance(kinds, list) else [kinds]
        is_required = is_required and not _may_be_null(value)
        if "properties" in value and (listed == [None] or "object" in listed):
            listed = [kind for kind in listed if kind not in (None, "object")]
            self.walk(value, parts, where, is_required=is_required)
            if not listed:
                self._note(value, where, set(_OF_OBJECTS))
                return
        elif "array" in listed or (listed == [None] and not ARRAY_WORDS.isdisjoint(value)):
            listed = [kind for kind in listed if kind not in (None, "array")]
            self._take_array(value, parts, where, is_required=is_required)
            if not listed:
                self._note(value, where, set(ARRAY_WORDS))
                return
        self._take_field(value, listed, parts, where, is_required=is_required)

    def _take_field(
        self, value: dict[str, Any], listed: list[Any], parts: tuple[str, ...], where: str, *, is_required: bool
    ) -> None:
        kinds = value.get("type")
        kind = listed[0] if len(listed) == 1 else "number" if set(map(str, listed)) == {"integer", "number"} else None
        ours = _FROM_JSON.get(str(kind)) or guess_kind(value)
        if ours is None:
            self._refuse(value, listed, where)
            return
        name = ".".join(part.replace(".", "\\.") for part in parts)
        own = value.get(REQUIRED)
        needed = own if isinstance(own, bool) else is_required
        self.fields[name] = dict(self._members(value, ours, where)) | {"type": ours, "required": needed}
        self.places[name] = where
        is_named = ours in ("float", "int") and (number_choices(value, ours) or numbers_named(value, ours))
        named = ("enum", "const") if is_named else ()
        others = _OF_OBJECTS if "properties" in value else ARRAY_WORDS if "array" in (kinds or ()) else ()
        self._note(value, where, {*_OF_KIND[ours], "unit", *named, *others})

    def _refuse(self, value: dict[str, Any], listed: list[Any], where: str) -> None:
        """Note a value that can be no field; one of which nothing is said is an unknown field, as if not named."""
        choice = next((word for word in (*CHOICES, "enum", "const") if word in value), None)
        if listed in ([], ["null"], ["object"]) or (listed == [None] and choice is None):
            self._ignore(where, "says nothing about a value that could be a field")
            return
        told = " or ".join(map(str, listed)) if listed != [None] else "no single type"
        place = f"{where}.{choice}" if choice in CHOICES else where
        self.refused[place] = f"{told} is not taken for a field: a field has one type"

    def _take_array(self, value: dict[str, Any], parts: tuple[str, ...], where: str, *, is_required: bool) -> None:
        """Take the elements of an array in, each by its number."""
        found = elements_of(value)
        if not isinstance(found, Elements):
            self.refused[where] = found
            return
        deepest = MAX_OWN_DEPTH if self.keeps_times else MAX_DEPTH
        if len(parts) >= deepest:
            self._ignore(where, f"lies deeper than {deepest}")
            return
        for index, (place, element) in enumerate(found.schemas):
            needed = is_required and index < found.least
            self._take(element, (*parts, str(index)), f"{where}.{place}", is_required=needed)

    def _members(self, value: dict[str, Any], kind: str, where: str) -> Iterator[tuple[str, Any]]:
        unit, text = value.get(UNIT, value.get("unit")), value.get("description") or value.get("title")
        if isinstance(unit, str):
            yield "unit", unit[:32]
        if isinstance(text, str):
            yield "description", text[:256]
        if kind == "string":
            yield from texts(value)
        elif kind in ("float", "int"):
            yield from self._bounds(value, kind, where)
        if _may_be_null(value):
            yield "nullable", True

    def _bounds(self, value: dict[str, Any], kind: str, where: str) -> Iterator[tuple[str, Any]]:
        if choices := number_choices(value, kind):
            yield "choices", choices
        elif span := numbers_named(value, kind):
            yield from zip(("min", "max"), span, strict=True)
            return
        for word, ours, step in (("inimum", "min", 1), ("aximum", "max", -1)):
            limit, beyond = value.get(f"m{word}"), value.get(f"exclusiveM{word}")
            if beyond is True:  # draft 4: it is said of the other member
                beyond = limit
            if isinstance(beyond, int | float) and not isinstance(beyond, bool):
                if kind == "float":
                    self._ignore(f"{where}.exclusiveM{word}", "the limit itself is taken too")
                limit = beyond + step if kind == "int" else beyond
            if isinstance(limit, int | float) and not isinstance(limit, bool):
                yield ours, limit

    def _note(self, schema: dict[str, Any], path: str, understood: set[str] | frozenset[str]) -> None:
        for word in schema:
            if word not in understood and word not in _SILENT:
                self._ignore(f"{path}.{word}".lstrip("."), "is not understood")

    def _find(self, pointer: str) -> dict[str, Any] | None:
        at: Any = self.root
        base = self.root.get("$id")
        pointer = pointer.removeprefix(base) if isinstance(base, str) else pointer
        if pointer not in ("", "#") and not pointer.startswith("#/"):
            return None
        for part in pointer[2:].split("/") if len(pointer) > 1 else ():
            at = at.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(at, dict) else None
        return at if isinstance(at, dict) else None

    def _ignore(self, where: str, why: str) -> None:
        line = f"{where}: {why}"
        if len(self.ignored) < MAX_IGNORED and line not in self.ignored[-8:]:
            self.ignored.append(line)

    def _count(self, where: str) -> None:
        self.looked_at += 1
        if self.looked_at > MAX_PLACES:
            place = where[:200] or "$ref"
            raise Unprocessable(f"{place}: the schema opens out to more than {MAX_PLACES} places", fields=[place])


def _may_be_null(value: dict[str, Any]) -> bool:
    """Tell whether null is allowed: that is no value to us, so the field may be missing."""
    kinds, choices = value.get("type"), value.get("enum")
    is_listed = (isinstance(kinds, list) and "null" in kinds) or (isinstance(choices, list) and None in choices)
    return is_listed or value.get("nullable") is True
