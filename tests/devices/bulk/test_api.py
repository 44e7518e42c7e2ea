from __future__ import annotations

import pytest

from tests.support.waiting import wait_until


def act(service, query, preview=False, **action):
    return service.admin("POST", "/v1/devices:bulk", {"query": query, "action": action, "preview": preview})


def finished(service, started):
    assert started.status_code == 202, started.json
    path = f"/v1/jobs/{started.json['id']}"
    wait_until(lambda: service.admin("GET", path).json["state"] in ("done", "failed"))
    return service.admin("GET", path).json


def found(service, query) -> list[str]:
    return [item["id"] for item in service.admin("GET", "/v1/devices", query_string={"q": query}).json["items"]]


@pytest.fixture
def fleet(service):
    for number in range(60):  # more than one turn
        service.register(f"d{number:02}", type="pump" if number % 2 else "tank", tags={"site": "a"})
    return service


def test_preview_tells_and_changes_nothing(fleet) -> None:
    shown = act(fleet, "type=pump", preview=True, do="delete").json

    assert (shown["count"], [item["id"] for item in shown["examples"]][:2]) == (30, ["d01", "d03"])
    assert len(shown["examples"]) == 10
    assert len(found(fleet, "")) == 60


def test_update_reaches_what_was_found_at_the_start(fleet) -> None:
    patch = {"tags": {"site": None, "hall": "3"}, "attributes": {"fw": "2.0"}, "type": "tank"}

    job = finished(fleet, act(fleet, "type=pump", do="update", patch=patch))

    assert (job["state"], job["done"], job["failed"], job["total"]) == ("done", 30, 0, 30)
    assert found(fleet, "type=pump") == []
    assert found(fleet, "tag.hall=3 and not has tag.site and fw=2") == [f"d{n:02}" for n in range(1, 60, 2)]


def test_failures_are_listed_device_by_device(fleet) -> None:
    fleet.admin("POST", "/v1/devices/d02:retire")

    job = finished(fleet, act(fleet, "id in (d01, d02, d03)", do="disable"))

    assert (job["state"], job["done"], job["failed"]) == ("done", 2, 1)
    assert [(failure["id"], failure["code"]) for failure in job["result"]["failures"]] == [("d02", "device_retired")]
    assert '"d02"' in fleet.admin("GET", job["download"]).text
    assert found(fleet, "state=disabled") == ["d01", "d03"]


def test_groups_are_filled_and_emptied(fleet) -> None:
    fleet.admin("POST", "/v1/groups", {"name": "blue"})

    finished(fleet, act(fleet, "type=pump", do="add_to_group", group="blue"))
    finished(fleet, act(fleet, "group=blue and not id=d01", do="remove_from_group", group="blue"))
    lost = act(fleet, "type=pump", do="add_to_group", group="red")

    assert found(fleet, "group=blue") == ["d01"]
    assert (lost.status_code, lost.json["code"]) == (404, "group_not_found")


def test_states_and_deletion_follow_each_other(fleet) -> None:
    for do in ("disable", "enable", "retire", "delete"):
        assert finished(fleet, act(fleet, "type=pump", do=do))["failed"] == 0

    assert found(fleet, "") == found(fleet, "type=tank")
    trail = fleet.admin("GET", "/v1/audit?object=d01").json["items"]
    assert [entry["action"] for entry in trail] == [
        "device.delete", "device.retire", "device.enable", "device.disable", "device.create"]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"query": "", "action": {"do": "delete"}}, 422),
        ({"action": {"do": "delete"}}, 422),
        ({"query": "online"}, 422),
        ({"query": "online", "action": {"do": "explode"}}, 422),
        ({"query": "online", "action": {"do": "update"}}, 422),
        ({"query": "onlin=", "action": {"do": "delete"}}, 400),
    ],
)
def test_requests_that_say_too_little_are_refused(service, body, status) -> None:
    assert service.admin("POST", "/v1/devices:bulk", body).status_code == status


def test_counts_are_told(fleet) -> None:
    assert fleet.admin("GET", "/v1/devices:count?q=type=pump").json == {"count": 30, "is_exact": True}
    assert fleet.admin("GET", "/v1/devices:count?exact=true").json == {"count": 60, "is_exact": True}


def test_services_select_page_by_page(fleet) -> None:
    asked = {"tenant": "default", "query": "type=pump", "limit": 20}

    first = fleet.internal("POST", "/internal/devices:select", asked).json
    second = fleet.internal("POST", "/internal/devices:select", asked | {"after": first["next"]}).json
    other = fleet.internal("POST", "/internal/devices:select", asked | {"tenant": "other"}).json

    assert first["ids"] + second["ids"] == found(fleet, "type=pump")
    assert (second["next"], other) == (None, {"ids": [], "next": None})
    assert fleet.admin("POST", "/internal/devices:select", asked).status_code == 401
