from __future__ import annotations

import pytest

from devices.types.compare import compare, is_compatible
from wire.devices import DeviceTypeSpec

BASE = {"fields": {"t": {"min": -40, "max": 85, "unit": "C"}, "n": {"type": "int"}, "s": {"type": "string"}}}


def spec(**fields) -> DeviceTypeSpec:
    return DeviceTypeSpec.model_validate({"fields": BASE["fields"] | fields})


def changes(after: DeviceTypeSpec, before: DeviceTypeSpec | None = None) -> list[tuple[str, str, str | None]]:
    return [(each.path, each.level, each.code) for each in compare(before or spec(), after)]


def test_same_specs_differ_in_nothing() -> None:
    assert compare(spec(), spec()) == []
    assert is_compatible([])


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ({"t": {"min": -40, "max": 60, "unit": "C"}}, ("fields.t.max", "refuses", "out_of_range")),
        ({"t": {"min": 0, "max": 85, "unit": "C"}}, ("fields.t.min", "refuses", "out_of_range")),
        ({"t": {"min": -40, "unit": "C"}}, ("fields.t.max", "widens", None)),
        ({"t": {"min": -40, "max": 85, "unit": "F"}}, ("fields.t.unit", "changes", None)),
        ({"t": BASE["fields"]["t"] | {"required": True}}, ("fields.t.required", "refuses", "missing_field")),
        ({"n": {"type": "float"}}, ("fields.n.type", "refuses", "type_conflict")),
        ({"s": {"type": "string", "choices": ["a"]}}, ("fields.s.choices", "refuses", "out_of_range")),
        ({"s": {"type": "string", "max_length": 3}}, ("fields.s.max_length", "refuses", "out_of_range")),
        ({"n": {"type": "int", "choices": [1, 2]}}, ("fields.n.choices", "refuses", "out_of_range")),
        ({"n": {"type": "int", "nullable": True}}, ("fields.n.nullable", "widens", None)),
        ({"new": {"required": True}}, ("fields.new", "refuses", "missing_field")),
        ({"new": {}}, ("fields.new", "refuses", "type_conflict")),
    ],
)
def test_change_of_a_field_says_what_it_does_to_data(field, expected) -> None:
    found = compare(spec(), spec(**field))

    assert [(each.path, each.level, each.code) for each in found] == [expected]
    assert is_compatible(found) is (expected[1] != "refuses")


@pytest.mark.parametrize(
    ("before", "after", "level", "code"),
    [
        ("accept", "quarantine", "refuses", "unknown_field"),
        ("accept", "drop", "loses", None),
        ("quarantine", "drop", "widens", None),
        ("quarantine", "accept", "widens", None),
    ],
)
def test_stricter_rule_for_unknown_fields_refuses_or_loses(before, after, level, code) -> None:
    found = compare(DeviceTypeSpec(unknown_fields=before), DeviceTypeSpec(unknown_fields=after))

    assert [(each.level, each.code) for each in found] == [(level, code)]


def test_field_added_beside_refused_unknown_ones_only_widens() -> None:
    before = DeviceTypeSpec(unknown_fields="quarantine")
    after = DeviceTypeSpec.model_validate({"unknown_fields": "quarantine", "fields": {"new": {}}})

    assert changes(after, before) == [("fields.new", "widens", None)]
    assert changes(before, after) == [("fields.new", "refuses", "unknown_field")]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({"rate_limit": "20:1"}, {"rate_limit": "10:1"}, ("rate_limit", "refuses", "rate_limited")),
        ({"rate_limit": "20:1"}, {"rate_limit": "20:1,600:60"}, ("rate_limit", "refuses", "rate_limited")),
        ({"rate_limit": "20:1"}, {"rate_limit": ""}, ("rate_limit", "widens", None)),
        ({}, {"type_rate_limit": "10:1"}, ("type_rate_limit", "refuses", "rate_limited")),
        ({"type_rate_limit": "20:1"}, {}, ("type_rate_limit", "widens", None)),
        ({}, {"time_back_s": 60}, ("time_back_s", "refuses", "too_old")),
        ({"time_ahead_s": 60}, {"time_ahead_s": 90}, ("time_ahead_s", "widens", None)),
        ({"retention_days": 30}, {"retention_days": 7}, ("retention_days", "loses", None)),
        ({"retention_days": 30}, {}, ("retention_days", "widens", None)),
        ({}, {"time_unit": "ms"}, ("time_unit", "changes", None)),
        ({}, {"alerts": [{"name": "a", "when": "silent", "for_s": 5}]}, ("alerts", "changes", None)),
    ],
)
def test_change_of_a_policy_says_what_it_does_to_data(before, after, expected) -> None:
    assert changes(DeviceTypeSpec.model_validate(after), DeviceTypeSpec.model_validate(before)) == [expected]
