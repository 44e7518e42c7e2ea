from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from devices.types.json_schema import from_schema, to_schema
from ingest.protocols.flatten import flatten
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
    "type_rate_limit": "messages 500:1",
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
    limits = [schema["x-headwater-type"][name] for name in ("rate_limit", "type_rate_limit")]
    assert limits == ["20:1", "messages 500:1"]


def test_what_was_exported_is_imported_alike() -> None:
    spec = DeviceTypeSpec.model_validate(PUMP)

    assert from_schema(to_schema("pump", 3, spec)) == (spec, [])


TEXT = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), max_size=12)
NAMES = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S")), min_size=1, max_size=4)
PARTS = st.one_of(
    NAMES, st.sampled_from(["a", "b", "0", "1", "2", "ts", "time", "seq", "properties", "required", "type", "$ref", ""])
)
BOUND = st.one_of(st.none(), st.integers(-9, 9).map(float), st.floats(allow_nan=False, allow_infinity=False))


def optional(strategy):
    return st.one_of(st.none(), strategy)


@st.composite
def field_specs(draw):
    made = {"type": draw(st.sampled_from(["float", "int", "bool", "string"])), "required": draw(st.booleans())}
    made |= {"unit": draw(TEXT), "description": draw(TEXT)}
    made |= {"nullable": not made["required"] and draw(st.booleans())}
    if made["type"] in ("float", "int"):
        low, high = draw(BOUND), draw(BOUND)
        made |= {"min": low, "max": max(low, high) if None not in (low, high) else high}
        numbers = st.integers(-9, 9) if made["type"] == "int" else st.one_of(st.integers(-9, 9), st.floats(-9, 9))
        made |= {"choices": draw(optional(st.lists(numbers, min_size=1, max_size=3, unique=True)))}
    if made["type"] == "string":
        made |= {"choices": draw(optional(st.lists(TEXT, min_size=1, max_size=3)))}
        made |= {"max_length": draw(optional(st.integers(1, 65_536)))}
    return made


FIELDS = st.dictionaries(st.lists(PARTS, min_size=1, max_size=4).map(".".join).filter(bool), field_specs(), max_size=6)
SPECS = st.fixed_dictionaries(
    {"fields": FIELDS, "unknown_fields": st.sampled_from(["accept", "drop", "quarantine"]), "description": TEXT},
    optional={
        "time_unit": st.sampled_from(["auto", "s", "ms"]),
        "time_key": TEXT,
        "time_late_s": st.floats(0, 1e6),
        "expected_interval_s": st.floats(0.001, 31_536_000),
        "rate_limit": st.sampled_from([None, "", "20:1,600:60"]),
        "retention_days": optional(st.integers(1, 36_500)),
        "alerts": st.just([{"name": "gone", "when": "silent", "for_s": 60.0, "severity": "info"}]),
    },
)


@given(SPECS)
@example({"fields": {"a": {"type": "float", "nullable": True}, "a.0": {"type": "float", "required": True}}})
@example({"fields": {"a": {"type": "int", "choices": [1, 2]}, "a.0": {"type": "int"}, "b.c": {"type": "int"}}})
@example({"fields": {"a": {"type": "string", "choices": ["null"]}}})
@example({"fields": {"b": {"type": "float", "choices": [1.5]}, "b.c": {"type": "int"}}})
def test_any_type_survives_the_way_there_and_back(members) -> None:
    spec = DeviceTypeSpec.model_validate(members)

    assert from_schema(json.loads(json.dumps(to_schema("t", 1, spec)))) == (spec, [])


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
    spec, ignored = from_schema(STRANGE, is_partial=True)

    assert spec.description == "Weather station"
    found = {name: field.model_dump(exclude_defaults=True) for name, field in spec.fields.items()}
    assert found == {
        "temp": {"min": -50, "required": True, "description": "Air"},
        "humidity": {"min": 0, "max": 100, "unit": "%"},
        "count": {"type": "int", "min": 1, "max": 9},
        "state": {"type": "string", "choices": ["on", "off"]},
        "maybe": {"nullable": True},
        "none": {"type": "string", "nullable": True},
        "gps.lat": {},
    }
    assert sorted(line.partition(":")[0] for line in ignored) == [
        "if",
        "properties.either.oneOf",
        "properties.far",
        "properties.far.$ref",
        "properties.gps.minProperties",
        "properties.list",
        "properties.none.pattern",
        "properties.temp.exclusiveMinimum",
        "properties.temp.multipleOf",
        "properties.ts",
    ]


