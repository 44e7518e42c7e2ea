from __future__ import annotations

import pytest

from wire import devices, topics

BAD_IDS = ["", "+", "#", "a/b", "a\0", "ä", "-a", ".a", "_a", "a\n", "a b", "a" * 65, "$SYS", "%2e"]


@pytest.mark.parametrize("device_id", BAD_IDS)
def test_odd_device_ids_are_refused(device_id: str) -> None:
    assert not topics.is_device_id(device_id)
    parsed = topics.parse_device_topic(f"devices/{device_id}/telemetry")
    assert parsed is None or parsed.channel != "telemetry"
    with pytest.raises(ValueError):
        devices.DeviceIdentity(id=device_id)


@pytest.mark.parametrize("device_id", ["a", "7", "a.b-c_d", "A" * 64, "a.."])
def test_legal_device_ids_are_taken(device_id: str) -> None:
    assert topics.is_device_id(device_id)
    assert topics.parse_device_topic(f"devices/{device_id}/telemetry/senml") == (device_id, "telemetry", "senml")


def test_topics_of_a_device_are_its_own_branch() -> None:
    assert topics.telemetry("d1") == "devices/d1/telemetry"
    assert topics.telemetry("d1", "cbor") == "devices/d1/telemetry/cbor"
    assert topics.status("d1") == "devices/d1/status"
    assert topics.errors("d1") == "devices/d1/errors"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("d1.secret", ("d1", "secret")),
        ("a.b.c", ("a.b", "c")),
        ("d1.", None),
        (".x", None),
        ("d1", None),
        ("a/b.c", None),
    ],
)
def test_bearer_splits_at_the_last_dot(text: str, expected: tuple[str, str] | None) -> None:
    assert devices.parse_bearer(text) == expected


def test_roles_include_the_lesser_ones() -> None:
    assert devices.allows("admin", "viewer")
    assert devices.allows("operator", "operator")
    assert not devices.allows("viewer", "operator")
