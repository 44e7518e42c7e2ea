from __future__ import annotations

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

    assert service.admin("GET", "/v1/audit:verify").json == {"ok": True, "entries": 6, "broken_seq": None}


@pytest.mark.parametrize("edit", EDITS)
def test_edited_log_is_found_out(service, edit) -> None:
    fill(service)
    with service.app.extensions["headwater.database"].engine.begin() as connection:
        connection.execute(text(edit))

    assert service.admin("GET", "/v1/audit:verify").json == {"ok": False, "entries": 6, "broken_seq": 3}


def test_cut_off_end_is_found_out(service) -> None:
    fill(service)
    with service.app.extensions["headwater.database"].engine.begin() as connection:
        connection.execute(text("DELETE FROM audit WHERE seq = 6"))

    assert service.admin("GET", "/v1/audit:verify").json["broken_seq"] == 6
