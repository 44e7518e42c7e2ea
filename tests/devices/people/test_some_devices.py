"""Tokens for some devices only, at the registry: they see and change these, and know of no others."""

from __future__ import annotations

import pytest

from tests.devices.running import Caller, Service
from tests.support.waiting import wait_until

PUMPS = "type=pump and tag.site=a"


def token_for(service, devices, role="operator", **more) -> Caller:
    made = service.admin("POST", "/v1/tokens", {"name": "some", "role": role, "devices": devices} | more)
    assert made.status_code == 201, made.json
    return Caller(service.app, made.json["token"])


@pytest.fixture
def service(sqlite_config):
    started = Service(sqlite_config)
    yield started
    started.stop()


@pytest.fixture
def fleet(service):
    service.register("in1", type="pump", tags={"site": "a"})
    service.register("in2", type="pump", tags={"site": "a"})
    service.register("out1", type="pump", tags={"site": "b"})
    service.register("out2", type="tank", tags={"site": "a"})
    return service


def ids(answer) -> list[str]:
    assert answer.status_code == 200, answer.json
    return [item["id"] for item in answer.json["items"]]


def ended(call, started):
    assert started.status_code == 202, started.json
    wait_until(lambda: call("GET", f"/v1/jobs/{started.json['id']}").json["state"] in ("done", "failed"))
    return call("GET", f"/v1/jobs/{started.json['id']}").json


def test_lists_and_counts_are_narrowed_whatever_is_asked(fleet) -> None:
    call = token_for(fleet, PUMPS)
    asked = {"": ["in1", "in2"], "type=pump": ["in1", "in2"], "id=in1 or id=out1": ["in1"], "not id=in1": ["in2"],
             "tag.site=b": []}  # fmt: skip

    for query, found in asked.items():
        assert ids(call("GET", "/v1/devices", query_string={"q": query})) == found
        assert call("GET", "/v1/devices:count", query_string={"q": query}).json["count"] == len(found)
    assert ids(call("GET", "/v1/devices", query_string={"tag": "site:b"})) == []


def test_no_query_gets_out_of_the_brackets_of_the_scope(fleet) -> None:
    call = token_for(fleet, PUMPS)

    for query in (") or (type=tank", "type=pump) or (not has type"):
        assert call("GET", "/v1/devices", query_string={"q": query}).json["code"] == "bad_query"
    assert ids(call("GET", "/v1/devices", query_string={"q": '" or type=tank or "'})) == []


def test_others_are_404_as_those_of_nobody_are(fleet) -> None:
    call = token_for(fleet, PUMPS)
    asked = [("GET", ""), ("GET", "/twin"), ("GET", "/credentials"), ("GET", "/commands"), ("POST", ":disable"),
             ("DELETE", ""), ("POST", "/credentials")]  # fmt: skip

    assert call("GET", "/v1/devices/a%00b").json["code"] == "device_not_found"
    for device in ("out1", "out2", "nobody"):
        answers = [
            call(method, f"/v1/devices/{device}{path}", {} if method == "POST" else None) for method, path in asked
        ]
        assert {(each.status_code, each.json["code"]) for each in answers} == {(404, "device_not_found")}
        assert {each.json["detail"] for each in answers} == {f"no device {device!r}"}
    assert call("GET", "/v1/devices/in1").status_code == 200
    assert fleet.admin("GET", "/v1/devices/out1").json["state"] == "registered"


def test_a_device_is_within_as_long_as_it_fits(fleet) -> None:
    call = token_for(fleet, PUMPS)

    fleet.admin("PATCH", "/v1/devices/out1", {"tags": {"site": "a"}})
    mine = call("PATCH", "/v1/devices/in1", {"tags": {"site": "b"}})

    assert mine.status_code == 200
    assert ids(call("GET", "/v1/devices")) == ["in2", "out1"]
    assert call("PATCH", "/v1/devices/in1", {"tags": {"site": "a"}}).status_code == 404


def test_bulk_and_rotations_reach_the_scope_only(fleet) -> None:
    call = token_for(fleet, PUMPS)
    body = {"query": "has type", "action": {"do": "disable"}}

    shown = call("POST", "/v1/devices:bulk", body | {"preview": True}).json
    job = ended(call, call("POST", "/v1/devices:bulk", body))
    rotation = call("POST", "/v1/rotations", {"query": "has type"}).json

    assert (shown["count"], [item["id"] for item in shown["examples"]]) == (2, ["in1", "in2"])
    assert (job["total"], job["done"], rotation["total"]) == (2, 2, 2)
    assert ids(fleet.admin("GET", "/v1/devices", query_string={"q": "state=disabled"})) == ["in1", "in2"]
    assert call("GET", f"/v1/rotations/{rotation['id']}/waiting").status_code == 200


def test_jobs_of_others_are_unknown(fleet) -> None:
    call = token_for(fleet, PUMPS)
    theirs = ended(
        fleet.admin, fleet.admin("POST", "/v1/devices:bulk", {"query": "id=out1", "action": {"do": "enable"}})
    )
    rotation = fleet.admin("POST", "/v1/rotations", {"query": "id=out1"}).json["id"]
    mine = ended(call, call("POST", "/v1/devices:bulk", {"query": "id=in1", "action": {"do": "enable"}}))

    asked = [("GET", f"/v1/jobs/{theirs['id']}"), ("POST", f"/v1/jobs/{theirs['id']}:cancel"),
             ("GET", f"/v1/jobs/{rotation}/result"), ("DELETE", f"/v1/jobs/{rotation}/result"),
             ("GET", f"/v1/rotations/{rotation}/waiting"), ("POST", f"/v1/rotations/{rotation}:finish")]  # fmt: skip

    assert ids(call("GET", "/v1/jobs")) == [mine["id"]]
    assert {call(method, path).json["code"] for method, path in asked} == {"job_not_found"}


