from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from chassis.tokens import hash_token
from tests.devices.running import ADMIN, Caller, Service
from wire import clock

ACME = {"Headwater-Tenant": "acme"}


def acting(service: Service, tenant: str) -> Caller:
    return Caller(service.app, f"{ADMIN}@{tenant}")


@pytest.fixture
def tenants(service) -> Service:
    for tenant in ("acme", "other"):
        assert service.admin("POST", "/v1/tenants", {"id": tenant, "title": tenant.title()}).status_code == 201
    return service


def caller_of(service: Service, tenant: str, role: str) -> Caller:
    made = acting(service, tenant)("POST", "/v1/tokens", {"name": role, "role": role})
    return Caller(service.app, made.json["token"])


def test_tenants_are_listed_with_what_is_in_them(tenants) -> None:
    acting(tenants, "acme")("POST", "/v1/devices", {"id": "d1"})

    items = tenants.admin("GET", "/v1/tenants").json["items"]

    assert [(each["id"], each["title"], each["devices"]) for each in items] == [
        ("acme", "Acme", 1), ("default", "", 0), ("other", "Other", 0),
    ]  # fmt: skip
    assert tenants.admin("POST", "/v1/tenants", {"id": "acme"}).json["code"] == "tenant_exists"


def test_the_platform_acts_where_header_or_token_says(tenants) -> None:
    by_token = acting(tenants, "acme")("POST", "/v1/devices", {"id": "d1"})
    by_header = tenants.admin("POST", "/v1/devices", {"id": "d2"}, headers=ACME)

    assert [by_token.json["tenant"], by_header.json["tenant"]] == ["acme", "acme"]
    assert tenants.admin("GET", "/v1/devices").json["items"] == []
    assert [each["actor"] for each in acting(tenants, "acme")("GET", "/v1/audit?object=d1").json["items"]] == [
        "token:bootstrap@default"
    ]
    assert tenants.admin("GET", "/v1/audit?object=d1").json["items"] == []


@pytest.mark.parametrize("tenant", ["nowhere", "a b", "", "acme%00"])
def test_nobody_acts_in_a_tenant_that_is_none(tenants, tenant: str) -> None:
    assert Caller(tenants.app, f"{ADMIN}@{tenant}")("GET", "/v1/devices").status_code == 401


def test_role_of_a_tenant_ends_at_its_border(tenants) -> None:
    admin = caller_of(tenants, "acme", "admin")

    assert Caller(tenants.app, f"{admin.token}@other")("GET", "/v1/devices").status_code == 401
    assert admin("GET", "/v1/devices", headers={"Headwater-Tenant": "default"}).status_code == 401
    assert admin("GET", "/v1/devices", headers=ACME).status_code == 200
    assert admin("GET", "/v1/tenants").status_code == 403
    assert admin("POST", "/v1/devices/d1:move", {"tenant": "other"}).status_code == 403


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/devices/d1", None),
        ("PATCH", "/v1/devices/d1", {"tags": {"a": "b"}}),
        ("DELETE", "/v1/devices/d1", None),
        ("POST", "/v1/devices/d1:disable", None),
        ("GET", "/v1/devices/d1/credentials", None),
        ("POST", "/v1/devices/d1/credentials", {}),
        ("POST", "/v1/devices/d1/credentials:rotate", {}),
        ("GET", "/v1/device-types/pump", None),
        ("DELETE", "/v1/device-types/pump", None),
        ("DELETE", "/v1/tokens/operator", None),
        ("PATCH", "/v1/operators/ann", {"role": "viewer"}),
        ("DELETE", "/v1/operators/ann", None),
    ],
)
def test_what_is_of_another_tenant_is_not_there(tenants, method: str, path: str, body: Any) -> None:
    theirs = acting(tenants, "other")
    theirs("POST", "/v1/devices", {"id": "d1", "type": "pump"})
    theirs("PUT", "/v1/device-types/pump", {})
    theirs("POST", "/v1/tokens", {"name": "operator", "role": "operator"})
    theirs("POST", "/v1/operators", {"name": "ann", "password": "a long password", "role": "operator"})
    mine = caller_of(tenants, "acme", "admin")

    answer = mine(method, path, body)

    assert answer.status_code == 404
    assert "other" not in answer.text


