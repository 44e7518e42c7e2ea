"""The hook of protocols' services, through its routes."""

from __future__ import annotations

from base64 import b64encode

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

    def serve(self, *devices: str, **more) -> int:
        return int(self._post("route", devices=list(devices), **more)["routed"])

    def claim(self, wait: float = 0.0) -> list[dict[str, object]]:
        return list(self._post("claim", wait=wait)["commands"])

    def report(self, *reports) -> list[str]:
        return list(self._post("report", reports=list(reports))["unknown"])

    def tell_sent(self, command, **more) -> list[str]:
        told = {name: command[name] for name in ("id", "device", "attempt")}
        return self.report(told | {"is_sent": True} | more)

    def tell_worded(self, command, topic: str, payload: bytes, **more) -> list[str]:
        told = {name: command[name] for name in ("id", "device", "attempt")}
        form = {"topic": topic, "payload": b64encode(payload).decode()}
        return self.report(told | {"publish": form} | more)

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


def test_what_a_service_worded_is_published_and_counts_as_sent(connected_service, dial) -> None:
    device = dial("d1", connected_service.register("d1"))
    connected_service.admin("POST", "/v1/devices/d1/topics", {"filter": "spBv1.0/p/#", "protocol": "sparkplug"})
    connected_service.admin("POST", "/v1/devices/d1/names", {"name": "spb:p/n"})
    heard = device.listen("spBv1.0/p/NCMD/n")
    host, sent = FakeProtocol(connected_service, "sparkplug"), send(connected_service)

    claimed = host.claim()[0]
    again = wait_until(lambda: worded_again(host, claimed, heard))
    wait_until(lambda: shown(connected_service, sent)["state"] == "sent")

    assert (claimed["tenant"], claimed["gateway"], claimed["names"]) == ("default", None, ["spb:p/n"])
    assert again[0] == ("spBv1.0/p/NCMD/n", {"told": 1}, False)
    told = shown(connected_service, sent)
    assert (told["via"], told["tries"], host.claim()) == ("sparkplug", 1, [])


def worded_again(host: FakeProtocol, claimed, heard):
    """Word a command as its first attempt, until the broker has learnt of the claim: later tries change nothing."""
    host.tell_worded(claimed, "spBv1.0/p/NCMD/n", b'{"told":1}', retry_s=3600)
    return heard


def test_what_was_worded_waits_for_the_broker_and_is_given_out_to_nobody(service, lora) -> None:
    sent = send(service)
    claimed = lora.claim()[0]

    assert lora.tell_worded(claimed, "application/1/device/d1/command/down", b"x") == []

    assert (shown(service, sent)["state"], lora.claim()) == ("queued", [])
    assert lora.tell_worded(claimed | {"id": "nothing"}, "application/1", b"x") == ["nothing"]
    assert lora.tell_worded(claimed | {"device": "d2"}, "application/1", b"x") == [sent]


@pytest.mark.parametrize("topic", ["devices/d1/commands/1", "headwater/feed", "$SYS/x", "spBv1.0/+/NCMD/n", ""])
def test_no_service_has_the_platforms_own_topics_published(service, topic) -> None:
    report = {"id": "c1", "device": "d1", "publish": {"topic": topic, "payload": ""}}

    answer = service.internal("POST", "/internal/commands:report", {"protocol": "lorawan", "reports": [report]})

    assert (answer.status_code, answer.json["code"]) == (422, "unprocessable")


def test_devices_known_by_a_sparkplug_name_are_its_services_until_the_last_one_goes(service) -> None:
    host = FakeProtocol(service, "sparkplug")
    service.register("d1")
    for name in ("spb:p/n", "spb:p/m", "tb:other"):
        service.admin("POST", "/v1/devices/d1/names", {"name": name})
    sent = send(service)

    service.admin("DELETE", "/v1/devices/d1/names?name=spb:p/n")
    assert [each["id"] for each in host.claim()] == [sent]
    service.admin("POST", f"/v1/commands/{sent}:cancel")
    service.admin("DELETE", "/v1/devices/d1/names?name=spb:p/m")

    send(service)
    assert host.claim() == []


def test_commands_take_other_ways_again_when_no_protocol_sends_them(service, lora, config) -> None:
    send(service)

    FakeProtocol(service, "other").serve("d1", ends=True)
    assert len(lora.claim()) == 1, "only its own service gives a device up"
    send(service, "d2")
    lora.serve("d2")
    lora.serve("d2", ends=True)

    assert lora.claim() == []