OPENAPI = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$id": "https://example.com/meter.json",
    "$defs": {
        "base": {"properties": {"serial": {"type": "string"}}, "required": ["serial"]},
        "volt": {"type": ["number", "null"], "minimum": 0},
    },
    "allOf": [{"$ref": "https://example.com/meter.json#/$defs/base"}, {"required": ["l1", "l2", "l3", "l4", "l5"]}],
    "properties": {
        "l1": {"$ref": "#/$defs/volt"},
        "l2": {"type": "number", "nullable": True},
        "l3": {"oneOf": [{"type": "integer"}, {"type": "null"}]},
        "l4": {"enum": ["on", None]},
        "l5": {"type": "integer", "minimum": 1, "exclusiveMinimum": True},
        "l6": {"oneOf": [{"type": "number"}, {"type": "string"}]},
        "at": {"type": "object", "properties": {"x": {"oneOf": [{}, {}]}}},
    },
}


def test_newer_drafts_and_openapi_are_read_and_null_is_no_value() -> None:
    spec, ignored = from_schema(OPENAPI, is_partial=True)

    found = {name: field.model_dump(exclude_defaults=True) for name, field in spec.fields.items()}
    assert found == {
        "serial": {"type": "string", "required": True},
        "l1": {"min": 0, "nullable": True},
        "l2": {"nullable": True},
        "l3": {"type": "int", "nullable": True},
        "l4": {"type": "string", "choices": ["on"], "nullable": True},
        "l5": {"type": "int", "min": 2, "required": True},
    }
    assert ignored == [
        "properties.l6.oneOf: no single type is not taken for a field: a field has one type",
        "properties.at.properties.x.oneOf: no single type is not taken for a field: a field has one type",
    ]


NUMBER = {"type": "number"}
PHASES = {
    "type": "object",
    "required": ["volts", "pairs"],
    "properties": {
        "volts": {"type": "array", "items": {"type": "number", "minimum": 0}, "minItems": 2, "maxItems": 3},
        "pairs": {
            "type": "array",
            "minItems": 1,
            "prefixItems": [{"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"]}, NUMBER],
        },
        "old": {"items": [{"type": "string"}, {"type": "integer"}], "additionalItems": False},
        "state": {"anyOf": [{"const": "on"}, {"enum": ["off", "auto"]}, {"type": "null"}]},
        "level": {"enum": [3, 1, 2]},
        "fixed": {"type": "number", "const": 2.5},
        "any": {"anyOf": [{"type": "integer"}, {"type": "number"}]},
        "sparse": {"type": "integer", "enum": [1.0, 5, None]},
        "step": {"enum": [1, 2.5]},
        "code": {"oneOf": [{"const": 7}, {"type": "integer", "enum": [8, 9]}]},
        "many": {"type": "integer", "enum": [*range(100)]},
        "odd": {"type": "integer", "enum": [*range(0, 200, 2)]},
    },
}


def test_arrays_are_the_fields_that_ingestion_makes_of_them() -> None:
    spec, ignored = from_schema(PHASES)

    found = {name: field.model_dump(exclude_defaults=True) for name, field in spec.fields.items()}
    assert found == {
        "volts.0": {"min": 0, "required": True},
        "volts.1": {"min": 0, "required": True},
        "volts.2": {"min": 0},
        "pairs.0.on": {"type": "bool", "required": True},
        "pairs.1": {},
        "old.0": {"type": "string"},
        "old.1": {"type": "int"},
        "state": {"type": "string", "choices": ["on", "off", "auto"], "nullable": True},
        "level": {"type": "int", "choices": [3, 1, 2]},
        "fixed": {"choices": [2.5]},
        "any": {},
        "sparse": {"type": "int", "choices": [1, 5], "nullable": True},
        "step": {"choices": [1, 2.5]},
        "code": {"type": "int", "choices": [7, 8, 9]},
        "many": {"type": "int", "min": 0, "max": 99},
        "odd": {"type": "int"},
    }
    assert ignored == ["properties.odd.enum: is not understood"]
    sent, _ = flatten({"volts": [1, 2, 3], "pairs": [{"on": True}, 5], "old": ["a", 1]})
    assert sent.keys() <= found.keys()


def test_numbered_names_are_written_as_arrays() -> None:
    fields = {"v.0": {"required": True}, "v.1": {}, "v.2": {"required": True}, "w.1": {}, "x.0.y": {}, "x": {}}
    spec = DeviceTypeSpec.model_validate({"fields": fields, "unknown_fields": "quarantine"})

    properties = to_schema("t", 1, spec)["properties"]

    assert properties["v"] == {
        "type": "array", "minItems": 3, "items": False,
        "prefixItems": [NUMBER, NUMBER | {"x-headwater-required": False}, NUMBER],
    }  # fmt: skip
    assert properties["w"]["type"] == "object"
    assert properties["x"]["type"] == ["number", "array"]
    assert from_schema(to_schema("t", 1, spec)) == (spec, [])


