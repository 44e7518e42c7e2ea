from __future__ import annotations

import json

import pytest
from sqlalchemy import text

EDITS = [
    "UPDATE audit SET actor = 'somebody' WHERE seq = 3",
    "UPDATE audit SET detail = '{}' WHERE seq = 3",
    "UPDATE audit SET time_ns = time_ns + 1 WHERE seq = 3",
    "DELETE FROM audit WHERE seq = 3",
]


def fill(service) -> None:
    for number in range(5):
        service.register(f"d{number}", tags={"n": str(number)})


def test_entries_say_who_did_what_to_which_from_where(service) -> None:
    service.register("d1")
    service.admin("POST", "/v1/devices/d1:disable", environ_overrides={"REMOTE_ADDR": "127.0.0.7"})

    newest, older = service.admin("GET", "/v1/audit?object=d1").json["items"]

    assert (newest["actor"], newest["action"], newest["remote_ip"]) == (
        "token:bootstrap",
        "device.disable",
        "127.0.0.7",
    )
    assert (older["action"], older["detail"]["gateway"]) == ("device.create", False)
    assert newest["time"] > older["time"]


def test_log_is_paged_newest_first(service) -> None:
    fill(service)

    first = service.admin("GET", "/v1/audit?limit=4").json
    rest = service.admin("GET", f"/v1/audit?limit=4&cursor={first['next']}").json

    assert [item["seq"] for item in first["items"] + rest["items"]] == [6, 5, 4, 3, 2, 1]
    assert rest["next"] is None


def test_whole_log_verifies(service) -> None:
    fill(service)

    assert service.admin("GET", "/v1/audit:verify").json["ok"]


@pytest.mark.parametrize("edit", EDITS)
def test_edited_log_is_found_out(service, edit) -> None:
    fill(service)
    with service.app.extensions["headwater.database"].engine.begin() as connection:
        connection.execute(text(edit))

    verdict = service.admin("GET", "/v1/audit:verify").json
    assert (verdict["ok"], verdict["entries"], verdict["broken_seq"]) == (False, 6, 3)


def test_cut_off_end_is_found_out(service) -> None:
    fill(service)
    with service.app.extensions["headwater.database"].engine.begin() as connection:
        connection.execute(text("DELETE FROM audit WHERE seq = 6"))

    assert service.admin("GET", "/v1/audit:verify").json["broken_seq"] == 6


def test_end_that_was_cut_off_with_its_count_is_found_out_by_an_older_check(service) -> None:
    fill(service)
    known = service.admin("GET", "/v1/audit:verify").json
    older = service.admin("GET", "/v1/audit?limit=2").json["items"][1]
    with service.app.extensions["headwater.database"].engine.begin() as connection:
        connection.execute(text("DELETE FROM audit WHERE seq = 6"))
        values = {"seq": older["seq"], "hash": older["hash"]}
        connection.execute(text("UPDATE counters SET value = :seq, text = :hash WHERE name = 'audit'"), values)

    unanchored = service.admin("GET", "/v1/audit:verify").json
    anchored = service.admin("GET", f"/v1/audit:verify?seq={known['entries']}&hash={known['newest_hash']}").json

    assert unanchored["ok"]  # who can write the whole database can do this
    assert (anchored["ok"], anchored["broken_seq"]) == (False, 6)


def test_older_check_holds_when_entries_were_added_since(service) -> None:
    fill(service)
    known = service.admin("GET", "/v1/audit:verify").json
    service.register("d9")

    later = service.admin("GET", f"/v1/audit:verify?seq={known['entries']}&hash={known['newest_hash']}").json

    assert (later["ok"], later["entries"]) == (True, known["entries"] + 1)


def test_log_is_narrowed_by_action_kind_and_time(service) -> None:
    fill(service)
    service.admin("POST", "/v1/devices/d1:disable")
    third = service.admin("GET", "/v1/audit?object=d2").json["items"][0]["time"]

    def actions(query: str) -> list[str]:
        return [item["action"] for item in service.admin("GET", f"/v1/audit?{query}").json["items"]]

    assert actions("action=device.disable") == ["device.disable"]
    assert len(actions("action=device.")) == 6
    assert actions("action=devic") == []
    assert len(actions(f"start={third}")) == 4
    assert len(actions(f"end={third}")) == 3


def test_export_gives_every_entry_once(service) -> None:
    fill(service)

    answer = service.admin("GET", "/v1/audit:export?action=device.create")

    assert [json.loads(line)["object"] for line in answer.text.splitlines()] == ["d4", "d3", "d2", "d1", "d0"]
    assert answer.mimetype == "application/x-ndjson"
