from __future__ import annotations

import pytest
from pydantic import ValidationError

from devices.types.rules import demand_sound
from wire.devices import DeviceTypeSpec
from wire.errors import Unprocessable

FIELDS = {"t": {"min": 0, "max": 9}, "on": {"type": "bool"}, "s": {"type": "string", "choices": ["a"]},
          "step": {"choices": [1, 2.5], "nullable": True}}  # fmt: skip


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({"fields": {"t": {"min": 2, "max": 1}}}, "fields.t.min"),
        ({"fields": {"t": {"type": "bool", "max": 1}}}, "fields.t.max"),
        ({"fields": {"t": {"choices": ["a"]}}}, "fields.t.choices"),
        ({"fields": {"t": {"type": "string", "choices": []}}}, "fields.t.choices"),
        ({"fields": {"t": {"type": "int", "choices": [1, 2.5]}}}, "fields.t.choices"),
        ({"fields": {"t": {"type": "string", "choices": ["a", 1]}}}, "fields.t.choices"),
        ({"fields": {"t": {"type": "bool", "choices": [1]}}}, "fields.t.choices"),
        ({"fields": {"t": {"required": True, "nullable": True}}}, "fields.t.nullable"),
        ({"fields": {"t": {"type": "int", "max_length": 3}}}, "fields.t.max_length"),
        ({"alerts": [{"name": "a", "when": "above", "field": "none", "value": 1}]}, "alerts.0.field"),
        ({"alerts": [{"name": "a", "when": "above", "field": "on", "value": 1}]}, "alerts.0.when"),
        ({"alerts": [{"name": "a", "when": "above", "field": "t", "value": "x"}]}, "alerts.0.value"),
        ({"alerts": [{"name": "a", "when": "equals", "field": "on", "value": "x"}]}, "alerts.0.value"),
        ({"alerts": [{"name": "a", "when": "silent"}]}, "alerts.0.for_s"),
        ({"alerts": [{"name": "a", "when": "silent", "for_s": 1, "value": 2}]}, "alerts.0.value"),
        ({"alerts": [{"name": "a", "when": "silent", "for_s": 1}] * 2}, "alerts.1.name"),
    ],
)
def test_spec_that_contradicts_itself_is_refused_with_the_member(given, path) -> None:
    with pytest.raises(Unprocessable) as caught:
        demand_sound(DeviceTypeSpec.model_validate({"fields": FIELDS} | given))

    assert caught.value.fields == (path,)


@pytest.mark.parametrize("odd", [True, None, 2**60, "x" * 257, float("inf"), [1]])
def test_choice_that_is_no_text_and_no_number_is_refused_once(odd) -> None:
    with pytest.raises(ValidationError) as caught:
        DeviceTypeSpec.model_validate({"fields": {"t": {"choices": [odd]}}})

    assert [fault["loc"] for fault in caught.value.errors()] == [("fields", "t", "choices", 0)]


def test_sound_spec_passes() -> None:
    alerts = [
        {"name": "hot", "when": "above", "field": "t", "value": 8, "for_s": 60, "severity": "critical"},
        {"name": "off", "when": "equals", "field": "on", "value": False},
        {"name": "gone", "when": "silent"},
    ]

    demand_sound(DeviceTypeSpec.model_validate({"fields": FIELDS, "alerts": alerts, "expected_interval_s": 10}))