def test_lists_show_the_own_tenant_only(tenants) -> None:
    for tenant in ("acme", "other"):
        acting(tenants, tenant)("POST", "/v1/devices", {"id": f"d-{tenant}", "tags": {"site": "a"}})
        acting(tenants, tenant)("PUT", f"/v1/device-types/t-{tenant}", {})
    mine = caller_of(tenants, "acme", "admin")

    shown = {path: mine("GET", path).text for path in ("/v1/devices?tag=site:a", "/v1/device-types", "/v1/audit")}

    assert all("acme" in text and "other" not in text for text in shown.values())
    assert "d-other" not in mine("GET", "/v1/tokens").text + mine("GET", "/v1/operators").text


def test_id_is_taken_in_the_whole_installation_by_nobody_knows_whom(tenants) -> None:
    acting(tenants, "other")("POST", "/v1/devices", {"id": "d1"})
    mine = caller_of(tenants, "acme", "operator")

    answer = mine("POST", "/v1/devices", {"id": "d1"})
    imported = mine("POST", "/v1/devices:import", data="id\nd1\n", content_type="text/csv")

    assert (answer.status_code, answer.json["code"]) == (409, "device_exists")
    assert "other" not in answer.text + imported.text
    assert imported.json["failed"][0]["code"] == "device_exists"


def test_same_type_name_has_rules_of_its_own_in_each_tenant(tenants) -> None:
    for tenant, unit in (("acme", "s"), ("other", "ms")):
        acting(tenants, tenant)("PUT", "/v1/device-types/pump", {"time_unit": unit})
        acting(tenants, tenant)("POST", "/v1/devices", {"id": f"d-{tenant}", "type": "pump"})

    found = tenants.internal("POST", "/internal/devices:lookup", {"ids": ["d-acme", "d-other"]}).json

    assert {key: kind["time_unit"] for key, kind in found["types"].items()} == {"acme/pump": "s", "other/pump": "ms"}
    assert {each["id"]: each["tenant"] for each in found["devices"]} == {"d-acme": "acme", "d-other": "other"}


def test_moved_device_takes_what_is_its_own_along(tenants) -> None:
    acting(tenants, "acme")("POST", "/v1/devices", {"id": "d1", "type": "pump", "tags": {"site": "a"}})
    tenants.internal("POST", "/internal/seen", {"devices": {"d1": 10**18}})
    revision = tenants.internal("GET", "/internal/changes?since=0").json["revision"]

    moved = acting(tenants, "acme")("POST", "/v1/devices/d1:move", {"tenant": "other"})

    assert moved.status_code == 204
    assert acting(tenants, "acme")("GET", "/v1/devices/d1").status_code == 404
    shown = acting(tenants, "other")("GET", "/v1/devices/d1").json
    assert (shown["tags"], shown["type"], len(shown["credentials"])) == ({"site": "a"}, "pump", 1)
    assert shown["last_seen"].startswith("2001")
    assert acting(tenants, "other")("GET", "/v1/devices?tag=site:a").json["items"][0]["id"] == "d1"
    assert tenants.internal("GET", f"/internal/changes?since={revision}").json["devices"] == ["d1"]


