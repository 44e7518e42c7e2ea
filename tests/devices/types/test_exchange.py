from __future__ import annotations

import tomllib
from pathlib import Path

import orjson
import pytest

from compose.processes import DEMO_SCENARIOS
from devices.types import ready
from devices.types.rules import demand_sound
from ingest.validation import TypeChecker
from simulators import scenario
from simulators.dice import Dice
from wire.devices import DeviceType, DeviceTypeSpec

ROOT = Path(__file__).parents[3]
MIDNIGHT_S = 1_790_035_200.0  # 2026-09-22T00:00:00Z
PUMP = "/v1/device-types/pump"
SCHEMA = {"type": "object", "properties": {"p": {"type": "number", "maximum": 9}}, "if": {}}


@pytest.mark.parametrize("name", ready.read_all())
def test_shipped_types_are_sound_and_described(name) -> None:
    spec = ready.read_all()[name]

    demand_sound(spec)
    assert spec.description
    assert all(field.description for field in spec.fields.values())
    assert all(field.min is not None for field in spec.fields.values() if field.type in ("float", "int"))


@pytest.mark.parametrize("name", ["greenhouse", "cold-chain", "pump"])
def test_shipped_types_of_the_demo_are_those_of_its_devices(name) -> None:
    scenario = tomllib.loads((ROOT / f"simulators/scenarios/{name}.toml").read_text())

    made = DeviceTypeSpec.model_validate({"description": scenario["description"], "fields": scenario["fields"]})

    assert ready.read_all()[scenario["type"]] == made


@pytest.mark.parametrize("name", DEMO_SCENARIOS.split(","))
def test_shipped_types_take_all_that_demo_devices_send(name) -> None:
    group = scenario.load(name).groups[0]
    strict = ready.read_all()[group.type].model_dump() | {"name": name, "unknown_fields": "quarantine"}
    checker = TypeChecker(DeviceType.model_validate(strict))

    for seed in range(3):
        model = group.make(Dice(str(seed)), MIDNIGHT_S, seed)
        for minute in range(24 * 60):
            sent = orjson.loads(orjson.dumps(model.values(MIDNIGHT_S + minute * 60)))
            verdict = checker.check(sent)
            assert (verdict.faults, verdict.missing, verdict.fields.keys()) == ([], None, sent.keys())


def test_types_are_installed_once_and_existing_ones_left_alone(service) -> None:
    service.admin("PUT", PUMP, {"fields": {"mine": {}}})

    first = service.admin("POST", "/v1/device-types:install", {"names": ["pump", "shelly-plus"]}).json
    wrong = service.admin("POST", "/v1/device-types:install", {"names": ["tasmota-energy", "no-such"]})
    listed = {each["name"]: each["installed"] for each in service.admin("GET", "/v1/device-types:ready").json["items"]}

    assert first == {"installed": ["shelly-plus"], "present": ["pump"]}
    assert list(service.admin("GET", PUMP).json["fields"]) == ["mine"]
    assert (wrong.status_code, wrong.json["code"]) == (404, "type_not_found")
    assert (listed["shelly-plus"], listed["pump"], listed["tasmota-energy"]) == (True, True, False)
    assert len(listed) >= 11


def test_schema_becomes_a_draft_or_is_in_force_at_once(service) -> None:
    draft = service.admin("POST", PUMP + ":import", SCHEMA)
    active = service.admin("POST", PUMP + ":import?activate=true", SCHEMA)

    assert (draft.status_code, draft.json["version"]["state"]) == (201, "draft")
    assert draft.json["ignored"] == ["if: is not understood"]
    assert (active.json["version"]["version"], active.json["version"]["state"]) == (2, "active")
    assert service.admin("GET", PUMP).json["fields"]["p"]["max"] == 9


def test_export_gives_the_version_in_force_or_another(service) -> None:
    for most in (9, 5):
        service.admin("PUT", PUMP, {"fields": {"p": {"max": most}}})

    current = service.admin("GET", PUMP + ":export")
    older = service.admin("GET", PUMP + ":export?version=1").json

    assert current.content_type == "application/schema+json"
    assert (current.json["$id"], current.json["properties"]["p"]["maximum"]) == ("urn:headwater:device-type:pump:2", 5)
    assert older["properties"]["p"]["maximum"] == 9
    assert service.admin("GET", "/v1/device-types/none:export").status_code == 404


def test_import_of_what_is_no_schema_is_refused(service) -> None:
    for body in ([], "x", {"type": "array"}, {"properties": {"p": {"type": "number", "minimum": 3, "maximum": 1}}}):
        answer = service.admin("POST", PUMP + ":import", body)
        assert answer.status_code == 422, body
    assert service.admin("GET", PUMP + "/versions").status_code == 404
