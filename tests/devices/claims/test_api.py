"""Claims of topics through the routes of the registry, on both databases."""

from __future__ import annotations

from typing import Any

import pytest

from devices.claims import store
from tests.devices.running import Service


@pytest.fixture
def home(service: Service) -> Service:
    for device in ("kitchen", "attic"):
        service.register(device)
    return service


def claim(service: Service, device: str, topics: str, protocol: str = "tasmota", caller: Any = None) -> Any:
    body = {"filter": topics, "protocol": protocol}
    return (caller or service.admin)("POST", f"/v1/devices/{device}/topics", body)


def filters(service: Service, device: str) -> list[str]:
    return [item["filter"] for item in service.admin("GET", f"/v1/devices/{device}/topics").json["items"]]


def every(service: Service) -> list[list[str]]:
    return list(service.internal("GET", "/internal/topics").json["claims"])


def test_claim_is_listed_audited_and_told_to_services(home) -> None:
    before = home.internal("GET", "/internal/changes").json["revision"]

    made = claim(home, "kitchen", "tele/kitchen/#")
    claim(home, "kitchen", "stat/kitchen/#")

    assert (made.status_code, made.json["filter"], made.json["protocol"]) == (201, "tele/kitchen/#", "tasmota")
    assert filters(home, "kitchen") == ["stat/kitchen/#", "tele/kitchen/#"]
    assert every(home) == [["stat/kitchen/#", "tasmota", "kitchen"], ["tele/kitchen/#", "tasmota", "kitchen"]]
    told = home.internal("GET", f"/internal/changes?since={before}").json
    assert (told["topics"], told["devices"]) == (True, [])
    actions = [item["action"] for item in home.admin("GET", "/v1/audit?object=kitchen").json["items"]]
    assert actions[:2] == ["topic.claim", "topic.claim"]


def test_all_claims_of_a_tenant_are_paged(home) -> None:
    for topics in ("tele/a/#", "tele/b/#", "tele/c/#"):
        claim(home, "kitchen", topics)

    first = home.admin("GET", "/v1/topics?limit=2").json
    rest = home.admin("GET", f"/v1/topics?limit=2&cursor={first['next'].replace('#', '%23')}").json

    assert [item["filter"] for item in first["items"] + rest["items"]] == ["tele/a/#", "tele/b/#", "tele/c/#"]
    assert rest["next"] is None


def test_no_topic_has_two_owners(home) -> None:
    claim(home, "kitchen", "tele/kitchen/#")
    taken = ("tele/kitchen/#", "tele/kitchen", "tele/+/SENSOR", "tele/#", "tele/kitchen/+/x")

    refused = [claim(home, device, topics) for topics in taken for device in ("attic", "kitchen")]

    assert {(answer.status_code, answer.json["code"]) for answer in refused} == {(409, "topic_taken")}
    assert "by kitchen, with tele/kitchen/#" in refused[0].json["detail"]
    assert claim(home, "attic", "tele/attic/#").status_code == 201


def test_wildcard_finds_the_narrower_claims_before_it(home) -> None:
    claim(home, "kitchen", "tele/+/SENSOR")

    assert claim(home, "attic", "tele/attic/STATE").status_code == 201
    assert claim(home, "attic", "tele/attic/#").json["code"] == "topic_taken"


def test_claim_of_another_tenant_is_refused_without_a_word_of_whose_it_is(home) -> None:
    claim(home, "kitchen", "tele/kitchen/#")
    home.admin("POST", "/v1/tenants", {"id": "acme"})
    headers = {"Headwater-Tenant": "acme"}
    home.admin("POST", "/v1/devices", {"id": "theirs"}, headers=headers)

    body = {"filter": "tele/kitchen/SENSOR", "protocol": "tasmota"}
    refused = home.admin("POST", "/v1/devices/theirs/topics", body, headers=headers)

    assert (refused.status_code, refused.json["code"]) == (409, "topic_taken")
    assert "kitchen" not in refused.get_data(as_text=True)
    assert home.admin("GET", "/v1/devices/kitchen/topics", headers=headers).status_code == 404
    assert home.admin("GET", "/v1/topics", headers=headers).json["items"] == []


def test_only_topics_of_protocols_that_have_some_can_be_claimed(home) -> None:
    asked = [("devices/attic/#", "tasmota"), ("tele/x/#", "json"), ("tele/x/#", "nonsense")]

    refused = [claim(home, "kitchen", *each) for each in asked]

    told = [(answer.status_code, answer.json["fields"]) for answer in refused]
    assert told == [(422, ["filter"]), (422, ["protocol"]), (422, ["protocol"])]


def test_number_of_claims_is_bounded(home, monkeypatch) -> None:
    monkeypatch.setattr(store, "MAX_OF_DEVICE", 2)
    monkeypatch.setattr(store, "MAX_ALONE", 1)
    monkeypatch.setattr(store, "MAX_IN_ALL", 3)

    made = [claim(home, "kitchen", f"home/{number}/#") for number in range(2)]
    made += [claim(home, "kitchen", f"tele/{number}/#") for number in range(2)]
    made += [claim(home, "attic", f"tele/{number}/#") for number in (7, 8)]

    assert [answer.status_code for answer in made] == [201, 409, 201, 409, 201, 409]
    assert {answer.json.get("code") for answer in made} == {None, "too_many_claims"}


def test_released_topics_are_free_again(home) -> None:
    claim(home, "kitchen", "tele/kitchen/#")

    assert home.admin("DELETE", "/v1/devices/attic/topics?filter=tele/kitchen/%23").status_code == 404
    assert home.admin("DELETE", "/v1/devices/kitchen/topics?filter=tele/kitchen/%23").status_code == 204
    again = home.admin("DELETE", "/v1/devices/kitchen/topics?filter=tele/kitchen/%23")

    assert (again.status_code, again.json["code"]) == (404, "claim_not_found")
    assert claim(home, "attic", "tele/kitchen/#").status_code == 201


def test_claims_go_with_their_device(home) -> None:
    claim(home, "kitchen", "tele/kitchen/#")

    home.admin("DELETE", "/v1/devices/kitchen")

    assert every(home) == []
    assert claim(home, "attic", "tele/kitchen/#").status_code == 201


def test_viewers_look_and_do_not_claim(home) -> None:
    viewer = home.caller("viewer")

    assert claim(home, "kitchen", "tele/x/#", caller=viewer).status_code == 403
    assert viewer("DELETE", "/v1/devices/kitchen/topics?filter=x").status_code == 403
    assert viewer("GET", "/v1/devices/kitchen/topics").json == {"items": []}
    assert home.nobody("GET", "/internal/topics").status_code == 401


def test_states_decide_what_holds_at_the_broker(home) -> None:
    rights = store.ClaimStore(home.app.extensions["headwater.database"])
    claim(home, "kitchen", "tele/kitchen/#")
    held = [each.device for each in rights.in_force()]

    home.admin("POST", "/v1/devices/kitchen:disable")

    assert (held, rights.in_force(), rights.in_force("kitchen")) == (["kitchen"], [], [])
    assert [each.device for each in rights.every()] == ["kitchen"]
