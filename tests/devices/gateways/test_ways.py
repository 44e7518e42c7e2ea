"""Commands and twins of children, which their gateway carries."""

from __future__ import annotations

from tests.devices.running import Service
from tests.support.waiting import wait_until

COMMANDS = "devices/{}/children/+/commands/+"
DESIRED = "devices/{}/children/+/twin/desired"


def add_child(service, child: str = "c1", gateway: str = "g1") -> None:
    service.internal("POST", "/internal/children:admit", {"gateway": gateway, "children": [child]})
    assert service.admin("GET", f"/v1/devices/{child}/parent").json == {"gateway": gateway}


def send(service, child: str = "c1") -> str:
    return str(service.admin("POST", f"/v1/devices/{child}/commands", {"name": "blink"}).json["id"])


def state(service, command_id: str) -> str:
    return str(service.admin("GET", f"/v1/commands/{command_id}").json["state"])


def move(service, child: str, gateway: str) -> None:
    assert service.admin("PUT", f"/v1/devices/{child}/parent", {"gateway": gateway}).status_code == 200


def reply(device, command_id: str, content, gateway: str = "g1", child: str = "c1") -> None:
    device.publish(f"devices/{gateway}/children/{child}/commands/{command_id}/reply", content)


def test_command_of_a_child_goes_through_its_gateway(connected_service, dial) -> None:
    gateway = dial("g1", connected_service.register("g1", gateway=True))
    heard = gateway.listen(COMMANDS.format("g1"))
    add_child(connected_service)

    sent = send(connected_service)
    wait_until(lambda: heard)
    wait_until(lambda: state(connected_service, sent) == "sent")
    reply(gateway, sent, {"state": "accepted"})
    wait_until(lambda: state(connected_service, sent) == "delivered")
    reply(gateway, sent, {"result": 3})

    wait_until(lambda: state(connected_service, sent) == "succeeded")
    assert [topic for topic, _, _ in heard] == [f"devices/g1/children/c1/commands/{sent}"]


def test_command_of_a_child_waits_until_its_gateway_comes(connected_service, dial) -> None:
    secret = connected_service.register("g1", gateway=True)
    add_child(connected_service)
    sent = send(connected_service)
    witness = dial("d2", connected_service.register("d2"))
    wait_until(lambda: connected_service.is_online("d2") and witness.is_connected())
    assert state(connected_service, sent) == "queued"

    heard = dial("g1", secret).listen(COMMANDS.format("g1"))

    wait_until(lambda: heard)
    wait_until(lambda: state(connected_service, sent) == "sent")


def test_moved_child_is_commanded_through_its_new_gateway_which_alone_answers(connected_service, dial) -> None:
    old = dial("g1", connected_service.register("g1", gateway=True))
    new = dial("g2", connected_service.register("g2", gateway=True))
    told_old, told_new = old.listen("devices/g1/#"), new.listen(COMMANDS.format("g2"))
    add_child(connected_service)
    move(connected_service, "c1", "g2")

    sent = send(connected_service)
    wait_until(lambda: told_new)
    reply(old, sent, {"result": 1})
    wait_until(lambda: told_old)
    refusal = told_old[0][1]
    assert state(connected_service, sent) == "sent"
    reply(new, sent, {"result": 2}, "g2")

    wait_until(lambda: state(connected_service, sent) == "succeeded")
    assert connected_service.admin("GET", f"/v1/commands/{sent}").json["result"] == 2
    assert [topic for topic, _, _ in told_old] == ["devices/g1/errors"]
    assert (refusal["code"], refusal["topic"]) == (
        "identity_mismatch",
        f"devices/g1/children/c1/commands/{sent}/reply",
    )


