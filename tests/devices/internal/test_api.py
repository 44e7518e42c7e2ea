from __future__ import annotations

import threading
import time

from chassis.tokens import hash_token

KEPT_CHANGES = 10_000


def test_lookup_gives_devices_credentials_and_types(service) -> None:
    service.admin("PUT", "/v1/device-types/pump", {"time_unit": "s"})
    secret = service.register("d1", type="pump", tags={"site": "a"})
    service.register("d2", type="unwritten")
    service.admin("POST", "/v1/devices/d2:disable")

    found = service.internal("POST", "/internal/devices:lookup", {"ids": ["d1", "d2", "nobody", "a\0b", "d1"]}).json

    by_id = {device["id"]: device for device in found["devices"]}
    assert set(by_id) == {"d1", "d2"}
    assert by_id["d1"]["credentials"][0]["sha256"] == hash_token(secret)
    assert (by_id["d1"]["tags"], by_id["d2"]["state"]) == ({"site": "a"}, "disabled")
    assert {name: kind["time_unit"] for name, kind in found["types"].items()} == {"default/pump": "s"}


def test_lookup_of_too_many_ids_is_refused(service) -> None:
    assert service.internal("POST", "/internal/devices:lookup", {"ids": ["a"] * 5_001}).status_code == 422
    ids = [f"d{n}" for n in range(5_000)]
    assert service.internal("POST", "/internal/devices:lookup", {"ids": ids}).json["devices"] == []


def test_changes_name_what_was_touched_once_each(service) -> None:
    service.register("d1")
    start = service.internal("GET", "/internal/changes?since=0").json["revision"]

    service.admin("PATCH", "/v1/devices/d1", {"gateway": True})
    service.admin("PATCH", "/v1/devices/d1", {"gateway": True})  # no change
    service.admin("POST", "/v1/devices/d1/credentials:rotate", {})
    service.admin("PUT", "/v1/device-types/pump", {})
    changes = service.internal("GET", f"/internal/changes?since={start}").json

    assert changes == {
        "revision": start + 3,
        "reset": False,
        "devices": ["d1"],
        "types": ["default/pump"],
        "tenants": [],
        "tokens": False,
        "topics": False,
    }
    assert service.internal("GET", f"/internal/changes?since={start + 3}").json["devices"] == []


def test_changes_are_told_as_they_are_made(service) -> None:
    service.register("d1")
    start = service.internal("GET", "/internal/changes?since=0").json["revision"]
    path, told = f"/internal/changes?since={start}&wait=", []

    assert service.internal("GET", path + "0.01").json["revision"] == start
    thread = threading.Thread(target=lambda: told.append(service.internal("GET", path + "30").json))
    thread.start()
    service.admin("POST", "/v1/devices/d1:disable")
    thread.join(10)

    assert told[0]["devices"] == ["d1"]


def test_revision_from_another_life_asks_for_a_reset(service) -> None:
    assert service.internal("GET", "/internal/changes?since=99").json["reset"]


def test_changes_too_long_ago_ask_for_a_reset(service) -> None:
    lines = "id\n" + "".join(f"d{n}\n" for n in range(KEPT_CHANGES + 100))
    service.admin("POST", "/v1/devices:import", data=lines, content_type="text/csv")

    newest = service.internal("GET", "/internal/changes?since=0").json

    assert newest["reset"]
    kept = service.internal("GET", f"/internal/changes?since={newest['revision'] - KEPT_CHANGES}").json
    assert (kept["reset"], len(kept["devices"])) == (False, KEPT_CHANGES)
    assert service.internal("GET", f"/internal/changes?since={newest['revision'] - KEPT_CHANGES - 1}").json["reset"]


def test_seen_moves_last_seen_forward_only(service) -> None:
    service.register("d1")
    key = service.admin("GET", "/v1/devices/d1/credentials").json["items"][0]["id"]
    now_ns = time.time_ns()

    for at_ns in (now_ns, now_ns - 10**9, 10**18 * 9):  # the last lies in the future: it is taken for now
        body = {"devices": {"d1": at_ns}, "credentials": {key: min(at_ns, now_ns), "unknown": at_ns}}
        assert service.internal("POST", "/internal/seen", body).status_code == 204

    shown = service.admin("GET", "/v1/devices/d1").json
    assert shown["last_seen"].startswith("20")
    assert shown["credentials"][0]["last_used"] is not None
    assert service.internal("POST", "/internal/seen", {"devices": {"d1": 10**30}}).status_code == 422


def test_token_is_verified_until_revoked(service) -> None:
    made = service.admin("POST", "/v1/tokens", {"name": "screen", "role": "viewer"}).json
    body = {"sha256": hash_token(made["token"])}

    known = service.internal("POST", "/internal/tokens:verify", body).json
    service.admin("DELETE", "/v1/tokens/screen")

    assert (known["name"], known["role"], known["tenant"]) == ("screen", "viewer", "default")
    assert service.internal("POST", "/internal/tokens:verify", body).status_code == 404


def test_entries_of_other_services_join_the_audit_log(service) -> None:
    entry = {
        "actor": "device:d1",
        "action": "telemetry.identity_mismatch",
        "object": "d2",
        "detail": {"topic": "x"},
        "remote_ip": "127.0.0.9",
    }

    assert service.internal("POST", "/internal/audit", {"entries": [entry]}).status_code == 204

    assert entry.items() <= service.admin("GET", "/v1/audit?object=d2").json["items"][0].items()
    assert service.admin("GET", "/v1/audit:verify").json["ok"]


def test_directory_is_paged(service) -> None:
    for number in range(3):
        service.register(f"d{number}", tags={"site": "a"})

    first = service.internal("GET", "/internal/directory?limit=2").json
    rest = service.internal("GET", f"/internal/directory?limit=2&cursor={first['next']}").json

    assert [item["id"] for item in first["devices"] + rest["devices"]] == ["d0", "d1", "d2"]
    assert first["devices"][0] == {
        "id": "d0",
        "type": None,
        "tags": {"site": "a"},
        "online": False,
        "tenant": "default",
    }
    assert rest["next"] is None
    assert rest["revision"] == service.internal("GET", "/internal/changes?since=0").json["revision"]
