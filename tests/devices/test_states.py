"""States of a device: never seen, in service, refused for now, out of service for good."""

from __future__ import annotations

import time

from tests.devices.running import Service
from tests.support.waiting import wait_until

SOON_S = 10.0  # 2 s are promised; a crowded machine takes its time


def state_of(service: Service, device_id: str = "d1") -> str:
    return str(service.admin("GET", f"/v1/devices/{device_id}").json["state"])


def see(service: Service, device_id: str = "d1") -> None:
    service.internal("POST", "/internal/seen", {"devices": {device_id: time.time_ns()}})


def ids_in(service: Service, state: str) -> list[str]:
    return [item["id"] for item in service.admin("GET", f"/v1/devices?state={state}").json["items"]]


def test_device_is_registered_until_it_is_seen(service) -> None:
    service.register("d1")
    service.register("d2")

    see(service)

    assert (state_of(service), state_of(service, "d2")) == ("active", "registered")
    assert (ids_in(service, "active"), ids_in(service, "registered")) == (["d1"], ["d2"])


def test_enabled_device_is_what_it_was_before(service) -> None:
    for device_id in ("seen", "new"):
        service.register(device_id)
    see(service, "seen")

    for device_id, before in (("seen", "active"), ("new", "registered")):
        disabled = service.admin("POST", f"/v1/devices/{device_id}:disable").json["state"]
        enabled = service.admin("POST", f"/v1/devices/{device_id}:enable").json["state"]
        assert (disabled, enabled, state_of(service, device_id)) == ("disabled", before, before)


def test_retired_device_keeps_id_and_nothing_to_come_back_with(service) -> None:
    service.register("d1", type="pump", tags={"site": "a"})
    see(service)

    retired = service.admin("POST", "/v1/devices/d1:retire").json
    again = service.admin("POST", "/v1/devices/d1:retire")
    shown = service.admin("GET", "/v1/devices/d1").json
    refused = [
        service.admin("POST", f"/v1/devices/d1{tail}", body)
        for tail, body in ((":enable", None), (":disable", None), ("/credentials", {}), ("/credentials:rotate", {}))
    ]

    assert (retired["state"], again.json["state"], ids_in(service, "retired")) == ("retired", "retired", ["d1"])
    assert (shown["type"], shown["tags"], shown["credentials"]) == ("pump", {"site": "a"}, [])
    assert {(answer.status_code, answer.json["code"]) for answer in refused} == {(409, "device_retired")}
    assert service.admin("POST", "/v1/devices", {"id": "d1"}).json["code"] == "device_exists"
    looked_up = service.internal("POST", "/internal/devices:lookup", {"ids": ["d1"]}).json["devices"][0]
    assert (looked_up["state"], looked_up["credentials"]) == ("retired", [])
    actions = [entry["action"] for entry in service.admin("GET", "/v1/audit?object=d1").json["items"]]
    assert actions == ["device.retire", "device.create"]


def test_patch_of_a_retired_device_leaves_it_retired(service) -> None:
    service.register("d1")
    service.admin("POST", "/v1/devices/d1:retire")

    service.admin("PATCH", "/v1/devices/d1", {"tags": {"scrapped": "2026"}})

    assert state_of(service) == "retired"


def test_retired_device_is_cut_off_and_stays_out(connected_service, dial) -> None:
    device = dial("d1", connected_service.register("d1"))
    other = dial("d2", connected_service.register("d2"))
    wait_until(lambda: device.is_connected() and other.is_connected())

    connected_service.admin("POST", "/v1/devices/d1:retire")

    wait_until(lambda: not device.is_connected(), SOON_S)
    wait_until(lambda: device.codes[-1] == "Not authorized")
    assert other.codes.count("Success") == 1


def test_audit_tells_what_was_before_and_after(service) -> None:
    service.register("d1", tags={"site": "a"}, type="pump")
    service.admin("PATCH", "/v1/devices/d1", {"tags": {"site": "b"}})
    service.admin("POST", "/v1/devices/d1:disable")

    disabled, updated = service.admin("GET", "/v1/audit?object=d1").json["items"][:2]

    assert updated["detail"] == {"before": {"tags": {"site": "a"}}, "after": {"tags": {"site": "b"}}}
    assert (disabled["action"], disabled["detail"]["after"]) == ("device.disable", {"state": "disabled"})


def test_audit_tells_which_version_of_a_type_was_in_force_before(service) -> None:
    for description in ("one", "two"):
        service.admin("PUT", "/v1/device-types/pump", {"description": description})

    updated, created = service.admin("GET", "/v1/audit?object=pump").json["items"]

    assert created["detail"]["before"] == {"version": None}
    assert (updated["detail"]["before"], updated["detail"]["after"]) == ({"version": 1}, {"version": 2})
