from __future__ import annotations

import signal

import pytest

from tests.devices.running import Service
from tests.support.waiting import wait_until

TOPICS = "devices/d1/commands/+"


def send(service, name: str = "reboot", **more):
    answer = service.admin("POST", "/v1/devices/d1/commands", {"name": name} | more)
    assert answer.status_code == 201, answer.json
    return answer.json


def shown(service, command_id: str):
    return service.admin("GET", f"/v1/commands/{command_id}").json


def answer(device, command, content) -> None:
    device.publish(f"devices/d1/commands/{command['id']}/reply", content)


def test_command_goes_its_way_over_mqtt(connected_service, dial) -> None:
    device = dial("d1", connected_service.register("d1"))
    heard = device.listen(TOPICS)

    sent = send(connected_service, "blink", params={"times": 3})
    wait_until(lambda: heard)
    wait_until(lambda: shown(connected_service, sent["id"])["state"] == "sent")
    answer(device, sent, {"state": "accepted"})
    wait_until(lambda: shown(connected_service, sent["id"])["state"] == "delivered")
    answer(device, sent, {"state": "succeeded", "result": {"blinked": 3}})

    wait_until(lambda: shown(connected_service, sent["id"])["state"] == "succeeded")
    topic, content, is_retained = heard[0]
    assert (topic, is_retained) == (f"devices/d1/commands/{sent['id']}", False)
    assert (content["id"], content["name"], content["params"], content["attempt"]) == (
        sent["id"], "blink", {"times": 3}, 1,
    )  # fmt: skip
    assert len(heard) == 1
    ended = shown(connected_service, sent["id"])
    assert (ended["result"], ended["via"], ended["tries"]) == ({"blinked": 3}, "mqtt", 1)


def test_command_waits_until_the_device_comes(connected_service, dial) -> None:
    secret = connected_service.register("d1")
    sent = send(connected_service)
    witness = dial("d2", connected_service.register("d2"))
    wait_until(lambda: connected_service.is_online("d2") and witness.is_connected())
    assert shown(connected_service, sent["id"])["state"] == "queued"

    heard = dial("d1", secret).listen(TOPICS)

    wait_until(lambda: heard)
    wait_until(lambda: shown(connected_service, sent["id"])["state"] == "sent")


def test_device_that_does_not_listen_has_nothing_sent(connected_service, dial) -> None:
    device = dial("d1", connected_service.register("d1"))
    wait_until(lambda: connected_service.is_online("d1"))

    sent = send(connected_service)
    heard = device.listen("devices/d1/errors")  # two round trips through the broker
    device.publish("devices/d1/commands/none/reply", {})
    wait_until(lambda: heard)

    assert heard[0][1]["code"] == "command_not_found"
    assert (shown(connected_service, sent["id"])["state"], shown(connected_service, sent["id"])["tries"]) == (
        "queued",
        0,
    )
    device.listen(TOPICS)
    wait_until(lambda: shown(connected_service, sent["id"])["state"] == "sent")


def test_unanswered_command_is_sent_again_with_its_id(connected_service, dial) -> None:
    secret = connected_service.register("d1")
    device = dial("d1", secret)
    heard = device.listen(TOPICS)
    sent = send(connected_service)
    wait_until(lambda: heard)

    wait_until(lambda: len(heard) > 1)  # after 2 s
    device.close()
    wait_until(lambda: not connected_service.is_online("d1"))
    again = dial("d1", secret).listen(TOPICS)
    wait_until(lambda: again)  # a device that came back may have lost it: at once

    assert {content["id"] for _, content, _ in heard + again} == {sent["id"]}
    assert again[0][1]["attempt"] == 3


def test_order_is_kept_and_one_at_a_time(connected_service, dial) -> None:
    device = dial("d1", connected_service.register("d1"))
    commands = [send(connected_service, f"n{number}") for number in range(5)]
    heard = device.listen(TOPICS)

    for number, command in enumerate(commands):
        wait_until(lambda number=number: len(heard) > number)
        assert len(heard) == number + 1
        answer(device, command, {})

    wait_until(lambda: shown(connected_service, commands[-1]["id"])["state"] == "succeeded")
    assert [content["name"] for _, content, _ in heard] == [f"n{number}" for number in range(5)]


def test_restarts_of_registry_and_broker_lose_no_command_and_make_no_second(
    broker, config, connected_service, dial
) -> None:
    device = dial("d1", connected_service.register("d1"))
    heard = device.listen(TOPICS)
    first = send(connected_service, "a")
    second = send(connected_service, "b")
    wait_until(lambda: heard)
    connected_service.stop()
    answer(device, first, {"result": 1})  # nobody is there: the broker keeps it

    again = Service(config.model_copy(update=broker.settings()))
    try:
        wait_until(lambda: shown(again, first["id"])["state"] == "succeeded")
        wait_until(lambda: heard[-1][1]["name"] == "b")
        broker.stop(signal.SIGTERM)
        broker.start()
        wait_until(device.is_connected)
        device.listen(TOPICS)
        wait_until(lambda: sum(content["name"] == "b" for _, content, _ in heard) > 1)
        answer(device, second, {"result": 2})
        wait_until(lambda: shown(again, second["id"])["state"] == "succeeded")

        assert {content["id"] for _, content, _ in heard} == {first["id"], second["id"]}
    finally:
        again.stop()


@pytest.mark.parametrize("payload", ["{", '{"state":"perhaps"}', "[" * 300 + "]" * 300])
def test_refused_reply_is_told_and_changes_nothing(connected_service, dial, payload) -> None:
    device = dial("d1", connected_service.register("d1"))
    heard = device.listen(TOPICS, "devices/d1/errors")
    sent = send(connected_service)
    wait_until(lambda: heard)

    answer(device, sent, payload)

    wait_until(lambda: any(topic.endswith("/errors") for topic, _, _ in heard))
    assert shown(connected_service, sent["id"])["ended"] is None