TEN = {"type": "array", "items": NUMBER}


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (TEN, "maxItems"),
        (TEN | {"maxItems": 33}, "more than 32 elements"),
        ({"type": "array"}, "says nothing of its elements"),
        ({"type": ["integer", "string"]}, "integer or string is not taken"),
        ({"type": ["number", "null", "boolean"]}, "number or boolean is not taken"),
        ({"oneOf": [{"const": "a"}, {"enum": ["a", "b"]}]}, "no single type"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "no single type"),
        ({"anyOf": [{"type": "number", "maximum": 1}, {"type": "number", "minimum": 5}]}, "no single type"),
        ({"anyOf": [{"const": "a"}, {"const": 1}]}, "no single type"),
        ({"enum": ["a", 1]}, "no single type"),
    ],
)
def test_value_that_can_be_no_field_is_refused_unless_it_may_be_left_out(value, why) -> None:
    schema = {"properties": {"good": NUMBER, "group": {"properties": {"bad": value}}}}

    with pytest.raises(Unprocessable) as refusal:
        from_schema(schema)
    spec, ignored = from_schema(schema, is_partial=True)

    assert [place.partition(".bad")[0] for place in refusal.value.fields] == ["properties.group.properties"]
    assert why in refusal.value.detail
    assert list(spec.fields) == ["good"]
    assert ignored == [refusal.value.detail]


def test_arrays_within_themselves_end() -> None:
    schema = {
        "properties": {"a": {"$ref": "#/$defs/a"}},
        "$defs": {"a": {"items": {"$ref": "#/$defs/a"}, "maxItems": 1}},
    }

    spec, ignored = from_schema(schema)

    assert (spec.fields, len(ignored)) == ({}, 1)


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"type": "array"}, "type"),
        ({"properties": []}, "properties"),
        ({"$ref": "#", "type": "string"}, "type"),
        ({"$ref": "#"}, "type"),
        ({"nonsense": 1}, "type"),
        ({"oneOf": [{"properties": {"a": NUMBER}}, {"properties": {"b": NUMBER}}]}, "oneOf"),
        ({"properties": {"x": {"type": "string", "maxLength": -1}}}, "properties.x.maxLength"),
        ({"properties": {"x": {"type": "string", "enum": []}}}, "properties.x.enum"),
        ({"properties": {"x": {"properties": {"y.z": NUMBER | {"minimum": 2, "maximum": 1}}}}},
         "properties.x.properties.y.z.minimum"),
        ({"properties": {"": NUMBER}}, "properties."),
        ({"properties": {str(each): NUMBER for each in range(257)}}, "properties"),
        ({"properties": {}, "x-headwater-type": {"no_such": 1}}, "x-headwater-type.no_such"),
        ({"properties": {}, "x-headwater-type": {"time_unit": 5}}, "x-headwater-type.time_unit"),
        ({"properties": {}, "x-headwater-type": {"alerts": [{"name": "a", "when": "above"}]}},
         "x-headwater-type.alerts.0.field"),
    ],
)  # fmt: skip
def test_what_can_be_no_type_is_refused_with_its_place(schema, place) -> None:
    with pytest.raises(Unprocessable) as refusal:
        from_schema(schema)

    assert refusal.value.fields == (place,)
    assert refusal.value.detail.startswith(f"{place}: ")


def test_small_schema_that_opens_out_without_end_is_refused() -> None:
    ten = {str(each): {"$ref": "#/$defs/node"} for each in range(10)}
    schema = {"$defs": {"node": {"type": "object", "properties": ten}}, "$ref": "#/$defs/node"}

    with pytest.raises(Unprocessable, match="opens out to more than 5000 places"):
        from_schema(schema)


def loop() -> dict:
    below: dict = {"type": "object", "properties": {"again": {"$ref": "#/$defs/node"}}}
    return {"$defs": {"node": below}, "properties": {"node": {"$ref": "#/$defs/node"}}}


@pytest.mark.parametrize("schema", [loop(), {"properties": {"a": {"$ref": "#/properties/a"}}}])
def test_schema_that_names_itself_ends(schema) -> None:
    spec, ignored = from_schema(schema)

    assert spec.fields == {}
    assert ignored
