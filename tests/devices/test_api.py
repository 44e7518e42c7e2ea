from __future__ import annotations

import pytest
from sqlalchemy import update

from devices.database.tables import CREDENTIALS
from wire.devices import ROLES, allows

ODD_IDS = [
    "+",
    "#",
    "a/b",
    "$SYS",
    "a\0b",
    "..",
    "a" * 65,
    "d1\n",
    "\u202ed1",
    "d\u0131",
    "_bridge",
    "",
    " d1",
    "%2e%2e",
    "a b",
    "a:b",
]
BODIES = {
    "/v1/devices": {"id": "made-by-role"},
    "/v1/device-types": {"name": "made-by-role"},
    "/v1/tokens": {"name": "made-by-role", "role": "viewer"},
    "/v1/operators": {"name": "made-by-role", "password": "long enough", "role": "viewer"},
}


def test_device_is_registered_shown_and_its_secret_told_once(service) -> None:
    wanted = {"id": "d1", "type": "greenhouse", "tags": {"site": "a"}, "gateway": True}

    made = service.admin("POST", "/v1/devices", wanted)
    shown = service.admin("GET", "/v1/devices/d1").json

    assert made.status_code == 201
    secret = made.json["credential"]["secret"]
    assert made.json["credential"]["bearer"] == f"d1.{secret}"
    assert {key: shown[key] for key in wanted} == wanted
    assert (shown["state"], shown["online"], shown["last_seen"], shown["tenant"]) == (
        "registered",
        False,
        None,
        "default",
    )
    assert secret not in service.admin("GET", "/v1/devices/d1").text
    assert [item["id"] for item in shown["credentials"]] == [made.json["credential"]["id"]]


def test_second_registration_of_same_id_conflicts(service) -> None:
    service.register("d1")

    answer = service.admin("POST", "/v1/devices", {"id": "d1"})

    assert (answer.status_code, answer.json["code"], answer.json["fields"]) == (409, "device_exists", ["id"])


@pytest.mark.parametrize("device_id", ODD_IDS)
def test_odd_ids_are_refused_everywhere(service, device_id) -> None:
    answer = service.admin("POST", "/v1/devices", {"id": device_id})
    assert (answer.status_code, answer.json["code"]) == (422, "unprocessable")

    from urllib.parse import quote

    for method, tail in [
        ("GET", ""),
        ("PATCH", ""),
        ("DELETE", ""),
        ("POST", ":disable"),
        ("GET", "/credentials"),
        ("POST", "/credentials:rotate"),
        ("DELETE", "/credentials/c1"),
    ]:
        status = service.admin(method, f"/v1/devices/{quote(device_id, safe='')}{tail}").status_code
        assert status in (308, 404, 405) or (status, device_id) == (200, ""), (method, tail)
    for method in ("GET", "DELETE"):
        for path in ("/v1/device-types/", "/v1/tokens/", "/v1/operators/"):
            assert service.admin(method, path + quote(device_id, safe="")).status_code in (308, 404, 405)


def test_patch_merges_tags_and_leaves_the_rest(service) -> None:
    service.register("d1", type="pump", tags={"a": "1", "b": "2"})

    patched = service.admin("PATCH", "/v1/devices/d1", {"tags": {"a": None, "c": "3"}})
    untyped = service.admin("PATCH", "/v1/devices/d1", {"type": None, "gateway": True}).json

    assert patched.json["tags"] == {"b": "2", "c": "3"}
    assert (patched.json["type"], untyped["type"], untyped["gateway"]) == ("pump", None, True)
    assert service.admin("GET", "/v1/devices?tag=a:1").json["items"] == []
    assert len(service.admin("GET", "/v1/devices?tag=c:3").json["items"]) == 1


def test_rate_limit_of_one_device_is_its_attribute(service) -> None:
    def told() -> str | None:
        return service.internal("POST", "/internal/devices:lookup", {"ids": ["d1"]}).json["devices"][0]["rate_limit"]

    service.register("d1", attributes={"rate_limit": "messages 5:1, 20:60"})
    before, answers = told(), []
    for limit in ("fast", 20, True):
        answers.append(service.admin("PATCH", "/v1/devices/d1", {"attributes": {"rate_limit": limit}}).status_code)
        body = {"id": "d2", "attributes": {"rate_limit": limit}}
        answers.append(service.admin("POST", "/v1/devices", body).status_code)
    service.admin("PATCH", "/v1/devices/d1", {"attributes": {"rate_limit": ""}})
    lifted = told()
    service.admin("PATCH", "/v1/devices/d1", {"attributes": {"rate_limit": None}})

    assert (before, lifted, told()) == ("messages 5:1,20:60", "", None)
    assert answers == [422] * 6