def test_rights_of_a_gateway_over_commands_end_with_its_rules_and_the_childs_state(connected_service, dial) -> None:
    gateway = dial("g1", connected_service.register("g1", gateway=True))
    heard = gateway.listen("devices/g1/#")
    add_child(connected_service)
    add_child(connected_service, "off")
    sent = send(connected_service)
    wait_until(lambda: heard)
    heard.clear()

    connected_service.admin("POST", "/v1/devices/off:disable")
    connected_service.admin("PUT", "/v1/devices/g1/gateway", {"prefixes": ["line-", "off"]})
    reply(gateway, sent, {"result": 1})
    reply(gateway, "any", {}, child="off")
    reply(gateway, "any", {}, child="not an id")

    wait_until(lambda: sum(topic.endswith("errors") for topic, _, _ in heard) == 3)
    told = [content["code"] for topic, content, _ in heard if topic.endswith("errors")]
    assert told == ["identity_mismatch", "device_disabled", "identity_mismatch"]
    assert state(connected_service, sent) == "sent"
    audited = "/v1/audit?action=control.identity_mismatch"
    wait_until(lambda: len(connected_service.admin("GET", audited).json["items"]) == 2)
    entries = connected_service.admin("GET", audited).json["items"]
    assert {(entry["actor"], entry["object"]) for entry in entries} == {
        ("device:g1", "device:c1"),
        ("device:g1", "device:not an id"),
    }


def wish(service, patch) -> None:
    assert service.admin("PATCH", "/v1/devices/c1/twin/desired", patch).status_code == 200


def wishes(heard) -> list[tuple[int, bool]]:
    """Give version and flag of what is retained, as it was heard; 0 = it was taken away."""
    return [((content and content["version"]) or 0, is_retained) for _, content, is_retained in heard]


def test_twin_of_a_child_goes_through_its_gateway(connected_service, dial) -> None:
    secret = connected_service.register("g1", gateway=True)
    add_child(connected_service)
    wish(connected_service, {"interval": 5})
    gateway = dial("g1", secret)
    heard = gateway.listen(DESIRED.format("g1"))

    wait_until(lambda: heard)
    gateway.publish("devices/g1/children/c1/twin/reported", {"interval": 5})
    wait_until(lambda: connected_service.admin("GET", "/v1/devices/c1/twin").json["reported_version"] == 1)

    twin = connected_service.admin("GET", "/v1/devices/c1/twin").json
    assert (heard[0][0], heard[0][1]["desired"]) == ("devices/g1/children/c1/twin/desired", {"interval": 5})
    assert (twin["reported"], twin["delta"]) == ({"interval": 5}, {})


def test_wish_moves_with_the_child(connected_service, dial) -> None:
    own = dial("c1", connected_service.register("c1"))
    first = dial("g1", connected_service.register("g1", gateway=True))
    second = dial("g2", connected_service.register("g2", gateway=True))
    told = [own.listen("devices/c1/twin/desired"), first.listen(DESIRED.format("g1")), second.listen("devices/g2/#")]
    wish(connected_service, {"a": 1})
    wait_until(lambda: wishes(told[0]) == [(1, False)])

    move(connected_service, "c1", "g1")
    wait_until(lambda: wishes(told[1]) == [(1, False)])
    move(connected_service, "c1", "g2")
    wait_until(lambda: wishes(told[2]) == [(1, False)])
    connected_service.admin("DELETE", "/v1/devices/c1/parent")
    wait_until(lambda: wishes(told[0]) == [(1, False), (0, False), (1, False)])

    wait_until(lambda: wishes(told[1]) == wishes(told[2]) == [(1, False), (0, False)])


def test_wish_of_a_child_whose_gateway_is_deleted_comes_to_itself(connected_service, dial) -> None:
    own = dial("c1", connected_service.register("c1"))
    connected_service.register("g1", gateway=True)
    heard = own.listen("devices/c1/twin/desired")
    move(connected_service, "c1", "g1")
    wish(connected_service, {"a": 1})

    connected_service.admin("DELETE", "/v1/devices/g1")

    wait_until(lambda: wishes(heard) == [(1, False)])


def test_wish_is_taken_away_from_a_gateway_whose_prefixes_leave_the_child_out(connected_service, dial) -> None:
    gateway = dial("g1", connected_service.register("g1", gateway=True))
    heard = gateway.listen(DESIRED.format("g1"))
    add_child(connected_service)
    wish(connected_service, {"a": 1})
    wait_until(lambda: wishes(heard) == [(1, False)])

    connected_service.admin("PUT", "/v1/devices/g1/gateway", {"prefixes": ["line-"]})
    wait_until(lambda: wishes(heard) == [(1, False), (0, False)])
    wish(connected_service, {"a": 2})
    connected_service.admin("PUT", "/v1/devices/g1/gateway", {"prefixes": ["line-", "c"]})

    wait_until(lambda: wishes(heard) == [(1, False), (0, False), (2, False)])


