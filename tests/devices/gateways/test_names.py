"""External names through the routes of the registry, on both databases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import pytest

from tests.devices.running import Service
from wire.external import to_device_id

PUMP = "spb:Plant A/Line 1/Pump 7"
ODD = [
    "tb: a  b ",
    "tb:a/b",
    "tb:+/#",
    "tb:Müller 泵",
    "tb:<b>x</b>",
    "tb:'; DROP TABLE devices",
    "tb:%_",
    "tb:" + "x" * 253,
]


@pytest.fixture
def gateway(service: Service) -> Service:
    for device in ("g1", "g2"):
        service.register(device, gateway=True)
    return service


def admit(service: Service, *names: str, gateway: str = "g1") -> Any:
    return service.internal("POST", "/internal/children:admit", {"gateway": gateway, "names": list(names)}).json


def told(service: Service, device: str) -> dict[str, str]:
    return dict(service.internal("POST", "/internal/names:list", {"device": device}).json["names"])


def name(service: Service, device: str, given: str) -> Any:
    return service.admin("POST", f"/v1/devices/{device}/names", {"name": given})


def rules(service: Service, **members: Any) -> None:
    assert service.admin("PUT", "/v1/devices/g1/gateway", members).status_code == 200


def test_named_child_is_registered_once_and_shown_with_its_name(gateway) -> None:
    first, second = admit(gateway, PUMP, PUMP), admit(gateway, PUMP)

    assert first == second == {"refused": {}, "named": {PUMP: "Plant-A.Line-1.Pump-7"}}
    assert gateway.admin("GET", "/v1/devices/Plant-A.Line-1.Pump-7").json["names"] == [PUMP]
    [child] = gateway.admin("GET", "/v1/devices/g1/children").json["items"]
    assert (child["id"], child["names"]) == ("Plant-A.Line-1.Pump-7", [PUMP])
    actions = [each["action"] for each in gateway.admin("GET", "/v1/audit?object=Plant-A.Line-1.Pump-7").json["items"]]
    assert sorted(actions) == ["device.found", "name.add"]


@pytest.mark.parametrize("odd", ODD)
def test_odd_names_are_kept_byte_for_byte(gateway, odd) -> None:
    [made] = admit(gateway, odd)["named"].values()

    assert gateway.admin("GET", f"/v1/devices/{made}").json["names"] == [odd]
    assert told(gateway, "g1") == {odd: made}
    assert gateway.admin("DELETE", f"/v1/devices/{made}/names?name={quote(odd, safe='')}").status_code == 204
    assert told(gateway, "g1") == {}


@pytest.mark.parametrize("odd", ["tb:" + "x" * 254, "tb:a\nb", "no-scheme", "tb:\x85"])
def test_other_texts_are_no_names(gateway, odd) -> None:
    gateway.register("d1")

    assert gateway.internal("POST", "/internal/children:admit", {"gateway": "g1", "names": [odd]}).status_code == 422
    assert name(gateway, "d1", odd).status_code == 422


def test_names_whose_ids_are_the_same_get_ids_of_their_own(gateway) -> None:
    gateway.register("c-1")

    named = admit(gateway, "tb:c 1", "tb:c/1", "tb:c+1", "tb:c.1")["named"]

    assert named == {
        "tb:c 1": to_device_id("tb:c 1", 6),
        "tb:c/1": "c.1",
        "tb:c+1": to_device_id("tb:c+1", 6),
        "tb:c.1": to_device_id("tb:c.1", 6),
    }
    assert admit(gateway, "tb:c 1", gateway="g2")["named"]["tb:c 1"] == to_device_id("tb:c 1", 32)


def test_name_that_is_a_childs_id_is_that_child(gateway) -> None:
    gateway.internal("POST", "/internal/children:admit", {"gateway": "g1", "children": ["c1"]})

    assert admit(gateway, "tb:c1", "line:c1")["named"] == {"tb:c1": "c1", "line:c1": "c1"}
    assert admit(gateway, "tb:c1", gateway="g2")["named"]["tb:c1"] != "c1"


def test_rules_hold_for_the_ids_that_are_made(gateway) -> None:
    rules(gateway, prefixes=["line1-"], max_children=1)

    refused = admit(gateway, "tb:other", "tb:line1/a", "tb:line1 a", "tb:line1 b")["refused"]

    assert refused == {
        "tb:other": "identity_mismatch",
        "tb:line1/a": "identity_mismatch",
        "tb:line1 b": "too_many_children",
    }
    rules(gateway, children="refuse")
    assert admit(gateway, "tb:x")["refused"] == {"tb:x": "child_refused"}
    rules(gateway, children="hold")
    admit(gateway, "tb:y")
    assert gateway.admin("GET", "/v1/devices/y").json["state"] == "held"


@pytest.mark.parametrize("sender", ["plain", "nobody"])
def test_only_a_gateway_registers_named_children(gateway, sender) -> None:
    gateway.register("plain")

    assert admit(gateway, PUMP, gateway=sender) == {"refused": {PUMP: "identity_mismatch"}, "named": {}}


def test_operator_names_a_device_before_it_speaks(gateway) -> None:
    gateway.register("pump-7")
    gateway.admin("PUT", "/v1/devices/pump-7/parent", {"gateway": "g1"})

    assert name(gateway, "pump-7", PUMP).json == name(gateway, "pump-7", PUMP).json == {"names": [PUMP]}
    assert admit(gateway, PUMP)["named"] == {PUMP: "pump-7"}
    gateway.register("other")
    gateway.admin("PUT", "/v1/devices/other/parent", {"gateway": "g1"})
    assert name(gateway, "other", PUMP).json["code"] == "name_taken"
    missing = gateway.admin("DELETE", "/v1/devices/other/names?name=tb:x")
    assert (missing.status_code, missing.json["code"]) == (404, "name_not_found")
    assert name(gateway, "nobody", PUMP).status_code == 404


def test_device_has_a_bounded_number_of_names(gateway) -> None:
    gateway.register("d1")
    for number in range(16):
        assert name(gateway, "d1", f"tb:{number}").status_code == 200

    assert name(gateway, "d1", "tb:16").json["code"] == "too_many_names"


def test_names_move_along_and_stay_when_the_gateway_goes(gateway) -> None:
    [child] = admit(gateway, PUMP)["named"].values()
    gateway.admin("PUT", f"/v1/devices/{child}/parent", {"gateway": "g2"})

    assert (told(gateway, "g1"), told(gateway, "g2")) == ({}, {PUMP: child})
    gateway.admin("DELETE", "/v1/devices/g2")
    assert gateway.admin("GET", f"/v1/devices/{child}").json["names"] == [PUMP]
    assert told(gateway, child) == {PUMP: child}
    [known] = gateway.internal("POST", "/internal/devices:lookup", {"ids": [child]}).json["devices"]
    assert known["names"] == [PUMP]
    gateway.admin("PUT", f"/v1/devices/{child}/parent", {"gateway": "g1"})
    assert told(gateway, "g1") == {PUMP: child}


def test_child_does_not_move_to_a_gateway_that_means_another_by_its_name(gateway) -> None:
    [child] = admit(gateway, PUMP)["named"].values()
    admit(gateway, PUMP, gateway="g2")

    answer = gateway.admin("PUT", f"/v1/devices/{child}/parent", {"gateway": "g2"})

    assert (answer.status_code, answer.json["code"]) == (409, "name_taken")
    assert told(gateway, "g1") == {PUMP: child}


def test_deleted_device_loses_its_names(gateway) -> None:
    [child] = admit(gateway, PUMP)["named"].values()
    before = gateway.internal("POST", "/internal/devices:lookup", {"ids": []}).json["revision"]
    gateway.admin("DELETE", f"/v1/devices/{child}")

    assert told(gateway, "g1") == {}
    changes = gateway.internal("GET", f"/internal/changes?since={before}").json["devices"]
    assert {child, "g1"} <= set(changes)


def test_two_at_once_get_the_same_id(gateway) -> None:
    names = [f"tb:Sensor {number}" for number in range(20)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: admit(gateway, *names), range(8)))

    assert all(answer == answers[0] for answer in answers)
    assert len(gateway.admin("GET", "/v1/devices/g1/children").json["items"]) == 20


def test_names_of_another_tenant_are_not_seen(gateway) -> None:
    assert gateway.admin("POST", "/v1/tenants", {"id": "acme"}).status_code == 201
    [child] = admit(gateway, PUMP)["named"].values()
    gateway.admin("POST", f"/v1/devices/{child}:move", {"tenant": "acme"})

    assert told(gateway, "g1") == {}
    assert told(gateway, child) == {PUMP: child}
    assert name(gateway, child, "tb:x").status_code == 404
