"""What is told to the registry: bounded, single-line, best effort."""

from __future__ import annotations

from ingest.reports import MAX_AUDIT, OF_ONE_AUDIT, AuditEntry, Reports
from tests.ingest.intake_support import FakeRegistry


def attempt(number: int = 0, **members: str) -> AuditEntry:
    given = {
        "actor": f"device:d{number}",
        "action": "telemetry.identity_mismatch",
        "object": "device:x",
        "detail": "why",
    }
    return AuditEntry(**given | members)


def test_same_attempt_is_told_once_a_minute() -> None:
    registry = FakeRegistry()
    reports = Reports(registry)
    for _ in range(3):
        reports.note_attempt(attempt())
    reports.send()
    reports.send()

    assert len(registry.audit) == 1


def test_flood_of_one_device_leaves_few_entries_and_hides_no_other_device() -> None:
    registry = FakeRegistry()
    reports = Reports(registry)
    for number in range(10 * OF_ONE_AUDIT):
        reports.note_attempt(attempt(object=f"device:c{number}"))
    reports.note_attempt(attempt(1))
    reports.send()

    actors = [entry["actor"] for entry in registry.audit]
    assert actors == ["device:d0"] * OF_ONE_AUDIT + ["device:d1"]


def test_what_is_told_of_presence_waits_while_the_registry_is_away() -> None:
    registry = FakeRegistry()
    registry.is_away = True
    reports = Reports(registry)
    reports.note_presence({"pump": False, "valve": False}, 5)
    reports.send()
    reports.note_presence({"valve": True}, 6)
    registry.is_away = False
    reports.send()

    assert registry.presence == {"pump": (False, 5), "valve": (True, 6)}


def test_names_of_strangers_become_single_lines() -> None:
    registry = FakeRegistry()
    reports = Reports(registry)
    reports.note_attempt(attempt(object="device:\n\x00" + "ü" * 500))
    reports.send()

    assert registry.audit[0]["object"] == "device:??" + "?" * 247
    assert registry.audit[0]["detail"] == {"reason": "why"}


def test_attempts_wait_while_the_registry_is_away_but_not_without_bound() -> None:
    registry = FakeRegistry()
    registry.is_away = True
    reports = Reports(registry)
    for number in range(MAX_AUDIT + 50):
        reports.note_attempt(attempt(number))
    reports.send()
    registry.is_away = False
    reports.send()

    assert len(registry.audit) == MAX_AUDIT


def test_seen_devices_go_in_parts() -> None:
    registry = FakeRegistry()
    reports = Reports(registry)
    for number in range(12_000):
        reports.note_seen(f"d{number}", number, "c")
    reports.send()

    assert registry.calls.count("/internal/seen") == 3
    assert registry.seen["d11999"] == 11_999


def test_arrivals_over_mqtt_are_told_apart() -> None:
    registry = FakeRegistry()
    reports = Reports(registry)
    reports.note_seen("d1", 1)
    reports.note_seen("d2", 2, "c")
    reports.send()

    assert (registry.seen_by_mqtt, registry.seen) == ({"d1": 1}, {"d2": 2})