def test_attributes_are_merged_and_found_by_value(service) -> None:
    service.register("d1", attributes={"floor": 3, "room": "b", "dry": True, "fw": "1.10.0"})
    service.register("d2", attributes={"floor": 2.5, "fw": "1.9"})

    patched = service.admin("PATCH", "/v1/devices/d1", {"attributes": {"room": None, "floor": 4}})

    assert patched.json["attributes"] == {"floor": 4, "dry": True, "fw": "1.10.0"}
    found = {
        query: [item["id"] for item in service.admin("GET", "/v1/devices", query_string={"q": query}).json["items"]]
        for query in ("attr.floor>=4", "attr.floor=3", "attr.dry=true", "has attr.room", "fw<1.10", "fw=1.10")
    }
    assert found == {"attr.floor>=4": ["d1"], "attr.floor=3": [], "attr.dry=true": ["d1"], "has attr.room": [],
                     "fw<1.10": ["d2"], "fw=1.10": ["d1"]}  # fmt: skip


def test_firmware_version_follows_its_attribute(service) -> None:
    service.register("d1", attributes={"fw": "1.2"})

    service.admin("PATCH", "/v1/devices/d1", {"attributes": {"fw": "2.0"}})
    newer = service.admin("GET", "/v1/devices?q=fw>1.2").json["items"]
    service.admin("PATCH", "/v1/devices/d1", {"attributes": {"fw": None}})

    assert [item["id"] for item in newer] == ["d1"]
    assert service.admin("GET", "/v1/devices?q=has+fw").json["items"] == []


@pytest.mark.parametrize("value", [None, [1], {"a": 1}, 2**53 + 1, "x" * 257, "a\x00b"])
def test_attributes_are_texts_numbers_and_booleans(service, value) -> None:
    answer = service.admin("POST", "/v1/devices", {"id": "d1", "attributes": {"x": value}})

    assert (answer.status_code, answer.json["code"]) == (422, "unprocessable")


def test_query_that_cannot_be_read_is_told_with_its_place(service) -> None:
    answer = service.admin("GET", "/v1/devices", query_string={"q": "type=pump and fwx<2"})

    assert (answer.status_code, answer.json["code"], answer.json["fields"]) == (400, "bad_query", ["q"])
    assert (answer.json["position"], answer.json["length"]) == (14, 3)


def test_patch_beyond_the_number_of_tags_is_refused(service) -> None:
    service.register("d1", tags={f"k{n}": "v" for n in range(32)})

    answer = service.admin("PATCH", "/v1/devices/d1", {"tags": {"one-more": "v"}})

    assert (answer.status_code, answer.json["fields"]) == (422, ["tags"])


def test_list_is_paged_and_filtered(service) -> None:
    for number in range(5):
        service.register(f"d{number}", type="pump" if number % 2 else "tank", tags={"site": "A%b" if number else "c"})
    service.admin("POST", "/v1/devices/d4:disable")

    first = service.admin("GET", "/v1/devices?limit=2").json
    second = service.admin("GET", f"/v1/devices?limit=3&cursor={first['next']}").json

    def ids(query: str) -> list[str]:
        return [item["id"] for item in service.admin("GET", f"/v1/devices?{query}").json["items"]]

    assert [item["id"] for item in first["items"] + second["items"]] == ["d0", "d1", "d2", "d3", "d4"]
    assert ids("type=pump") == ["d1", "d3"]
    assert ids("state=disabled") == ["d4"]
    assert ids("q=a%25B&type=tank") == ["d2", "d4"]
    assert ids("q=a_b") == []
    assert ids("tag=site:A%25b&tag=site:c") == []
    assert ids("online=true") == []


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=1001", "limit=x", "tag=nocolon", "state=odd", "q=%00", "unknown=1", "cursor=%00", "type=%0a"],
)
def test_wrong_queries_are_refused(service, query) -> None:
    assert service.admin("GET", f"/v1/devices?{query}").status_code == 400