def test_moved_device_leaves_static_groups_and_its_gateway(tenants) -> None:
    acme = acting(tenants, "acme")
    acme("POST", "/v1/devices", {"id": "g1", "gateway": True})
    acme("POST", "/v1/devices", {"id": "d1"})
    with tenants.app.extensions["headwater.database"].write() as transaction:
        for sql in (
            "INSERT INTO device_groups VALUES ('acme', 'g', '', NULL, 1, 1)",
            "INSERT INTO group_members VALUES ('acme', 'g', 'd1')",
            "INSERT INTO children (tenant, device, gateway, since_ns) VALUES ('acme', 'd1', 'g1', 1)",
        ):
            transaction.execute(text(sql))

    gateway = acme("POST", "/v1/devices/g1:move", {"tenant": "other"})
    child = acme("POST", "/v1/devices/d1:move", {"tenant": "other"})

    assert (gateway.status_code, gateway.json["code"], child.status_code) == (409, "gateway_has_children", 204)
    assert acme("POST", "/v1/devices/g1:move", {"tenant": "other"}).status_code == 204


def test_what_the_old_owner_ordered_never_reaches_the_new_one(tenants) -> None:
    acme, other = acting(tenants, "acme"), acting(tenants, "other")
    secret = acme("POST", "/v1/devices", {"id": "d1"}).json["credential"]["secret"]
    sent = acme("POST", "/v1/devices/d1/commands", {"name": "open-gate"}).json["id"]
    acme("PATCH", "/v1/devices/d1/twin/desired", {"door": "open"})
    assert len(acme("GET", "/v1/devices/d1/twin/history").json["items"]) == 1

    assert acme("POST", "/v1/devices/d1:move", {"tenant": "other"}).status_code == 204

    polled = tenants.nobody("GET", "/v1/device/commands", headers={"Authorization": f"Bearer d1.{secret}"})
    entries = acme("GET", "/v1/audit?object=d1&action=command.cancel").json["items"]
    assert polled.status_code == 204
    assert [entry["detail"] for entry in entries] == [{"id": sent, "reason": "device_gone"}]
    assert other("GET", "/v1/commands").json["items"] == []
    assert other("GET", "/v1/devices/d1/twin/history").json["items"] == []
    assert acme("GET", f"/v1/commands/{sent}").status_code == 404
    assert acme("GET", "/v1/devices/d1/commands").json["code"] == "device_not_found"


def test_history_of_presence_stays_with_the_old_owner(tenants) -> None:
    acme, other = acting(tenants, "acme"), acting(tenants, "other")
    acme("POST", "/v1/devices", {"id": "d1"})
    tenants.internal("POST", "/internal/seen", {"devices": {"d1": clock.now_ns()}})
    before = acme("GET", "/v1/devices/d1/presence").json["events"]
    assert [(event["state"], event["reason"]) for event in before] == [("online", "data")]

    assert acme("POST", "/v1/devices/d1:move", {"tenant": "other"}).status_code == 204

    after = other("GET", "/v1/devices/d1/presence?start=0").json
    assert [(event["state"], event["reason"]) for event in after["events"]] == [("online", "moved")]
    assert after["before"] == "never"
    assert after["events"][0]["time"] > before[0]["time"]
    assert acme("GET", "/v1/devices/d1/presence").json["code"] == "device_not_found"


def test_platform_that_only_reads_in_a_tenant_is_audited_there_once(tenants) -> None:
    for _ in range(3):
        assert acting(tenants, "acme")("GET", "/v1/devices").status_code == 200

    items = acting(tenants, "acme")("GET", "/v1/audit?action=tenant.visit").json["items"]

    seen = [(each["actor"], each["object"], each["remote_ip"]) for each in items]
    assert seen == [("token:bootstrap@default", "acme", "127.0.0.1")]
    assert tenants.admin("GET", "/v1/audit?action=tenant.visit").json["items"] == []


def test_move_is_audited_where_it_concerns(tenants) -> None:
    acting(tenants, "acme")("POST", "/v1/devices", {"id": "d1"})
    acting(tenants, "acme")("POST", "/v1/devices/d1:move", {"tenant": "other"})

    def newest(tenant: str) -> tuple[str, Any]:
        entry = acting(tenants, tenant)("GET", "/v1/audit?object=d1").json["items"][0]
        return entry["action"], entry["detail"]

    assert newest("acme") == ("device.leave", {})
    assert newest("other") == ("device.arrive", {})
    assert newest("default") == ("device.move", {"from": "acme", "to": "other"})


