"""Gateways and their children through the routes of the registry."""

from __future__ import annotations

import pytest

from tests.devices.running import Service


@pytest.fixture
def gateway(service: Service) -> Service:
    service.register("g1", gateway=True)
    return service


def admit(service: Service, *children: str, gateway: str = "g1") -> dict[str, str]:
    body = {"gateway": gateway, "children": list(children)}
    return dict(service.internal("POST", "/internal/children:admit", body).json["refused"])


def rules(service: Service, **members) -> None:
    answer = service.admin("PUT", "/v1/devices/g1/gateway", members)
    assert answer.status_code == 200, answer.json


def children(service: Service, gateway: str = "g1") -> list[str]:
    return [item["id"] for item in service.admin("GET", f"/v1/devices/{gateway}/children").json["items"]]


def test_named_children_are_registered_with_type_and_tags_of_the_rules(gateway) -> None:
    rules(gateway, child_type="sensor", child_tags={"line": "1"})

    refused = admit(gateway, "c1", "c2", "c1")
    shown = gateway.admin("GET", "/v1/devices/c1").json
    known = gateway.internal("POST", "/internal/devices:lookup", {"ids": ["c1"]}).json["devices"][0]

    assert (refused, children(gateway)) == ({}, ["c1", "c2"])
    assert (shown["type"], shown["tags"], shown["state"], shown["credentials"]) == (
        "sensor",
        {"line": "1"},
        "registered",
        [],
    )
    assert (known["parent"], known["credentials"]) == ("g1", [])
    assert gateway.admin("GET", "/v1/audit?object=c1").json["items"][0]["actor"] == "device:g1"


def test_held_children_wait_for_an_operator(gateway) -> None:
    rules(gateway, children="hold")

    admit(gateway, "c1")
    [held] = gateway.admin("GET", "/v1/holds").json["items"]

    assert (held["id"], held["source"]) == ("c1", "gateway:g1")
    assert gateway.admin("GET", "/v1/devices/g1/children").json["items"][0]["state"] == "held"


def test_rules_refuse_by_policy_prefix_and_number(gateway) -> None:
    rules(gateway, prefixes=["a-"], max_children=2)

    assert admit(gateway, "a-1", "b-1", "a-2", "a-3") == {"b-1": "identity_mismatch", "a-3": "too_many_children"}
    rules(gateway, children="refuse")
    assert admit(gateway, "c1") == {"c1": "child_refused"}
    assert children(gateway) == ["a-1", "a-2"]


def test_ids_that_are_taken_stay_whose_they_are(gateway) -> None:
    gateway.register("mine")

    assert admit(gateway, "mine") == {}
    assert children(gateway) == []


@pytest.mark.parametrize("state", ["plain", "disabled", "absent"])
def test_only_a_gateway_in_service_registers_children(gateway, state) -> None:
    name = {"plain": "d1", "disabled": "g1", "absent": "nobody"}[state]
    gateway.register("d1")
    if state == "disabled":
        gateway.admin("POST", "/v1/devices/g1:disable")

    assert admit(gateway, "c1", gateway=name) == {"c1": "identity_mismatch"}
    assert gateway.admin("GET", "/v1/devices/c1").status_code == 404


def test_child_is_moved_and_released(gateway) -> None:
    gateway.register("g2", gateway=True)
    admit(gateway, "c1")

    moved = gateway.admin("PUT", "/v1/devices/c1/parent", {"gateway": "g2"}).json
    after = (children(gateway), children(gateway, "g2"))
    gateway.admin("DELETE", "/v1/devices/c1/parent")

    assert (moved, after) == ({"gateway": "g2"}, ([], ["c1"]))
    assert gateway.admin("GET", "/v1/devices/c1/parent").json == {"gateway": None}
    [deed, *_] = gateway.admin("GET", "/v1/audit?object=c1").json["items"]
    assert (deed["action"], deed["detail"]) == ("child.move", {"from": "g2", "to": None})


def test_moves_that_make_no_sense_are_refused(gateway) -> None:
    gateway.register("g2", gateway=True)
    gateway.register("d1")
    rules(gateway, max_children=0)

    def move(device: str, to: str) -> tuple[int, str]:
        answer = gateway.admin("PUT", f"/v1/devices/{device}/parent", {"gateway": to})
        return answer.status_code, answer.json["code"]

    assert move("g2", "g1") == (409, "not_a_child")
    assert move("d1", "d1") == (409, "not_a_gateway")
    assert move("d1", "none") == (404, "device_not_found")
    assert move("d1", "g1") == (409, "too_many_children")
    assert gateway.admin("GET", "/v1/devices/d1/gateway").json["code"] == "not_a_gateway"
    assert gateway.admin("PUT", "/v1/devices/g1/gateway", {"prefixes": [""]}).status_code == 422


