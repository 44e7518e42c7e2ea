from __future__ import annotations

from typing import Any

import pytest

from ingest import usage as counted
from ingest.reports import DEVICE_TURNS, USAGE_TURNS, Reports
from ingest.usage import MAX_LABELS, MESSAGES, OTHERS, UNTOLD, Usage
from tests.ingest.intake_support import FakeRegistry
from wire.errors import PeerUnavailable


class Registry(FakeRegistry):
    """Notes what it is told; `is_away` cuts it off."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[dict[str, Any]] = []

    def call(self, method: str, path: str, body: Any = None, *, token: str | None = None) -> Any:
        if self.is_away:
            raise PeerUnavailable("away")
        if path == "/internal/usage":
            self.told.append(body)


def use(tenant: str, kind: str, device: str, readings: int = 1, size: int = 10):
    return tenant, kind, device, (1, readings, size)


def test_what_is_taken_counts_once_and_comes_back_when_it_was_not_told() -> None:
    usage = Usage()
    usage.note([use("acme", "pump", "d1", 2, 30), use("acme", "pump", "d2"), use("other", "", "d3")])
    usage.note([use("acme", "fan", "d1")])

    types, devices = usage.take_types(), usage.take_devices()

    assert types == {("acme", "pump"): [2, 3, 40], ("other", ""): [1, 1, 10], ("acme", "fan"): [1, 1, 10]}
    assert devices == {("acme", "d1"): [2, 3, 40], ("acme", "d2"): [1, 1, 10], ("other", "d3"): [1, 1, 10]}
    assert (usage.take_types(), usage.take_devices()) == ({}, {})
    usage.note([use("acme", "pump", "d1")])
    usage.put_types_back(types)
    usage.put_devices_back(devices)
    assert usage.take_types()["acme", "pump"] == [3, 4, 50]
    assert usage.take_devices()["acme", "d1"] == [3, 4, 50]


def test_metrics_have_few_labels_however_many_tenants_there_are() -> None:
    usage = Usage()
    before = MESSAGES.labels(OTHERS)._value.get()

    usage.note(use(f"many-{number}", "", "d") for number in range(MAX_LABELS + 5))

    assert MESSAGES.labels(OTHERS)._value.get() - before == 5


def test_devices_beyond_the_bound_are_counted_as_missing_and_their_types_all_the_same(monkeypatch) -> None:
    monkeypatch.setattr(counted, "MAX_DEVICES", 2)
    usage, before = Usage(), UNTOLD._value.get()

    usage.note(use("acme", "pump", device) for device in ("d1", "d2", "d3", "d1"))

    assert usage.take_types() == {("acme", "pump"): [4, 4, 40]}
    assert usage.take_devices() == {("acme", "d1"): [2, 2, 20], ("acme", "d2"): [1, 1, 10]}
    assert UNTOLD._value.get() - before == 1


def test_usage_waits_while_the_registry_is_away() -> None:
    registry = Registry()
    reports = Reports(registry)
    reports.usage.note([use("acme", "pump", "d1", 2, 3)])
    registry.is_away = True
    reports.tell(0)

    registry.is_away = False
    reports.tell(0)
    reports.tell(0)

    assert registry.told == [{"types": {"acme": {"pump": [1, 2, 3]}}}, {"devices": {"acme": {"d1": [1, 2, 3]}}}]


@pytest.mark.parametrize(
    ("turn", "many", "told"),
    [(1, 100, []), (USAGE_TURNS, 100, ["types"]), (DEVICE_TURNS, 100, ["types", "devices"]), (1, 1, ["devices"])],
)
def test_devices_are_told_seldom_unless_they_are_many(turn, many, told, monkeypatch) -> None:
    monkeypatch.setattr(counted, "MANY_DEVICES", many)
    registry = Registry()
    reports = Reports(registry)
    reports.usage.note([use("acme", "", "d1"), use("acme", "", "d2")])

    reports.tell(turn)

    assert [name for body in registry.told for name in body] == told


def test_report_of_a_large_fleet_comes_in_parts(monkeypatch) -> None:
    monkeypatch.setattr("ingest.reports.MAX_DEVICES_PER_CALL", 2)
    registry = Registry()
    reports = Reports(registry)
    reports.usage.note(use("acme", "", f"d{number}") for number in range(5))

    reports.tell_devices()

    assert [sorted(body["devices"]["acme"]) for body in registry.told] == [["d0", "d1"], ["d2", "d3"], ["d4"]]
