"""What devices tell of their fields, on its way to the registry."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ingest import descriptions
from ingest.gate import Known
from ingest.protocols.base import Description
from ingest.reports import Reports
from tests.ingest.intake_support import FakeRegistry

GATEWAY = Known("gw", "default", True, None, True, (), 0.0, born_ns=1)
T = Description("t", "m", unit="°C")


@pytest.fixture
def registry() -> FakeRegistry:
    return FakeRegistry()


def told(registry: FakeRegistry) -> list[Any]:
    return [(each["device"], each["name"], field) for each in registry.described for field in each["fields"]]


def test_description_is_told_once_until_it_changes(registry) -> None:
    reports = Reports(registry)
    for each in (T, T, replace(T, unit="°F")):
        reports.descriptions.note(GATEWAY, [each])
        reports.send()
        reports.send()

    units = [field["unit"] for _, _, field in told(registry)]
    assert units == ["°C", "°F"]


def test_two_who_tell_different_things_of_a_field_do_not_make_each_other_news(registry) -> None:
    reports = Reports(registry)
    for each in (T, Description("t", "m", label="Air"), T, Description("t", "m", label="Air")):
        reports.descriptions.note(GATEWAY, [each])
        reports.send()

    assert len(told(registry)) == 2


def test_device_that_was_registered_anew_is_described_anew(registry) -> None:
    reports = Reports(registry)
    for sender in (GATEWAY, GATEWAY._replace(born_ns=2)):
        reports.descriptions.note(sender, [T])
        reports.send()

    assert len(told(registry)) == 2


def test_what_cannot_be_told_waits_while_the_registry_is_away(registry) -> None:
    reports = Reports(registry)
    registry.is_away = True
    reports.descriptions.note(GATEWAY, [T])
    reports.send()
    reports.descriptions.note(GATEWAY, [Description("t", "m", label="Air")])
    registry.is_away = False
    reports.send()

    assert told(registry) == [("gw", "", {"measurement": "m", "field": "t", "unit": "°C", "label": "Air"})]


def test_names_and_texts_are_in_bounds(registry) -> None:
    reports = Reports(registry)
    odd = [
        Description("", unit="V"), Description("x" * 257, unit="V"), Description("a\n", unit="V"),
        Description("b", device="no scheme", unit="V"), Description("c"), Description("d", low=float("nan")),
        Description("e", device="zigbee:gw", unit="V" * 99, label="\ud800a\0b\u2028" + "ü" * 300),
        Description("f", device="zigbee:x", high=1.5),
    ]  # fmt: skip
    reports.descriptions.note(GATEWAY, odd)
    reports.send()

    e = {"measurement": "telemetry", "field": "e", "unit": "V" * 32, "label": "ab" + "ü" * 126}
    f = {"measurement": "telemetry", "field": "f", "max": 1.5}
    assert told(registry) == [("gw", "", e), ("gw", "zigbee:x", f)]


def test_flood_of_fields_is_bounded(registry, monkeypatch) -> None:
    monkeypatch.setattr(descriptions, "MAX_WAITING", 2_500)
    reports = Reports(registry)
    reports.descriptions.note(GATEWAY, [Description(f"f{at}", unit="V") for at in range(10_000)])
    reports.send()

    assert len(told(registry)) == 2_500
    assert registry.calls.count("/internal/descriptions") == 3
