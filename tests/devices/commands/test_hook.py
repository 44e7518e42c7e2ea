"""The hook of protocols' services, through its routes."""

from __future__ import annotations

import pytest

from devices.commands.store import CommandQueue
from tests.support.waiting import wait_until

COMMANDS = "/v1/devices/d1/commands"


def send(service, device: str = "d1", **more) -> str:
    return str(service.admin("POST", f"/v1/devices/{device}/commands", {"name": "open"} | more).json["id"])


def shown(service, command_id: str):
    return service.admin("GET", f"/v1/commands/{command_id}").json


class FakeProtocol:
    """A protocol's service of a few lines: claims, sends in its own form, reports."""

    def __init__(self, service, protocol: str = "lorawan") -> None:
        self.call, self.protocol = service.internal, protocol

    def serve(self, *devices: str) -> int:
        return int(self._post("route", devices=list(devices))["routed"])

    def claim(self, wait: float = 0.0) -> list[dict[str, object]]:
        return list(self._post("claim", wait=wait)["commands"])

    def report(self, *reports) -> list[str]:
        return list(self._post("report", reports=list(reports))["unknown"])

    def tell_sent(self, command, **more) -> list[str]:
        told = {name: command[name] for name in ("id", "device", "attempt")}
        return self.report(told | {"is_sent": True} | more)

    def _post(self, verb: str, **body):
        answer = self.call("POST", f"/internal/commands:{verb}", {"protocol": self.protocol} | body)
        assert answer.status_code == 200, answer.json
        return answer.json


@pytest.fixture
def lora(service) -> FakeProtocol:
    for device in ("d1", "d2"):
        service.register(device)
    protocol = FakeProtocol(service)
    assert protocol.serve("d1", "no-such") == 1
    return protocol


def test_protocol_service_sends_in_its_own_form(service, lora) -> None:
    mine, other = send(service, params={"valve": 1}), send(service, "d2")

    taken = lora.claim()
    unknown = lora.tell_sent(taken[0])

    assert [(each["id"], each["device"], each["params"]) for each in taken] == [(mine, "d1", {"valve": 1})]
    told = shown(service, mine)
    assert (told["state"], told["via"], told["delivered"], unknown) == ("sent", "lorawan", None, [])
    assert shown(service, other)["state"] == "queued"
    report = {"device": "d1", "result": {"open": True}}
    assert lora.report({"id": mine} | report, {"id": "nothing"} | report) == ["nothing"]
    assert shown(service, mine)["state"] == "succeeded"


def test_claimed_command_is_nobody_elses_until_the_lease_is_over(service) -> None:
    device = service.device()
    lora = FakeProtocol(service)
    lora.serve("d1")
    sent = send(service)

    assert [each["id"] for each in lora.claim()] == [sent]
    assert lora.claim() == []
    assert device("GET", "/v1/device/commands").status_code == 204


def test_coming_of_the_device_ends_no_lease(service, lora) -> None:
    send(service)
    lora.claim()

    CommandQueue(service.app.extensions["headwater.database"], 1).wake(["d1"])

    assert lora.claim() == []


def test_what_was_sent_is_given_out_again_after_the_time_its_answer_may_take(service, lora) -> None:
    sent = send(service)

    lora.tell_sent(lora.claim()[0], retry_s=1)

    assert lora.claim() == []
    again = wait_until(lora.claim)
    assert [(each["id"], each["attempt"]) for each in again] == [(sent, 2)]


def test_report_that_is_repeated_counts_once(service, lora) -> None:
    sent = send(service)
    claimed = lora.claim()[0]

    for _ in range(3):
        assert lora.tell_sent(claimed, retry_s=60) == []

    assert shown(service, sent)["tries"] == 1


def test_report_about_anothers_command_is_unknown(service, lora) -> None:
    sent = send(service)
    lora.claim()

    assert lora.report({"id": sent, "device": "d2", "is_sent": True}) == [sent]
    assert shown(service, sent)["state"] == "queued"


@pytest.mark.parametrize(
    ("away", "back"), [("devices/a1:disable", "devices/a1:enable"), ("tenants/acme:suspend", "tenants/acme:resume")]
)
def test_devices_that_may_do_nothing_are_sent_nothing(service, away, back) -> None:
    service.admin("POST", "/v1/tenants", {"id": "acme"})
    acme, lora = {"Headwater-Tenant": "acme"}, FakeProtocol(service)
    service.admin("POST", "/v1/devices", {"id": "a1"}, headers=acme)
    service.admin("POST", "/v1/devices/a1/commands", {"name": "open"}, headers=acme)
    lora.serve("a1")

    def do(path: str) -> int:
        return int(service.admin("POST", f"/v1/{path}", headers=acme if "devices" in path else {}).status_code)

    assert (do(away), lora.claim()) == (200, [])
    assert do(back) == 200
    assert [each["name"] for each in lora.claim()] == ["open"]