@pytest.mark.parametrize(
    ("target", "status", "code"),
    [("acme", 409, "same_tenant"), ("nowhere", 404, "tenant_not_found"), ("full", 403, "device_quota")],
)
def test_move_that_cannot_be_changes_nothing(tenants, target: str, status: int, code: str) -> None:
    tenants.admin("POST", "/v1/tenants", {"id": "full", "limits": {"devices": 0}})
    acting(tenants, "acme")("POST", "/v1/devices", {"id": "d1"})

    answer = acting(tenants, "acme")("POST", "/v1/devices/d1:move", {"tenant": target})

    assert (answer.status_code, answer.json["code"]) == (status, code)
    assert acting(tenants, "acme")("GET", "/v1/devices/d1").status_code == 200


def test_tenant_has_at_most_the_devices_it_may(tenants) -> None:
    tenants.admin("PATCH", "/v1/tenants/acme", {"limits": {"devices": 1}})
    operator = caller_of(tenants, "acme", "operator")

    answers = [operator("POST", "/v1/devices", {"id": key}) for key in ("d1", "d2")]

    usage = operator("GET", "/v1/usage").json
    assert (usage["id"], usage["devices"], usage["limits"]) == (
        "acme",
        1,
        {"devices": 1, "rate_limit": None, "feed_readers": None, "connections": None},
    )
    assert [answer.status_code for answer in answers] == [201, 403]
    assert answers[1].json["code"] == "device_quota"


def test_rate_limit_of_a_tenant_reaches_the_services_and_leaves_other_limits(tenants) -> None:
    acting(tenants, "acme")("POST", "/v1/devices", {"id": "d1"})
    tenants.admin("PATCH", "/v1/tenants/acme", {"limits": {"devices": 5}})
    looked = ("POST", "/internal/devices:lookup", {"ids": ["d1"]})
    before = tenants.internal(*looked).json

    changed = tenants.admin("PATCH", "/v1/tenants/acme", {"limits": {"rate_limit": "100:1, 2000:60"}})

    assert (before["rate_limits"], changed.json["limits"]) == (
        {"acme": None}, {"devices": 5, "rate_limit": "100:1,2000:60", "feed_readers": None, "connections": None},
    )  # fmt: skip
    assert tenants.internal(*looked).json["rate_limits"] == {"acme": "100:1,2000:60"}
    news = tenants.internal("GET", f"/internal/changes?since={before['revision']}").json
    assert (news["tenants"], news["devices"]) == (["acme"], [])
    assert tenants.admin("PATCH", "/v1/tenants/acme", {"limits": {"rate_limit": "lots"}}).status_code == 422


def test_feed_is_told_how_many_readers_a_tenant_may_have(tenants) -> None:
    viewer = caller_of(tenants, "acme", "viewer")
    tenants.admin("PATCH", "/v1/tenants/acme", {"limits": {"feed_readers": 3}})

    def told(token: str, **more: str) -> Any:
        asked = {"sha256": hash_token(token)} | more
        return tenants.internal("POST", "/internal/tokens:verify", asked).json["feed_readers"]

    assert (told(viewer.token), told(ADMIN, tenant="acme"), told(ADMIN)) == (3, 3, None)


def test_suspended_tenant_is_refused_everywhere_until_it_goes_on(tenants) -> None:
    operator = caller_of(tenants, "acme", "operator")
    operator("POST", "/v1/devices", {"id": "d1"})
    looked = ("POST", "/internal/devices:lookup", {"ids": ["d1"]})

    tenants.admin("POST", "/v1/tenants/acme:suspend")
    refused = operator("GET", "/v1/devices").status_code, tenants.internal(*looked).json["devices"][0]["state"]
    seen = acting(tenants, "acme")("GET", "/v1/devices/d1").json["state"]
    tenants.admin("POST", "/v1/tenants/acme:resume")

    assert (refused, seen) == ((401, "disabled"), "registered")
    assert operator("GET", "/v1/devices").status_code == 200
    assert tenants.internal(*looked).json["devices"][0]["state"] == "active"