def test_child_beyond_the_prefixes_of_a_gateway_is_not_moved_there(gateway) -> None:
    gateway.register("g2", gateway=True)
    gateway.register("a-1")
    gateway.register("b-1")
    admit(gateway, "b-2", gateway="g2")
    rules(gateway, prefixes=["a-", "c-"])

    moved, refused, kept = (
        gateway.admin("PUT", f"/v1/devices/{child}/parent", {"gateway": "g1"}) for child in ("a-1", "b-1", "b-2")
    )

    assert moved.status_code == 200
    assert (refused.status_code, refused.json["code"]) == (409, "beyond_prefixes")
    assert refused.json["detail"] == "gateway g1 does not speak for b-1: its prefixes are a-, c-"
    assert kept.json["code"] == "beyond_prefixes"
    assert (children(gateway), children(gateway, "g2")) == (["a-1"], ["b-2"])  # it stays with its gateway


def test_moved_child_is_known_as_the_new_gateways(gateway) -> None:
    gateway.register("g2", gateway=True)
    admit(gateway, "c1")

    gateway.admin("PUT", "/v1/devices/c1/parent", {"gateway": "g2"})
    known = gateway.internal("POST", "/internal/devices:lookup", {"ids": ["c1"]}).json["devices"][0]

    assert known["parent"] == "g2"
    assert gateway.admin("GET", "/v1/audit?object=c1").json["items"][0]["detail"] == {"from": "g1", "to": "g2"}


def test_children_of_a_deleted_gateway_stay_without_it(gateway) -> None:
    admit(gateway, "c1")

    gateway.admin("DELETE", "/v1/devices/g1")

    assert gateway.admin("GET", "/v1/devices/c1/parent").json == {"gateway": None}


def test_child_that_moves_to_another_tenant_leaves_its_gateway_which_moves_alone_only(gateway) -> None:
    gateway.register("g2", gateway=True)
    gateway.admin("POST", "/v1/tenants", {"id": "acme"})
    admit(gateway, "c1", "c2")
    rules(gateway, prefixes=["c"])

    def move(name: str) -> int:
        return int(gateway.admin("POST", f"/v1/devices/{name}:move", {"tenant": "acme"}).status_code)

    moved = [move("c1"), move("g1")]
    gateway.admin("DELETE", "/v1/devices/c2")
    moved.append(move("g1"))
    known = gateway.internal("POST", "/internal/devices:lookup", {"ids": ["c1", "g1"]}).json["devices"]

    assert moved == [204, 409, 204]
    assert {device["id"]: (device["tenant"], device["parent"]) for device in known} == {
        "c1": ("acme", None), "g1": ("acme", None),
    }  # fmt: skip
    assert admit(gateway, "x9") == {"x9": "identity_mismatch"}  # its rules went with it


def test_rules_name_the_children_that_they_leave_out(gateway) -> None:
    admit(gateway, "a-1", "b-1", "b-2")

    changed = gateway.admin("PUT", "/v1/devices/g1/gateway", {"prefixes": ["a-"]}).json
    listed = gateway.admin("GET", "/v1/devices/g1/children").json["items"]
    [entry] = gateway.admin("GET", "/v1/audit?action=gateway.rules").json["items"]
    back = gateway.admin("PUT", "/v1/devices/g1/gateway", {"prefixes": ["a-", "b-1"]}).json

    assert (changed["left_out"], changed["left_out_children"], changed["prefixes"]) == (2, ["b-1", "b-2"], ["a-"])
    assert [(each["id"], each["outside"]) for each in listed] == [("a-1", False), ("b-1", True), ("b-2", True)]
    assert (entry["detail"]["left_out"], back["left_out_children"]) == (2, ["b-2"])


def test_device_names_its_parent(gateway) -> None:
    admit(gateway, "c1")

    assert gateway.admin("GET", "/v1/devices/c1").json["parent"] == "g1"
    assert gateway.admin("GET", "/v1/devices/g1").json["parent"] is None


def test_gateway_with_children_stays_one_and_a_child_becomes_none(gateway) -> None:
    admit(gateway, "c1")

    def mark(device: str, *, is_gateway: bool) -> tuple[int, str | None]:
        answer = gateway.admin("PATCH", f"/v1/devices/{device}", {"gateway": is_gateway})
        return answer.status_code, answer.json.get("code")

    assert mark("g1", is_gateway=False) == (409, "gateway_has_children")
    assert mark("g1", is_gateway=True) == (200, None)
    assert mark("c1", is_gateway=True) == (409, "not_a_child")
    gateway.admin("DELETE", "/v1/devices/c1/parent")
    assert mark("c1", is_gateway=True) == (200, None)
    assert mark("g1", is_gateway=False) == (200, None)
