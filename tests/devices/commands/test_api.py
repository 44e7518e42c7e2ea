from __future__ import annotations

import threading

import pytest

from tests.devices.running import Service
from tests.support.waiting import wait_until

COMMANDS = "/v1/devices/d1/commands"


def send(service, name: str = "reboot", device: str = "d1", **more):
    answer = service.admin("POST", f"/v1/devices/{device}/commands", {"name": name} | more)
    assert answer.status_code == 201, answer.json
    return answer.json


def state(service, command_id: str) -> str:
    return str(service.admin("GET", f"/v1/commands/{command_id}").json["state"])


def test_wrong_secrets_of_a_device_have_to_wait(service) -> None:
    device = service.device()
    guess = {"headers": {"Authorization": "Bearer d1.wrong"}}

    statuses = [service.nobody("GET", "/v1/device/commands", **guess).status_code for _ in range(12)]

    assert statuses == [401] * 10 + [429] * 2
    assert device("GET", "/v1/device/commands").status_code == 204


def test_command_goes_its_way_over_http(service) -> None:
    device = service.device()
    sent = send(service, "blink", params={"times": 3})

    got = device("GET", "/v1/device/commands").json["commands"]
    assert state(service, sent["id"]) == "sent"
    device("POST", f"/v1/device/commands/{sent['id']}/reply", {"state": "accepted"})
    assert state(service, sent["id"]) == "delivered"
    device("POST", f"/v1/device/commands/{sent['id']}/reply", {"result": {"ok": True}})

    assert [(each["id"], each["name"], each["params"], each["attempt"]) for each in got] == [
        (sent["id"], "blink", {"times": 3}, 1)
    ]
    ended = service.admin("GET", f"/v1/commands/{sent['id']}").json
    assert (ended["state"], ended["result"], ended["via"], ended["tries"]) == ("succeeded", {"ok": True}, "http", 1)
    assert sent["created"] <= ended["sent"] <= ended["delivered"] <= ended["ended"]
    assert device("GET", "/v1/device/commands").status_code == 204


def test_next_command_waits_for_the_end_of_the_one_before(service) -> None:
    device = service.device()
    first, second = send(service, "a"), send(service, "b")

    def taken() -> list[str]:
        answer = device("GET", "/v1/device/commands")
        return [each["name"] for each in answer.json["commands"]] if answer.status_code == 200 else []

    assert taken() == ["a"]
    assert taken() == []  # it was handed out just now
    device("POST", f"/v1/device/commands/{first['id']}/reply", {"error": "stuck"})
    assert taken() == ["b"]
    service.admin("POST", f"/v1/commands/{second['id']}:cancel")
    assert [item["state"] for item in service.admin("GET", COMMANDS).json["items"]] == ["cancelled", "failed"]


def test_window_lets_several_go_at_once(config) -> None:
    service = Service(config.model_copy(update={"command_window": 2}))
    try:
        device = service.device()
        for name in "abc":
            send(service, name)

        got = device("GET", "/v1/device/commands").json["commands"]
    finally:
        service.stop()

    assert [each["name"] for each in got] == ["a", "b"]


def test_same_key_is_the_same_command(service) -> None:
    service.register("d1")
    first = send(service, idempotency_key="k1")
    again = service.admin("POST", COMMANDS, {"name": "reboot"}, headers={"Idempotency-Key": "k1"}).json
    other = service.admin("POST", COMMANDS, {"name": "blink", "idempotency_key": "k1"})

    assert again["id"] == first["id"]
    assert (other.status_code, other.json["code"]) == (409, "idempotency_conflict")
    assert len(service.admin("GET", COMMANDS).json["items"]) == 1


def test_deadline_ends_what_nobody_answered(service) -> None:
    device = service.device()
    late = send(service, deadline_s=0.2)
    device("GET", "/v1/device/commands")
    following = send(service, "b")

    wait_until(lambda: state(service, late["id"]) == "expired")
    device("POST", f"/v1/device/commands/{late['id']}/reply", {"result": 7})

    shown = service.admin("GET", f"/v1/commands/{late['id']}").json
    assert (shown["state"], shown["result"], shown["delivered"]) == ("expired", 7, None)
    assert device("GET", "/v1/device/commands").json["commands"][0]["id"] == following["id"]


def test_offline_device_has_nothing_sent_or_delivered(service) -> None:
    service.register("d1")
    sent = send(service, deadline_s=0.3)

    wait_until(lambda: state(service, sent["id"]) == "expired")

    shown = service.admin("GET", f"/v1/commands/{sent['id']}").json
    assert (shown["tries"], shown["sent"], shown["delivered"]) == (0, None, None)