def test_suspended_tenants_devices_leave_the_broker(tenants) -> None:
    from devices.internal.lookups import LookupStore

    acting(tenants, "acme")("POST", "/v1/devices", {"id": "d1"})
    store = LookupStore(tenants.app.extensions["headwater.database"])
    before = [each.device for each in store.broker_credentials(10**18)[0]]

    tenants.admin("POST", "/v1/tenants/acme:suspend")

    assert (before, store.broker_credentials(10**18)[0]) == (["d1"], [])


def test_deleted_tenant_is_gone_and_its_id_is_not_given_out_again(tenants) -> None:
    operator = caller_of(tenants, "acme", "operator")
    operator("POST", "/v1/devices", {"id": "d1"})
    in_use = tenants.admin("DELETE", "/v1/tenants/acme")
    operator("DELETE", "/v1/devices/d1")

    assert (in_use.status_code, in_use.json["code"]) == (409, "tenant_in_use")
    assert tenants.admin("DELETE", "/v1/tenants/acme").status_code == 204
    assert tenants.admin("GET", "/v1/tenants/acme").status_code == 404
    assert operator("GET", "/v1/devices").status_code == 401
    assert acting(tenants, "acme")("GET", "/v1/devices").status_code == 401
    assert tenants.admin("POST", "/v1/tenants", {"id": "acme"}).json["code"] == "tenant_exists"


@pytest.mark.parametrize("deed", [("DELETE", ""), ("POST", ":suspend")])
def test_the_platforms_own_tenant_stays(service, deed: tuple[str, str]) -> None:
    assert service.admin(deed[0], f"/v1/tenants/default{deed[1]}").json["code"] == "home_tenant"


def test_nobody_hands_out_more_than_they_have(tenants) -> None:
    home, admin = caller_of(tenants, "default", "admin"), caller_of(tenants, "acme", "admin")
    person = {"name": "eve", "password": "a long password"}
    tenants.admin("POST", "/v1/operators", person | {"name": "root", "role": "platform"})

    refused = [
        home("POST", "/v1/tokens", {"name": "up", "role": "platform"}),
        home("POST", "/v1/operators", person | {"role": "platform"}),
        home("PATCH", "/v1/operators/root", {"password": "another password"}),
        home("DELETE", "/v1/operators/root"),
        home("DELETE", "/v1/tokens/bootstrap"),
        admin("POST", "/v1/tokens", {"name": "up", "role": "platform"}),
        acting(tenants, "acme")("POST", "/v1/tokens", {"name": "up", "role": "platform"}),
    ]

    assert [(answer.status_code, answer.json["code"]) for answer in refused] == [(403, "role_above")] * len(refused)
    assert home("POST", "/v1/operators", person | {"role": "admin"}).status_code == 201


def test_person_of_a_tenant_logs_in_with_its_name(tenants) -> None:
    body = {"name": "ann", "password": "a long password", "role": "viewer"}
    acting(tenants, "acme")("POST", "/v1/operators", body)
    log_in: Callable[[str], Any] = lambda name: tenants.internal(  # noqa: E731
        "POST", "/internal/operators:login", {"name": name, "password": "a long password"}
    )

    session = log_in("ann@acme").json

    known = tenants.internal("POST", "/internal/tokens:verify", {"sha256": hash_token(session["token"])}).json
    assert (known["name"], known["tenant"], known["home"]) == ("ann", "acme", None)
    assert [log_in(name).status_code for name in ("ann", "ann@other", "ann@nowhere")] == [401, 401, 401]
