"""Commands of devices that go: they end at once, with a reason, and who waits for one is told."""

from __future__ import annotations

import pytest

from tests.support.tiny_loop import TinyLoop
from tests.support.waiting import wait_until

GOING = {
    "retire": ("POST", "/v1/devices/d1:retire", None, "device_retired"),
    "delete": ("DELETE", "/v1/devices/d1", None, "device_gone"),
    "move": ("POST", "/v1/devices/d1:move", {"tenant": "acme"}, "device_gone"),
}


def send(service, device: str = "d1", name: str = "blink") -> str:
    return str(service.admin("POST", f"/v1/devices/{device}/commands", {"name": name}).json["id"])


def listed(service, query: str) -> list[tuple[str, str, str | None]]:
    items = service.admin("GET", f"/v1/commands?{query}").json["items"]
    return sorted((each["device"], each["state"], each["error"]) for each in items)


def cancels(service, device: str = "d1") -> list[dict[str, str]]:
    entries = service.admin("GET", f"/v1/audit?object={device}&action=command.cancel").json["items"]
    return [entry["detail"] for entry in reversed(entries)]


@pytest.mark.parametrize("verb", GOING)
def test_caller_that_waits_is_told_when_the_device_goes(service, verb) -> None:
    method, path, body, reason = GOING[verb]
    service.admin("POST", "/v1/tenants", {"id": "acme", "title": "Acme"})
    service.register("d1")
    ids = [send(service), send(service)]
    loop, answers = TinyLoop(), []
    loop.begin(lambda: answers.append(service.admin("GET", f"/v1/commands/{ids[1]}?wait=50")))
    loop.run_until(lambda: any(loop.parked))  # it waits

    assert service.admin(method, path, body).status_code < 300
    loop.run_until(lambda: answers)

    told = answers[0].json
    assert (told["state"], told["error"], told["ended"] is None) == ("cancelled", reason, False)
    assert cancels(service) == [{"id": id_, "reason": reason} for id_ in ids]


def test_commands_of_a_bulk_action_end_with_their_devices_and_no_others(service) -> None:
    for device in ("d1", "d2", "d3"):
        service.register(device)
    action = {"do": "command", "command": {"name": "blink"}}
    job = service.admin("POST", "/v1/devices:bulk", {"query": "id~d*", "action": action}).json["id"]
    wait_until(lambda: service.admin("GET", f"/v1/jobs/{job}").json["state"] == "done")

    retiring = service.admin("POST", "/v1/devices:bulk", {"query": "id in (d1, d2)", "action": {"do": "retire"}}).json
    wait_until(lambda: service.admin("GET", f"/v1/jobs/{retiring['id']}").json["state"] == "done")

    assert listed(service, f"job={job}") == [
        ("d1", "cancelled", "device_retired"),
        ("d2", "cancelled", "device_retired"),
        ("d3", "queued", None),
    ]
    assert service.admin("GET", "/v1/audit?action=command.cancel").json["items"][0]["actor"]


def test_what_had_ended_before_stays_as_it_was(service) -> None:
    device = service.device()
    done = send(service)
    device("POST", f"/v1/device/commands/{done}/reply", {"result": 1})

    service.admin("POST", "/v1/devices/d1:retire")

    assert listed(service, "device=d1") == [("d1", "succeeded", None)]
    assert cancels(service) == []


def test_disabled_device_finds_its_commands_when_it_is_enabled(service) -> None:
    device = service.device()
    sent = send(service)
    service.admin("POST", "/v1/devices/d1:disable")
    assert listed(service, "device=d1") == [("d1", "queued", None)]
    assert device("GET", "/v1/device/commands").status_code == 403

    service.admin("POST", "/v1/devices/d1:enable")

    assert device("GET", "/v1/device/commands").json["commands"][0]["id"] == sent
