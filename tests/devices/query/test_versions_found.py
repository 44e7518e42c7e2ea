"""Firmware versions on their way from twins and attributes to queries."""

from __future__ import annotations

import pytest


@pytest.fixture
def finds(service):
    def found(query: str) -> list[str]:
        answer = service.admin("GET", "/v1/devices", query_string={"q": query})
        assert answer.status_code == 200, answer.json
        return [item["id"] for item in answer.json["items"]]

    return found


def report(device, patch) -> None:
    assert device("PATCH", "/v1/device/twin/reported", patch).status_code == 200


def shown(service) -> str | None:
    return service.admin("GET", "/v1/devices/d1").json["fw"]


def test_reported_version_is_found_and_compared_as_a_version(service, finds) -> None:
    for name, version in (("a", "1.9"), ("b", "1.10"), ("c", "1.10-rc1"), ("d", "2")):
        report(service.device(name), {"fw": version} if name < "c" else {"firmware": {"version": version}})

    assert finds("fw < 1.10") == ["a", "c"]
    assert finds("fw >= 1.10") == ["b", "d"]
    assert finds("not has fw") == []


def test_device_that_reports_none_any_more_has_its_attribute(service, finds) -> None:
    device = service.device("d1", attributes={"fw": "0.1"})
    seen = [shown(service)]
    for patch in ({"fw": "1.0"}, {"fw": "2.0", "other": 1}, {"other": 2}, {"fw": None}):
        report(device, patch)
        seen.append(shown(service))

    assert seen == ["0.1", "1.0", "2.0", "2.0", "0.1"]
    assert finds("fw=0.1") == ["d1"]


def test_attribute_does_not_hide_what_the_device_reports(service, finds) -> None:
    report(service.device("d1"), {"fw": "1.0"})
    answer = service.admin("PATCH", "/v1/devices/d1", {"attributes": {"fw": "9.0"}})

    assert (answer.json["fw"], shown(service)) == ("1.0", "1.0")
    assert finds("fw<2 and attr.fw=9.0") == ["d1"]


def test_presence_of_a_device_that_never_spoke_is_found(service, finds) -> None:
    service.register("silent")

    assert finds("presence=never_seen") == finds("presence=never") == ["silent"]
    assert finds("presence in (online, stale, offline)") == []