def test_commands_of_others_are_unknown(fleet) -> None:
    call = token_for(fleet, PUMPS)
    sent = {
        name: fleet.admin("POST", f"/v1/devices/{name}/commands", {"name": "go"}).json["id"] for name in ("in1", "out1")
    }

    assert ids(call("GET", "/v1/commands")) == [sent["in1"]]
    assert call("GET", "/v1/commands?device=out1").json["code"] == "device_not_found"
    assert call("GET", f"/v1/commands/{sent['out1']}?wait=1").json["code"] == "command_not_found"
    assert call("POST", f"/v1/commands/{sent['out1']}:cancel").json["code"] == "command_not_found"
    assert call("POST", f"/v1/commands/{sent['in1']}:cancel").json["state"] == "cancelled"
    assert call("GET", f"/v1/commands/{sent['in1']}").status_code == 200
    assert fleet.admin("GET", f"/v1/commands/{sent['out1']}").json["state"] == "queued"


def test_commands_of_a_bulk_action_are_cancelled_within_the_scope(fleet) -> None:
    call = token_for(fleet, PUMPS)
    action = {"do": "command", "command": {"name": "go"}}
    job = ended(fleet.admin, fleet.admin("POST", "/v1/devices:bulk", {"query": "id~*", "action": action}))["id"]

    cancelled = call("POST", "/v1/commands:cancel", {"job": job}).json
    states = {each["device"]: each["state"] for each in fleet.admin("GET", f"/v1/commands?job={job}").json["items"]}

    assert cancelled == {"cancelled": 2, "open": False}
    assert {name for name, state in states.items() if state == "cancelled"} == {"in1", "in2"}
    assert {"out1", "out2"} <= {name for name, state in states.items() if state == "queued"}


BEYOND = [
    ("POST", "/v1/devices", {"id": "new"}),
    ("PATCH", "/v1/devices/in1", {"gateway": True}),
    ("POST", "/v1/devices:bulk", {"query": "id=in1", "action": {"do": "update", "patch": {"gateway": True}}}),
    ("POST", "/v1/devices:bulk", {"query": "id=in1", "action": {"do": "add_to_group", "group": "north"}}),
    ("POST", "/v1/groups/north:add", {"devices": ["in1"]}),
    ("PUT", "/v1/devices/in1/gateway", {"prefixes": []}),
    ("PUT", "/v1/devices/in1/parent", {"gateway": "out1"}),
    ("POST", "/v1/tokens", {"name": "all", "role": "viewer"}),
    ("GET", "/v1/audit", None),
    ("GET", "/v1/usage", None),
    ("POST", "/v1/devices/in1:move", {"tenant": "default"}),
]


def test_what_reaches_beyond_its_devices_is_refused(fleet) -> None:
    fleet.admin("POST", "/v1/groups", {"name": "north"})
    call = token_for(fleet, PUMPS, "platform")

    answers = {(method, path): call(method, path, body) for method, path, body in BEYOND}

    assert {way: (each.status_code, each.json["code"]) for way, each in answers.items()} == dict.fromkeys(
        answers, (403, "out_of_scope")
    )


def test_a_group_may_be_the_scope_and_is_not_deleted_then(fleet) -> None:
    fleet.admin("POST", "/v1/groups", {"name": "north"})
    call = token_for(fleet, "group=north")

    empty = ids(call("GET", "/v1/devices"))
    fleet.admin("POST", "/v1/groups/north:add", {"devices": ["out2"]})
    kept = fleet.admin("DELETE", "/v1/groups/north")
    fleet.admin("DELETE", "/v1/tokens/some")

    assert (empty, kept.json["code"]) == ([], "group_in_use")
    assert "token some" in kept.json["detail"]
    assert fleet.admin("DELETE", "/v1/groups/north").status_code == 204


def test_a_group_member_is_seen(fleet) -> None:
    fleet.admin("POST", "/v1/groups", {"name": "north"})
    fleet.admin("POST", "/v1/groups/north:add", {"devices": ["out2"]})

    assert ids(token_for(fleet, "group=north")("GET", "/v1/devices")) == ["out2"]


def test_a_scope_that_cannot_be_asked_makes_no_token(service) -> None:
    for devices in ("type=", "group=nowhere", "(", "nonsense=1"):
        answer = service.admin("POST", "/v1/tokens", {"name": "some", "role": "viewer", "devices": devices})
        assert (answer.status_code, answer.json["code"]) == (400, "bad_query")

    assert [item["name"] for item in service.admin("GET", "/v1/tokens").json["items"]] == ["bootstrap"]


def test_the_scope_is_told_and_audited(fleet) -> None:
    call = token_for(fleet, PUMPS, "viewer", scope=["devices:read"])

    listed = next(item for item in fleet.admin("GET", "/v1/tokens").json["items"] if item["name"] == "some")
    entry = fleet.admin("GET", "/v1/audit?action=token.create&object=some").json["items"][0]

    assert listed["devices"] == call("GET", "/v1/me").json["devices"] == entry["detail"]["devices"] == PUMPS
    assert call("GET", "/v1/jobs").json["code"] == "out_of_scope"


def test_services_are_told_what_both_find(fleet) -> None:
    def select(**asked):
        return fleet.internal("POST", "/internal/devices:select", {"tenant": "default"} | asked).json["ids"]

    assert select(scope=PUMPS, query="") == ["in1", "in2"]
    assert select(scope=PUMPS, query="type=pump or type=tank") == ["in1", "in2"]
    assert select(scope=PUMPS, id="out1") == select(scope=PUMPS, id="nobody") == []
    assert select(scope=PUMPS, id="in2") == select(id="in2") == ["in2"]
