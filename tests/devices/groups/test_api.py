from __future__ import annotations

import pytest


def make(service, name, **more):
    return service.admin("POST", "/v1/groups", {"name": name} | more)


def found(service, query) -> list[str]:
    return [item["id"] for item in service.admin("GET", "/v1/devices", query_string={"q": query}).json["items"]]


def test_listed_group_holds_what_was_put_in(service) -> None:
    for device in ("d1", "d2", "d3"):
        service.register(device)

    made = make(service, "blue", description="night shift")
    put = service.admin("POST", "/v1/groups/blue:add", {"devices": ["d1", "d2", "d1", "ghost"]}).json
    again = service.admin("POST", "/v1/groups/blue:add", {"devices": ["d1"]}).json
    out = service.admin("POST", "/v1/groups/blue:remove", {"devices": ["d2", "d3"]}).json

    assert (made.status_code, made.json["count"], made.json["query"]) == (201, 0, None)
    assert (put, again["changed"]) == ({"changed": 2, "unknown": ["ghost"]}, 0)
    assert out == {"changed": 1, "unknown": ["d3"]}
    assert found(service, "group=blue") == ["d1"]
    assert found(service, "not group=blue") == ["d2", "d3"]
    assert service.admin("GET", "/v1/devices/d1/groups").json == {"items": ["blue"]}
    service.admin("DELETE", "/v1/devices/d1")
    assert service.admin("GET", "/v1/groups/blue").json["count"] == 0


def test_group_of_a_query_follows_its_devices(service) -> None:
    service.register("d1", type="pump")
    service.register("d2", type="tank")
    make(service, "pumps", query="type=pump")
    make(service, "others", query="not group=pumps")

    before = {item["name"]: item["count"] for item in service.admin("GET", "/v1/groups").json["items"]}
    service.admin("PATCH", "/v1/devices/d2", {"type": "pump"})

    assert before == {"pumps": 1, "others": 1}
    assert found(service, "group in (pumps)") == ["d1", "d2"]
    assert service.admin("GET", "/v1/devices/d2/groups").json == {"items": ["pumps"]}
    changed = service.admin("PATCH", "/v1/groups/pumps", {"query": "type=tank", "description": "x"}).json
    assert (changed["count"], changed["description"], changed["is_exact"]) == (0, "x", True)


def test_groups_that_make_no_sense_are_refused_and_change_nothing(service) -> None:
    make(service, "blue")
    make(service, "dim", query="not group=blue")

    refused = {
        (answer.status_code, answer.json["code"])
        for answer in (
            make(service, "blue"),
            make(service, "bad", query="type="),
            make(service, "lost", query="group=nowhere"),
            make(service, "self", query="group=self"),
            service.admin("PATCH", "/v1/groups/dim", {"query": "group=dim"}),
            service.admin("PATCH", "/v1/groups/blue", {"query": "type=x"}),
            service.admin("POST", "/v1/groups/dim:add", {"devices": ["d1"]}),
            service.admin("DELETE", "/v1/groups/blue"),
            service.admin("GET", "/v1/groups/nowhere"),
            service.admin("GET", "/v1/groups/%0a"),
        )
    }

    assert refused == {(409, "group_exists"), (400, "bad_query"), (409, "group_kind"), (409, "group_in_use"),
                       (404, "group_not_found")}  # fmt: skip
    assert [item["name"] for item in service.admin("GET", "/v1/groups").json["items"]] == ["blue", "dim"]
    assert service.admin("GET", "/v1/groups/dim").json["query"] == "not group=blue"


def test_deleting_a_group_leaves_its_devices(service) -> None:
    service.register("d1")
    make(service, "blue")
    service.admin("POST", "/v1/groups/blue:add", {"devices": ["d1"]})

    assert service.admin("DELETE", "/v1/groups/blue").status_code == 204

    assert service.admin("GET", "/v1/devices/d1/groups").json == {"items": []}
    gone = service.admin("GET", "/v1/devices", query_string={"q": "group=blue"})
    assert (gone.status_code, gone.json["code"]) == (400, "bad_query")


@pytest.mark.parametrize("config", ["sqlite"], indirect=True)
def test_viewer_sees_groups_and_changes_none(service) -> None:
    viewer = service.caller("viewer")
    make(service, "blue")

    assert viewer("GET", "/v1/groups").status_code == 200
    for method, path, body in (
        ("POST", "/v1/groups", {"name": "x"}),
        ("PATCH", "/v1/groups/blue", {}),
        ("DELETE", "/v1/groups/blue", None),
        ("POST", "/v1/groups/blue:add", {"devices": ["d1"]}),
        ("POST", "/v1/groups/blue:remove", {"devices": ["d1"]}),
        ("POST", "/v1/devices:bulk", {"query": "online", "action": {"do": "delete"}}),
    ):
        assert viewer(method, path, body).status_code == 403
