from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.types.json_schema import from_schema, to_schema
from devices.types.rules import demand_sound
from wire.devices import DeviceTypeSpec
from wire.errors import Unprocessable

PUMP = {
    "description": "Pump",
    "fields": {
        "pressure": {"type": "float", "unit": "bar", "min": 0, "max": 16, "required": True, "description": "Outlet"},
        "starts": {"type": "int", "min": 0},
        "on": {"type": "bool"},
        "mode": {"type": "string", "choices": ["a", "b"], "max_length": 3},
        "motor.temp": {"unit": "Cel", "required": True},
        "motor.rpm": {},
        "odd\\.name": {},
    },
    "unknown_fields": "quarantine",
    "rate_limit": "20:1",
    "retention_days": 30,
    "alerts": [{"name": "gone", "when": "silent", "for_s": 60}],
}


def test_export_is_the_schema_of_one_reading() -> None:
    schema = to_schema("pump", 3, DeviceTypeSpec.model_validate(PUMP))

    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["properties"]["pressure"] == {
        "type": "number", "description": "Outlet", "minimum": 0, "maximum": 16, "x-headwater-unit": "bar",
    }  # fmt: skip
    assert schema["properties"]["motor"]["properties"]["temp"] == {"type": "number", "x-headwater-unit": "Cel"}
    assert schema["required"] == ["pressure", "motor"]
    assert schema["properties"]["motor"]["required"] == ["temp"]
    assert schema["properties"]["odd.name"] == {"type": "number"}
    assert schema["additionalProperties"] is False
    assert schema["x-headwater-type"]["rate_limit"] == "20:1"


def test_what_was_exported_is_imported_alike() -> None:
    spec = DeviceTypeSpec.model_validate(PUMP)

    assert from_schema(to_schema("pump", 3, spec)) == (spec, [])


NAMES = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S")), min_size=1, max_size=6)
PARTS = st.lists(
    NAMES.map(lambda name: name.replace("\\", "").replace(".", "\\.")).filter(bool), min_size=1, max_size=3
)
FIELDS = st.fixed_dictionaries({"type": st.sampled_from(["float", "int", "bool", "string"]), "required": st.booleans()})
TAKEN = {"ts", "time", "timestamp", "Time", "boot_id", "seq"}


@given(st.dictionaries(PARTS.map(".".join), FIELDS, max_size=6), st.sampled_from(["accept", "drop", "quarantine"]))
def test_any_names_survive_the_way_there_and_back(fields, unknown) -> None:
    names = [name for name in fields if not any(other.startswith(f"{name}.") for other in fields)]
    kept = {name: fields[name] for name in names if name.partition(".")[0] not in TAKEN}
    spec = DeviceTypeSpec.model_validate({"fields": kept, "unknown_fields": unknown})

    back, ignored = from_schema(to_schema("t", 1, spec))

    assert (back.fields, back.unknown_fields, ignored) == (spec.fields, unknown, [])


STRANGE = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "title": "Weather station",
    "type": "object",
    "required": ["temp", "ts"],
    "definitions": {"percent": {"type": "number", "minimum": 0, "maximum": 100}},
    "properties": {
        "ts": {"type": "integer"},
        "temp": {"type": "number", "exclusiveMinimum": -50, "multipleOf": 0.1, "title": "Air"},
        "humidity": {"$ref": "#/definitions/percent", "unit": "%"},
        "count": {"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 10},
        "state": {"enum": ["on", "off"]},
        "maybe": {"anyOf": [{"type": "number"}, {"type": "null"}]},
        "none": {"type": ["string", "null"], "pattern": "^a"},
        "list": {"type": "array", "items": {"type": "number"}},
        "either": {"oneOf": [{"type": "number"}, {"type": "string"}]},
        "far": {"$ref": "https://example.com/x.json"},
        "gps": {"type": "object", "properties": {"lat": {"type": "number"}}, "minProperties": 1},
    },
    "if": {},
}


def test_schemas_of_other_people_are_read_as_far_as_they_go() -> None:
    spec, ignored = from_schema(STRANGE)

    assert spec.description == "Weather station"
    found = {name: field.model_dump(exclude_defaults=True) for name, field in spec.fields.items()}
    assert found == {
        "temp": {"min": -50, "required": True, "description": "Air"},
        "humidity": {"min": 0, "max": 100, "unit": "%"},
        "count": {"type": "int", "min": 1, "max": 9},
        "state": {"type": "string", "choices": ["on", "off"]},
        "maybe": {},
        "none": {"type": "string"},
        "gps.lat": {},
    }
    assert sorted(line.partition(":")[0] for line in ignored) == [
        "if",
        "properties.either",
        "properties.far",
        "properties.far.$ref",
        "properties.gps.minProperties",
        "properties.list",
        "properties.none.pattern",
        "properties.temp.exclusiveMinimum",
        "properties.temp.multipleOf",
        "properties.ts",
    ]
    demand_sound(spec)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array"},
        {"properties": []},
        {"$ref": "#", "type": "string"},
        {"properties": {"x": {"type": "string", "maxLength": -1}}},
        {"properties": {}, "x-headwater-type": {"no_such": 1}},
        {"$ref": "#"},
        {"nonsense": 1},
        {"properties": {"": {"type": "number"}}},
    ],
)
def test_what_can_be_no_type_is_refused(schema) -> None:
    with pytest.raises(Unprocessable):
        from_schema(schema)


def loop() -> dict:
    below: dict = {"type": "object", "properties": {"again": {"$ref": "#/$defs/node"}}}
    return {"$defs": {"node": below}, "properties": {"node": {"$ref": "#/$defs/node"}}}


@pytest.mark.parametrize("schema", [loop(), {"properties": {"a": {"$ref": "#/properties/a"}}}])
def test_schema_that_names_itself_ends(schema) -> None:
    spec, ignored = from_schema(schema)

    assert spec.fields == {}
    assert ignored