def test_registry_that_starts_again_finds_the_wishes_of_children(broker, config, connected_service, dial) -> None:
    gateway = dial("g1", connected_service.register("g1", gateway=True))
    heard = gateway.listen(DESIRED.format("g1"))
    add_child(connected_service)
    wish(connected_service, {"a": 1})
    wait_until(lambda: heard)
    connected_service.stop()

    again = Service(config.model_copy(update=broker.settings()))
    try:
        wish(again, {"a": 2})
        wait_until(lambda: len(heard) > 1)
        assert wishes(heard) == [(1, False), (2, False)]  # the first was not told again, nor taken away
    finally:
        again.stop()


def test_gateway_reports_for_its_own_children_only(connected_service, dial) -> None:
    gateway = dial("g1", connected_service.register("g1", gateway=True))
    heard = gateway.listen("devices/g1/errors")
    connected_service.register("c1")

    gateway.publish("devices/g1/children/c1/twin/reported", {"a": 1})

    wait_until(lambda: heard)
    assert (heard[0][1]["code"], heard[0][1]["topic"]) == (
        "identity_mismatch",
        "devices/g1/children/c1/twin/reported",
    )
    assert connected_service.admin("GET", "/v1/devices/c1/twin").json["reported_version"] == 0


def test_gateway_without_mqtt_speaks_for_its_child_over_http(service) -> None:
    gateway = service.device("g1", gateway=True)
    add_child(service)
    wish(service, {"a": 1})
    sent = send(service)
    own = send(service, "g1")

    handed = gateway("GET", "/v1/device/commands?device=c1&wait=50").json["commands"]
    replied = gateway("POST", f"/v1/device/commands/{sent}/reply?device=c1", {"result": 1})
    reported = gateway("PATCH", "/v1/device/twin/reported?device=c1", {"a": 1})
    twin = gateway("GET", "/v1/device/twin?device=c1").json

    assert ([each["id"] for each in handed], replied.status_code, reported.status_code) == ([sent], 200, 200)
    assert (twin["device"], twin["desired"], twin["delta"]) == ("c1", {"a": 1}, {})
    assert gateway("GET", "/v1/device/commands?device=c1&wait=50").status_code == 204  # at once
    assert gateway("GET", "/v1/device/twin?device=c1&since=1&wait=50").status_code == 204
    assert (state(service, sent), state(service, own)) == ("succeeded", "queued")
    assert gateway("POST", f"/v1/device/commands/{own}/reply?device=c1", {}).json["code"] == "command_not_found"


def test_rights_of_a_gateway_over_http_end_at_its_children(service) -> None:
    gateway, plain = service.device("g1", gateway=True), service.device("d1")
    service.register("g2", gateway=True)
    for child, parent in (("c1", "g1"), ("off", "g1"), ("beyond", "g1"), ("theirs", "g2")):
        add_child(service, child, parent)
    service.admin("POST", "/v1/devices/off:disable")
    service.admin("PUT", "/v1/devices/g1/gateway", {"prefixes": ["c", "off", "d1", "theirs", "none"]})

    def code(child: str, caller=gateway) -> str:
        answers = [
            caller("GET", f"/v1/device/commands?device={child}"),
            caller("POST", f"/v1/device/commands/any/reply?device={child}", {}),
            caller("GET", f"/v1/device/twin?device={child}"),
            caller("GET", f"/v1/device/twin?since=0&device={child}"),
            caller("PATCH", f"/v1/device/twin/reported?device={child}", {}),
        ]
        [told] = {(answer.status_code, answer.json["code"]) for answer in answers}
        assert told[0] == 403
        return str(told[1])

    assert {code(child) for child in ("d1", "theirs", "none", "beyond", "g1", "not%20an%20id")} == {"identity_mismatch"}
    assert code("off") == "device_disabled"
    assert code("c1", plain) == "identity_mismatch"