@pytest.mark.parametrize(
    "query",
    [
        "q=' OR 1=1--",
        'q="\' OR 1=1--"',
        'q=id="\' OR 1=1--"',
        'q=") |> drop()',
        "tag=a:' OR 1=1--",
        "type=' OR 1=1--",
        "cursor=' OR 1=1--",
    ],
)
def test_injected_queries_find_what_they_say(service, query) -> None:
    service.register("d1")

    answer = service.admin("GET", f"/v1/devices?{query}")

    if answer.status_code == 400:
        assert answer.json["code"] == "bad_query"
    else:
        assert answer.json["items"] == [] or query.startswith("cursor")


def test_credentials_come_one_by_one_and_go(service) -> None:
    service.register("d1")
    path = "/v1/devices/d1/credentials"

    second = service.admin("POST", path, {"not_after": "2199-01-01T00:00:00Z"}).json["credential"]
    listed = service.admin("GET", path).json["items"]
    gone = service.admin("DELETE", f"{path}/{second['id']}")

    assert [item["not_after"] for item in listed] == [None, "2199-01-01T00:00:00.000000000Z"]
    assert (gone.status_code, len(service.admin("GET", path).json["items"])) == (204, 1)
    assert service.admin("DELETE", f"{path}/{second['id']}").json["code"] == "credential_not_found"
    assert service.admin("POST", path, {"not_after": "1999-01-01T00:00:00Z"}).status_code == 422


def test_rotation_overlaps_then_ends_the_others(service) -> None:
    service.register("d1")
    path = "/v1/devices/d1/credentials"

    service.admin("POST", f"{path}:rotate", {"overlap_s": 3600})
    during = service.admin("GET", path).json["items"]
    service.admin("POST", f"{path}:rotate", {"overlap_s": 0})
    after = service.internal("POST", "/internal/devices:lookup", {"ids": ["d1"]}).json["devices"][0]["credentials"]

    assert [item["not_after"] is None for item in during] == [False, True]
    assert [item["not_after_ns"] for item in after] == [None]  # without an overlap the others are gone at once


def test_number_of_credentials_is_bounded(service) -> None:
    service.register("d1")

    statuses = [service.admin("POST", "/v1/devices/d1/credentials", {}).status_code for _ in range(16)]

    assert statuses == [201] * 15 + [409]


def test_rotation_without_overlap_makes_room_at_the_bound(service) -> None:
    service.register("d1")
    path = "/v1/devices/d1/credentials"
    for _ in range(15):
        service.admin("POST", path, {})

    with_overlap = service.admin("POST", f"{path}:rotate", {"overlap_s": 60})
    without = service.admin("POST", f"{path}:rotate", {"overlap_s": 0})

    assert (with_overlap.status_code, with_overlap.json["code"]) == (409, "too_many_credentials")
    assert (without.status_code, len(service.admin("GET", path).json["items"])) == (201, 1)


@pytest.mark.parametrize("bound", [float("nan"), float("inf"), float("-inf")])
def test_bounds_of_a_field_are_finite_numbers(service, bound) -> None:
    spec = {"fields": {"temp": {"max": bound}}}  # written as NaN, Infinity, -Infinity

    assert service.admin("PUT", "/v1/device-types/greenhouse", spec).status_code == 422


def test_types_are_versioned_and_kept_while_used(service) -> None:
    spec = {"fields": {"temp": {"type": "float", "min": -40, "max": 85, "unit": "C", "required": True}}}

    made = service.admin("PUT", "/v1/device-types/greenhouse", spec)
    same = service.admin("PUT", "/v1/device-types/greenhouse", spec)
    changed = service.admin("PUT", "/v1/device-types/greenhouse", spec | {"unknown_fields": "drop"})
    service.register("d1", type="greenhouse")
    refused = service.admin("DELETE", "/v1/device-types/greenhouse")

    assert [(a.status_code, a.json["version"]) for a in (made, same, changed)] == [(201, 1), (200, 1), (200, 2)]
    assert (refused.status_code, refused.json["code"]) == (409, "type_in_use")
    service.admin("PATCH", "/v1/devices/d1", {"type": None})
    assert service.admin("DELETE", "/v1/device-types/greenhouse").status_code == 204
    assert service.admin("GET", "/v1/device-types").json["items"] == []
    assert service.admin("POST", "/v1/device-types", {"name": "a"}).status_code == 201
    assert service.admin("POST", "/v1/device-types", {"name": "a"}).json["code"] == "type_exists"