def test_cancel_ends_and_is_audited(service) -> None:
    service.register("d1")
    sent = send(service)

    cancelled = service.admin("POST", f"/v1/commands/{sent['id']}:cancel").json
    again = service.admin("POST", f"/v1/commands/{sent['id']}:cancel")

    assert (cancelled["state"], again.status_code, again.json["ended"]) == ("cancelled", 200, cancelled["ended"])
    entries = service.admin("GET", "/v1/audit?object=d1").json["items"]
    assert [entry["action"] for entry in entries] == ["command.cancel", "command.send", "device.create"]


def test_device_that_waits_gets_the_command_at_once(service) -> None:
    device = service.device()
    answers = []
    thread = threading.Thread(target=lambda: answers.append(device("GET", "/v1/device/commands?wait=30")))
    thread.start()
    wait_until(lambda: service.is_online("d1"))  # so it is in

    sent = send(service)
    thread.join(10)

    assert answers[0].json["commands"][0]["id"] == sent["id"]


@pytest.mark.parametrize("path", ["commands?wait=30", "twin?since=0&wait=30"])
def test_device_that_is_disabled_while_it_waits_is_sent_away(service, path) -> None:
    device, answers = service.device(), []
    thread = threading.Thread(target=lambda: answers.append(device("GET", f"/v1/device/{path}")))
    thread.start()
    wait_until(lambda: service.is_online("d1"))  # so it is in

    service.admin("POST", "/v1/devices/d1:disable")
    thread.join(10)

    assert (answers[0].status_code, answers[0].json["code"]) == (403, "device_disabled")


def test_operator_waits_for_the_end(service) -> None:
    device = service.device()
    sent = send(service)
    answers = []
    path = f"/v1/commands/{sent['id']}?wait=30"
    thread = threading.Thread(target=lambda: answers.append(service.admin("GET", path)))
    thread.start()

    device("POST", f"/v1/device/commands/{sent['id']}/reply", {})
    thread.join(10)

    assert answers[0].json["state"] == "succeeded"


def test_one_device_cannot_answer_for_another(service) -> None:
    device, _ = service.device("d2"), service.device("d1")
    sent = send(service)

    foreign = device("POST", f"/v1/device/commands/{sent['id']}/reply", {})

    assert (foreign.status_code, foreign.json["code"]) == (404, "command_not_found")
    assert state(service, sent["id"]) == "queued"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 422, "unprocessable"),
        ({"name": "a b"}, 422, "unprocessable"),
        ({"name": "a", "deadline_s": 0}, 422, "unprocessable"),
        ({"name": "a", "qos": 2}, 422, "unprocessable"),
        ({"name": "a", "params": "x" * 40_000}, 413, "too_large"),
    ],
)
def test_commands_that_cannot_be_are_refused(service, body, status, code) -> None:
    service.register("d1")

    refused = service.admin("POST", COMMANDS, body)

    assert (refused.status_code, refused.json["code"]) == (status, code)
    assert service.admin("POST", "/v1/devices/none/commands", {"name": "a"}).json["code"] == "device_not_found"


def test_queue_of_a_device_is_bounded(config) -> None:
    service = Service(config.model_copy(update={"command_queue": 2}))
    try:
        service.register("d1")
        send(service)
        send(service)

        refused = service.admin("POST", COMMANDS, {"name": "a"})
    finally:
        service.stop()

    assert (refused.status_code, refused.json["code"]) == (409, "too_many_commands")


def test_lists_filter_and_page(service) -> None:
    for device in ("d1", "d2"):
        service.register(device)
        send(service, "a", device)
        send(service, "b", device)
    list_of = lambda query: service.admin("GET", f"/v1/commands?{query}").json  # noqa: E731 - said once

    first = list_of("limit=3")
    rest = list_of(f"limit=3&cursor={first['next']}")

    assert [(each["device"], each["name"]) for each in first["items"] + rest["items"]] == [
        ("d2", "b"), ("d2", "a"), ("d1", "b"), ("d1", "a"),
    ]  # fmt: skip
    assert [each["device"] for each in list_of("name=a&device=d1")["items"]] == ["d1"]
    assert list_of("state=failed")["items"] == []
    assert service.admin("GET", "/v1/devices/none/commands").json["code"] == "device_not_found"


def test_results_survive_a_restart(config) -> None:
    service = Service(config)
    device = service.device()
    done, waiting = send(service, "a"), send(service, "b")
    device("POST", f"/v1/device/commands/{done['id']}/reply", {"result": 5})
    service.stop()

    again = Service(config)
    try:
        shown = again.admin("GET", f"/v1/commands/{done['id']}").json
        assert (shown["state"], shown["result"]) == ("succeeded", 5)
        assert state(again, waiting["id"]) == "queued"
    finally:
        again.stop()