SECRETS_IN_BODY = {"/api/v1/provision": {"provisionDeviceKey": "no-such", "provisionDeviceSecret": "wrong"}}


def test_every_route_holds_to_its_access_for_every_caller(service) -> None:
    callers = {role: service.caller(role) for role in ROLES} | {"none": service.nobody, "service": service.internal}
    callers["wrong"] = type(service.nobody)(service.app, "wrong-token")
    operations = service.app.extensions["headwater.api"].operations

    for number, operation in enumerate(operations):
        address = {"REMOTE_ADDR": f"10.0.0.{number}"}  # one each: of one address, many wrong tokens have to wait
        path = (
            operation.rule.replace("<device_id>", "no-such")
            .replace("<name>", "no-such")
            .replace("<credential_id>", "c")
            .replace("<number>", "1")
            .replace("<token_id>", "no-such")
            .replace("<tenant>", "no-such")
            .replace("<session_id>", "no-such")
        )
        for caller, call in callers.items():
            if operation.access == "own" and caller != "wrong":
                continue  # an operator's token is as wrong there as any other, and wrong ones soon have to wait
            nonsense = SECRETS_IN_BODY.get(operation.rule, {}) if operation.access == "own" else {"nonsense": 1}
            body = nonsense if operation.method != "GET" else None
            status = call(operation.method, path, body, environ_base=address).status_code
            expected = expected_refusal(operation.access, caller)
            told = () if operation.access == "self" else (401, 403)  # there a token is told that it is no person
            assert status == expected if expected else status not in told, (
                operation.method,
                path,
                caller,
                status,
            )

    assert {operation.access for operation in operations} == {*ROLES, "service", "own", "self"}
    assert len(operations) >= 30


def expected_refusal(access: str, caller: str) -> int | None:
    if access == "service":
        return None if caller == "service" else 401
    if access == "own" or caller not in ROLES:  # a device shows its own credential, which nobody here has
        return 401
    if access == "self":
        return None
    return None if allows(caller, access) else 403


@pytest.mark.parametrize(("path", "body"), BODIES.items())
@pytest.mark.parametrize("role", ["viewer", "operator"])
def test_refused_roles_leave_nothing_behind(service, path, body, role) -> None:
    caller = service.caller(role)

    answer = caller("POST", path, body)

    names = [item.get("name", item.get("id")) for item in service.admin("GET", path).json["items"]]
    assert ("made-by-role" in names) is (answer.status_code == 201)
    assert answer.status_code == (201 if role == "operator" and path.startswith("/v1/device") else 403)


def test_bodies_out_of_shape_are_refused_without_a_fault(service) -> None:
    for body in (
        b"",
        b"[]",
        b"null",
        b"\xff",
        b'{"id":',
        b'{"id":"d1","id":1}',
        b"[" * 100_000,
        b'{"id":"\\ud800"}',
        b'{"id":1e400}',
    ):
        answer = service.admin("POST", "/v1/devices", data=body, content_type="application/json")
        assert answer.status_code in (400, 422), body[:20]


def test_oversized_json_is_refused_before_it_is_read(service) -> None:
    answer = service.admin("POST", "/v1/devices", data=b" " * 300_000, content_type="application/json")

    assert (answer.status_code, answer.json["code"]) == (413, "too_large")


def test_openapi_describes_public_routes_only(service) -> None:
    document = service.nobody("GET", "/openapi.json").json

    assert "/v1/devices/{device_id}" in document["paths"]
    assert "text/csv" in document["paths"]["/v1/devices:import"]["post"]["requestBody"]["content"]
    assert not [path for path in document["paths"] if path.startswith("/internal")]


def test_credential_that_ended_first_makes_room_at_the_bound(service) -> None:
    service.register("d1")
    path = "/v1/devices/d1/credentials"
    made = [service.admin("POST", path, {"not_after": "2199-01-01T00:00:00Z"}).json for _ in range(15)]
    ended = [each["credential"]["id"] for each in made[3:6]]
    with service.app.extensions["headwater.database"].write() as transaction:
        for age, each in enumerate(ended, 1):
            which = update(CREDENTIALS).where(CREDENTIALS.c.id == each)
            transaction.execute(which.values(not_after_ns=transaction.now_ns - age))

    again = service.admin("POST", path, {})

    held = [each["id"] for each in service.admin("GET", path).json["items"]]
    assert (again.status_code, len(held)) == (201, 16)
    assert [each in held for each in ended] == [True, True, False]
