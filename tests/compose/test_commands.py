"""The command line against a stand-in gateway that records what it was asked."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from compose.__main__ import main
from tests.compose.gateway import Gateway, run

CREDENTIAL = {"id": "c1", "username": "d1", "secret": "sss", "bearer": "d1.sss"}
DEVICE = {"id": "d1", "type": None, "tags": {"site": "a"}, "state": "active", "online": True, "last_seen": None}
ENTRY = {"id": "q1", "device": "d1", "protocol": "json", "code": "bad_syntax", "detail": "x", "time": "t",
         "raw_base64": "G1sybQ=="}  # fmt: skip


def test_device_add_shows_the_secret_once(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.answers["POST /v1/devices"] = DEVICE | {"credential": CREDENTIAL}

    assert run(gateway, "device", "add", "d1", "--type", "t", "--tag", "site=a", "--gateway") == 0

    assert gateway.body() == {"id": "d1", "type": "t", "tags": {"site": "a"}, "gateway": True}
    assert gateway.asked[-1][2] == "Bearer ttt"
    assert "Secret  sss" in capsys.readouterr().out


def test_device_list_walks_the_pages(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    second = DEVICE | {"id": "d2", "tags": {"name": "\x1b[2J"}}
    gateway.answers["GET /v1/devices?tag=site%3Aa&limit=500"] = {"items": [DEVICE], "next": "d1"}
    gateway.answers["GET /v1/devices?tag=site%3Aa&limit=500&cursor=d1"] = {"items": [second], "next": None}

    assert run(gateway, "device", "list", "--tag", "site=a") == 0
    shown = capsys.readouterr().out
    assert run(gateway, "device", "list", "--tag", "site=a", "--json") == 0

    assert [line.split()[0] for line in shown.splitlines()] == ["ID", "d1", "d2"]
    assert "\x1b" not in shown
    assert json.loads(capsys.readouterr().out) == [DEVICE, second]


def test_query_that_cannot_be_read_is_pointed_at(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    problem = {"code": "bad_query", "detail": "no field 'fwx'", "position": 14, "length": 3}
    gateway.problems["GET /v1/devices?q=type%3Dpump+and+fwx%3C2&limit=500"] = (400, problem)

    assert run(gateway, "device", "list", "type=pump and fwx<2") == 1

    assert capsys.readouterr().err.splitlines()[1:] == ["  type=pump and fwx<2", "                ^^^"]


def test_bulk_action_is_previewed_then_followed(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.answers["POST /v1/devices:bulk"] = {"count": 1, "examples": [DEVICE]}
    assert run(gateway, "device", "bulk", "online", "--tag", "a=1", "--attr", "floor=3", "--preview") == 0
    action = {"do": "update", "patch": {"tags": {"a": "1"}, "attributes": {"floor": 3}}}
    assert gateway.body() == {"query": "online", "action": action, "preview": True}
    assert "1 devices" in capsys.readouterr().out

    gateway.answers |= {"POST /v1/devices:bulk": JOB, "GET /v1/jobs/j1": JOB}
    assert run(gateway, "device", "bulk", "online", "--delete", "--no-wait") == 0
    assert gateway.body()["action"] == {"do": "delete"}
    assert run(gateway, "device", "bulk", "online", "--put-in", "blue") == (1 if JOB["failed"] else 0)
    assert run(gateway, "device", "bulk", "online", "--delete", "--retire", "--type", "x") == 1


def test_command_and_desire_go_to_what_a_query_finds(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.answers["POST /v1/devices:bulk"] = {"count": 1, "examples": [DEVICE]}
    assert run(gateway, "device", "command", "reboot", "--where", "online", "--params", '{"in_s":5}', "--preview") == 0
    command = {"name": "reboot", "params": {"in_s": 5}, "deadline_s": 300.0, "qos": 1, "retries": 5}
    assert gateway.body() == {"query": "online", "action": {"do": "command", "command": command}, "preview": True}

    gateway.answers |= {"POST /v1/devices:bulk": JOB, "GET /v1/jobs/j1": JOB}
    assert run(gateway, "device", "desire", '{"led":null}', "--where", "fw<2", "--no-wait") == 0
    assert gateway.body() == {"query": "fw<2", "action": {"do": "desire", "desired": {"led": None}}, "preview": False}
    assert run(gateway, "device", "desire", "[1]", "--where", "fw<2") == 1
    assert "no JSON object" in capsys.readouterr().err


def test_secrets_of_what_a_query_finds_are_rotated(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.answers["GET /v1/devices:count?q=fw%3C2&exact=true"] = {"count": 7, "is_exact": True}
    gateway.answers["GET /v1/devices?q=fw%3C2&limit=10"] = {"items": [DEVICE], "next": None}
    assert run(gateway, "device", "rotate", "--where", "fw<2", "--preview") == 0
    assert "7 devices" in capsys.readouterr().out

    gateway.answers["POST /v1/rotations"] = JOB
    assert run(gateway, "device", "rotate", "--where", "fw<2", "--overlap", "60") == 0
    assert gateway.body() == {"query": "fw<2", "overlap_s": 60.0}
    assert "rotation secrets j1" in capsys.readouterr().out
    assert run(gateway, "device", "rotate", "d1", "--where", "fw<2") == run(gateway, "device", "rotate") == 1


def test_device_list_shows_the_columns_asked_for(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    device = DEVICE | {"fw": "1.10", "tags": {"site": "a b"}, "attributes": {"floor": 3}}
    gateway.answers["GET /v1/devices?limit=500"] = {"items": [device], "next": None}

    assert run(gateway, "device", "list", "--columns", "attr.floor,fw,tag.site,tag.none,id") == 0
    shown = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    assert [part.strip() for part in shown[1] if part.strip()] == ["3", "1.10", "a b", "-", "d1"]
    assert run(gateway, "device", "list", "--columns", "id,nothing") == 1
    assert "no column 'nothing'" in capsys.readouterr().err


def test_groups_are_made_and_filled(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    group = {"name": "blue", "description": "", "query": None, "count": 10_000, "is_exact": False}
    gateway.answers |= {
        "POST /v1/groups": group,
        "GET /v1/groups": {"items": [group]},
        "POST /v1/groups/blue:add": {"changed": 1, "unknown": ["ghost"]},
    }

    assert run(gateway, "group", "add", "blue") == 0
    assert gateway.body() == {"name": "blue", "description": "", "query": None}
    assert run(gateway, "group", "put-in", "blue", "d1", "ghost") == 1
    assert run(gateway, "group", "list") == 0
    assert "10000+" in capsys.readouterr().out


def test_settings_name_the_installation_as_they_do_for_up(
    gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "headwater.toml").write_text(f'data = "{tmp_path}/there"\ntoken = "from-toml"\n')
    monkeypatch.setenv("HEADWATER_CONFIG", str(tmp_path / "headwater.toml"))
    gateway.answers["GET /v1/tokens"] = {"items": []}

    assert main(["token", "list", "--url", gateway.url]) == 0
    main(["status", "--json"])

    assert gateway.asked[0][2] == "Bearer from-toml"
    assert json.loads(capsys.readouterr().out.partition("\n")[2])["data"] == f"{tmp_path}/there"


def test_device_is_named_and_a_name_taken_away(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    name = "spb:Plant A/Line 1/Pump+#7 \u00fc"
    gateway.answers["POST /v1/devices/d1/names"] = {"names": [name]}
    gateway.answers["DELETE /v1/devices/d1/names?name=spb%3APlant+A%2FLine+1%2FPump%2B%237+%C3%BC"] = None
    gateway.answers["GET /v1/devices/d1"] = DEVICE | {"names": []}

    assert run(gateway, "gateway", "name", "d1", name) == 0
    assert gateway.body() == {"name": name}
    assert name in capsys.readouterr().out
    assert run(gateway, "gateway", "name", "d1", name, "--remove") == 0


def test_device_update_sends_only_what_was_said(gateway: Gateway) -> None:
    gateway.answers["PATCH /v1/devices/d1"] = DEVICE

    run(gateway, "device", "update", "d1", "--tag", "a=1", "--no-tag", "b", "--no-gateway")
    first = gateway.body()
    run(gateway, "device", "update", "d1", "--no-type")

    assert first == {"tags": {"a": "1", "b": None}, "gateway": False}
    assert gateway.body() == {"type": None}


@pytest.mark.parametrize(
    ("option", "said", "limits"),
    [
        ("--rate-limit", "1000:1", {"rate_limit": "1000:1"}),
        ("--rate-limit", "none", {"rate_limit": ""}),
        ("--rate-limit", "default", {"rate_limit": None}),
        ("--max-devices", "5", {"devices": 5}),
        ("--max-devices", "none", {"devices": None}),
        ("--max-feed-readers", "none", {"feed_readers": None}),
        ("--max-connections", "500", {"connections": 500}),
    ],
)
def test_tenant_update_sends_only_the_limit_that_was_said(
    gateway: Gateway, option: str, said: str, limits: dict[str, object]
) -> None:
    gateway.answers["PATCH /v1/tenants/acme"] = {"id": "acme"}

    run(gateway, "tenant", "update", "acme", option, said, "--json")

    assert gateway.body() == {"limits": limits}


def test_renewal_of_the_authority_tells_how_many_devices_wait(gateway: Gateway, capsys) -> None:
    gateway.answers["POST /v1/certificate-authorities:renew"] = {"name": "own-2", "expires": "2036-01-01T00:00:00Z"}
    waiting = {"items": [{"device": "d1", "expires": "2027-01-01T00:00:00Z"}], "next": None}
    gateway.answers["GET /v1/certificate-authorities:waiting?limit=500"] = waiting

    assert run(gateway, "ca", "renew") == 0
    assert "old one: 1 (headwater ca waiting)" in capsys.readouterr().out
    assert run(gateway, "ca", "waiting") == 0
    assert capsys.readouterr().out.splitlines()[-1].split()[0] == "d1"


def test_usage_of_days_is_a_line_each(gateway: Gateway, capsys) -> None:
    day = {"day": "2026-11-23", "messages": 4, "points": 10, "bytes": 600, "feed_readers": 3}
    gateway.answers["GET /v1/usage/days?days=2"] = {"items": [day, day | {"day": "2026-11-22", "feed_readers": 0}]}

    assert run(gateway, "usage", "--days", "2") == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()[-2:]] == [
        ["2026-11-23", "4", "10", "600", "3"],
        ["2026-11-22", "4", "10", "600", "0"],
    ]


@pytest.mark.parametrize(
    ("asked", "path", "named"),
    [
        (("--by", "type"), "/v1/usage/types", {"type": "pump"}),
        (("--by", "type", "--days", "7"), "/v1/usage/types?days=7", {"type": None}),
        (
            ("--by", "device", "--top", "5", "--order", "bytes"),
            "/v1/usage/devices?order=bytes&limit=5",
            {"device": "d1"},
        ),
        (("--device", "d1"), "/v1/devices/d1/usage", {"day": "2026-11-23"}),
    ],
)
def test_usage_of_types_and_devices_is_a_line_each(gateway: Gateway, capsys, asked, path, named) -> None:
    gateway.answers[f"GET {path}"] = {"items": [named | {"messages": 4, "points": 10, "bytes": 600}]}

    assert run(gateway, "usage", *asked) == 0
    line = capsys.readouterr().out.splitlines()[-1].split()
    assert line == [next(iter(named.values())) or "-", "4", "10", "600"]


def test_usage_is_a_table_with_limits_beside(gateway: Gateway, capsys) -> None:
    spent = {"messages": 7, "points": 9, "bytes": 300, "feed_readers": 2}
    limits = {"devices": 10, "rate_limit": "5:1", "feed_readers": 4}
    gateway.answers["GET /v1/usage"] = {
        "id": "acme", "devices": 3, "operators": 1, "connections": 2, "today": spent, "month": spent, "limits": limits,
    }  # fmt: skip

    assert run(gateway, "usage") == 0

    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["devices", "3", "-", "-", "10"] in lines
    assert ["connections", "2", "-", "-", "-"] in lines
    assert ["points", "-", "9", "9", "5:1"] in lines
    assert ["feed_readers", "-", "2", "2", "4"] in lines


def test_ledger_is_a_line_each_and_tells_what_is_not_known(gateway: Gateway, capsys) -> None:
    gateway.answers["GET /v1/ledger"] = {"tenant": "acme", "received": None, "stored": 7}

    assert run(gateway, "ledger") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [["LEDGER", "VALUE"], ["tenant", "acme"], ["received", "-"], ["stored", "7"]]
    assert run(gateway, "ledger", "--json") == 0
    assert json.loads(capsys.readouterr().out)["received"] is None
    gateway.answers["GET /v1/ledger?own=true"] = {"tenant": "default", "received": 5}
    assert run(gateway, "ledger", "--own") == 0
    assert ["received", "5"] in [line.split() for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("deed", ["disable", "enable"])
def test_device_deeds(gateway: Gateway, deed: str) -> None:
    gateway.answers[f"POST /v1/devices/d1:{deed}"] = DEVICE

    assert run(gateway, "device", deed, "d1") == 0


def test_hostile_id_stays_one_path_member(gateway: Gateway) -> None:
    gateway.answers["DELETE /v1/devices/..%2Ftokens%2Fa%3Fb"] = None

    assert run(gateway, "device", "delete", "../tokens/a?b") == 0


JOB = {
    "id": "j1", "kind": "device.import", "state": "done", "done": 1, "failed": 1, "total": 2, "error": None,
    "result": {"created": 1, "existed": 0}, "download": "/v1/jobs/j1/result", "by": "token:t", "created": "t",
}  # fmt: skip
RESULT = "line,id,outcome,code,detail,secret\n2,d1,created,,,sss\n3,'+,failed,bad_id,no,\n"


def test_import_writes_the_secrets_privately_and_has_them_deleted(
    gateway: Gateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.answers |= {"POST /v1/devices:import?job=true&resume=true": JOB, "GET /v1/jobs/j1": JOB}
    gateway.answers |= {"GET /v1/jobs/j1/result": RESULT, "DELETE /v1/jobs/j1/result": None}
    (tmp_path / "in.csv").write_text("id\nd1\n+\n")
    out = tmp_path / "out.csv"

    code = run(gateway, "device", "import", str(tmp_path / "in.csv"), "--result", str(out), "--resume")

    assert code == 1
    assert gateway.asked[0][1] == b"id\nd1\n+\n"
    assert gateway.asked[-1][0] == "DELETE /v1/jobs/j1/result"
    assert out.read_text() == RESULT
    assert out.stat().st_mode & 0o077 == 0
    shown = capsys.readouterr().out
    assert "1 of 2 registered, 1 refused" in shown
    assert "bad_id" in shown
    assert "sss" not in shown


def test_import_overwrites_no_secrets(gateway: Gateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.csv").write_text("id\nd1\n")
    (tmp_path / "out.csv").write_text(RESULT)

    assert run(gateway, "device", "import", str(tmp_path / "in.csv"), "--result", str(tmp_path / "out.csv")) == 1
    assert "out.csv is not empty" in capsys.readouterr().err
    assert gateway.asked == []


def test_import_without_a_file_for_the_secrets_says_where_they_wait(
    gateway: Gateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.answers |= {"POST /v1/devices:import?job=true": JOB | {"failed": 0}, "GET /v1/jobs/j1": JOB | {"failed": 0}}
    (tmp_path / "in.csv").write_text("id\nd1\n")

    assert run(gateway, "device", "import", str(tmp_path / "in.csv")) == 0
    assert "headwater job wait j1 --result" in capsys.readouterr().out


def test_import_dry_run_asks_for_it(gateway: Gateway, tmp_path: Path) -> None:
    tried = JOB | {"failed": 0, "result": {}}
    gateway.answers |= {"POST /v1/devices:import?job=true&dry_run=true": tried, "GET /v1/jobs/j1": tried}
    (tmp_path / "in.csv").write_text("id\n")

    assert run(gateway, "device", "import", str(tmp_path / "in.csv"), "--dry-run") == 0


def test_jobs_are_followed_cancelled_and_their_result_fetched(
    gateway: Gateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.answers |= {"GET /v1/jobs/j1": JOB, "GET /v1/jobs/j1/result": RESULT}
    gateway.answers |= {"POST /v1/jobs/j1:cancel": JOB | {"state": "cancelled"}}
    gateway.answers |= {"GET /v1/jobs?state=done&limit=100": {"items": [JOB], "next": None}}

    assert run(gateway, "job", "wait", "j1", "--result", str(tmp_path / "out.csv")) == 1  # a line of it failed
    assert run(gateway, "job", "cancel", "j1") == 0
    assert run(gateway, "job", "list", "--state", "done") == 0
    assert (tmp_path / "out.csv").read_text() == RESULT
    assert "device.import" in capsys.readouterr().out


def test_type_put_takes_what_type_show_prints(gateway: Gateway, tmp_path: Path) -> None:
    kind = {"name": "pump", "version": 3, "fields": {"rpm": {"type": "int"}}}
    gateway.answers["GET /v1/device-types/pump"] = kind
    gateway.answers["PUT /v1/device-types/pump"] = kind
    (tmp_path / "x.json").write_text(json.dumps(kind))

    assert run(gateway, "type", "show", "pump") == 0
    assert run(gateway, "type", "put", str(tmp_path / "x.json")) == 0
    assert gateway.body() == {"fields": {"rpm": {"type": "int"}}}


def test_token_is_made_for_areas_and_for_some_devices(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.answers["POST /v1/tokens"] = {"id": "1", "name": "ci", "role": "viewer", "token": "xyz"}
    create = ("token", "create", "--role", "viewer", "--name", "ci")

    assert run(gateway, *create, "--scope", "query:*", "--scope", "type=pump and group=north") == 0
    assert run(gateway, *create, "--scope", "type=pump", "--scope", "group=north") == 1

    asked = {"name": "ci", "role": "viewer", "scope": ["query:*"], "devices": "type=pump and group=north"}
    assert [json.loads(content) for _, content, _ in gateway.asked] == [asked]
    assert "one --scope" in capsys.readouterr().err


def test_token_create_prints_the_token_alone(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.answers["POST /v1/tokens"] = {"id": "1", "name": "ci", "role": "viewer", "token": "xyz"}

    assert run(gateway, "token", "create", "--role", "viewer", "--name", "ci") == 0
    assert capsys.readouterr().out == "xyz\n"


def test_operator_password_is_made_when_none_is_given(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.answers["PATCH /v1/operators/admin"] = None

    assert run(gateway, "operator", "password", "admin") == 0

    password = gateway.body()["password"]
    assert len(password) == 16
    assert f"password {password}" in capsys.readouterr().out


def test_quarantine_show_cannot_command_the_terminal(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.answers["GET /v1/quarantine/q1"] = ENTRY

    assert run(gateway, "quarantine", "show", "q1") == 0
    assert "\x1b" not in capsys.readouterr().out


def test_quarantine_replay_needs_to_know_which(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.answers["POST /v1/quarantine:replay"] = {"replayed": 2, "failed": [], "duplicates": 0, "more": False}

    assert run(gateway, "quarantine", "replay") == 1
    assert "say which entries" in capsys.readouterr().err
    assert run(gateway, "quarantine", "replay", "--device", "d1") == 0
    assert gateway.body() == {"filter": {"device": "d1"}}
    assert run(gateway, "quarantine", "replay", "q1", "q2") == 0
    assert gateway.body() == {"ids": ["q1", "q2"]}
    assert run(gateway, "quarantine", "replay", "--all") == 0
    assert gateway.body() == {"filter": {}}


def test_quarantine_discard_goes_on_until_nothing_is_left(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.answers["POST /v1/quarantine:discard"] = {"discarded": 2, "more": False}

    assert run(gateway, "quarantine", "discard", "--code", "bad_syntax") == 0
    assert gateway.body() == {"filter": {"code": "bad_syntax"}}
    assert capsys.readouterr().out == "2 discarded\n"
    assert run(gateway, "quarantine", "discard") == 1


def test_problem_is_one_line_on_stderr(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(gateway, "device", "show", "nobody") == 1

    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == "headwater: nothing at GET /v1/devices/nobody\n"


def test_installation_that_does_not_run_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["device", "list", "--data", str(tmp_path / "none")]) == 1

    assert capsys.readouterr().err.startswith(f"headwater: nothing runs on the data folder {tmp_path}/none;")


def test_status_of_nothing_is_not_ready(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--json", "--data", str(tmp_path)]) == 1

    shown = json.loads(capsys.readouterr().out)
    assert (shown["ready"], shown["processes"], shown["lag_s"]) == (False, [], 0.0)


def test_config_show_masks_secrets_and_names_sources(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("HEADWATER_SERVICE_TOKEN", "canary")
    monkeypatch.setenv("HEADWATER_REGISTRY", "postgresql+psycopg://me:canary@db/x")
    monkeypatch.setenv("HEADWATER_CONFIG", str(tmp_path / "my.toml"))
    (tmp_path / "my.toml").write_text("port = 9000\n")

    assert main(["config", "show", "--json"]) == 0

    text = capsys.readouterr().out
    rows = {(row["process"], row["setting"]): row for row in json.loads(text)}
    assert "canary" not in text
    assert rows["up", "port"]["value"] == 9000
    assert rows["up", "port"]["source"] == str(tmp_path / "my.toml")
    assert rows["devices", "service_token"]["source"] == "HEADWATER_SERVICE_TOKEN"
    assert rows["up", "mqtt_port"]["source"] == "default"


def test_wrong_setting_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("HEADWATER_MQTT_PORT", "many")

    assert main(["doctor"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("headwater: HEADWATER_MQTT_PORT: ")
    assert error.count("\n") == 1


def test_doctor_finds_everything_in_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["doctor", "--json", "--data", str(tmp_path / "data"), "--port", "0", "--mqtt-port", "0"])

    found = {row["check"]: row["result"] for row in json.loads(capsys.readouterr().out)}
    assert {found[name] for name in ("python", "mosquitto", "nginx", "sqlite", "data folder")} == {"ok"}
    assert code == 0


def test_doctor_finds_a_bad_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")

    assert main(["doctor", "--data", str(tmp_path / "file" / "x")]) == 1
    assert "cannot be written" in capsys.readouterr().out


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])

    shown = capsys.readouterr().out
    assert ended.value.code == 0
    commands = ("up", "status", "serve", "bridge", "writer", "device", "type", "token", "operator", "quarantine",
                "config", "doctor", "sim")  # fmt: skip
    assert all(re.search(rf"^    {command}\b", shown, re.MULTILINE) for command in commands)


def test_unknown_command_is_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["explode"])

    assert ended.value.code == 2


@pytest.mark.parametrize("words", [["up", "--bind", "0.0.0.0"], ["up", "--tls-cert", "x"], ["up", "--port", "70000"]])
def test_up_refuses_in_one_line(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--data", str(tmp_path / "data")]) == 1

    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["device", "list", "--state", "weird"], "headwater device list: argument --state: invalid choice: 'weird'"),
        (
            ["device", "list", "--limit", "-1"],
            "headwater device list: argument --limit: not a number of 1 or more: '-1'",
        ),
        (["operator", "password", "a", "--ask", "--password-stdin"], "not allowed with argument --ask"),
        (["token", "create"], "headwater token create: the following arguments are required: --name, --role"),
    ],
)
def test_wrong_argument_is_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)

    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert said in error
    assert error.count("\n") == 1


def test_import_registers_nothing_when_the_secrets_cannot_be_written(
    gateway: Gateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.csv").write_text("id\nd1\n")

    code = run(gateway, "device", "import", str(tmp_path / "in.csv"), "--result", str(tmp_path / "no" / "out.csv"))

    assert code == 1
    assert gateway.asked == []
    assert "out.csv cannot be written: No such file or directory" in capsys.readouterr().err


def test_tag_filter_is_key_and_value(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(gateway, "device", "list", "--tag", "site") == 1
    assert capsys.readouterr().err == "headwater: --tag is KEY=VALUE, not 'site'\n"


def test_password_is_asked_for_at_a_terminal_only(gateway: Gateway) -> None:
    argv = [sys.executable, "-P", "-m", "compose", "operator", "password", "admin", "--ask"]
    argv += ["--url", gateway.url, "--token", "ttt"]
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, start_new_session=True, timeout=30, check=False
    )

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "headwater: --ask needs a terminal; use --password-stdin"
    assert "Traceback" not in done.stderr
    assert gateway.asked == []


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nonsense", "--url is http://HOST:PORT"),
        ("http://127.0.0.1:1", "http://127.0.0.1:1 does not answer: no connection"),
    ],
)
def test_installation_out_of_reach_is_one_line(url: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["device", "list", "--url", url, "--token", "t"]) == 1

    error = capsys.readouterr().err
    assert error.startswith(f"headwater: {said}")
    assert error.count("\n") == 1


def test_times_are_shown_to_the_second_and_told_whole(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    seen = "2026-03-04T05:06:07.123456789Z"
    gateway.answers["GET /v1/devices?limit=500"] = {"items": [DEVICE | {"last_seen": seen}], "next": None}

    assert run(gateway, "device", "list") == 0
    assert "2026-03-04T05:06:07Z" in capsys.readouterr().out
    assert run(gateway, "device", "list", "--json") == 0
    assert seen in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--store", "nonsense:", "headwater: store 'nonsense:': no such engine 'nonsense'; there are embedded:"),
        ("--registry", "mysql://x", "headwater: --registry is sqlite: or postgresql+psycopg://..., not mysql:"),
        ("--bind", "0.0.0.0", "headwater: --bind 0.0.0.0 would offer passwords and data unencrypted"),
        ("--port", "99999", "headwater: --port: must be less than or equal to 65535 (setting 'port')"),
    ],
)
def test_start_is_refused_in_one_line(
    option: str, value: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["up", "--data", str(tmp_path / "data"), option, value]) == 1

    error = capsys.readouterr().err
    assert error.startswith(said)
    assert error.count("\n") == 1


def test_unknown_protocol_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "ingest", "--protocol", "morse"]) == 2
    assert "headwater: no ingest service 'morse'; there is json, " in capsys.readouterr().err


def test_misspelt_setting_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "headwater.toml").write_text("retention_day = 30\nretention_days = 30\n")
    monkeypatch.chdir(tmp_path)

    main(["doctor", "--json", "--port", "0", "--mqtt-port", "0"])

    found = {row["check"]: (row["result"], row["detail"]) for row in json.loads(capsys.readouterr().out)}
    assert found["settings"] == ("warning", "headwater.toml: there is no setting 'retention_day'")


ENROLMENT = {"id": "e1", "name": "hall", "kind": "group", "ids": "pump-*", "policy": "hold", "state": "open",
             "enrolled": 0, "secret": "a2V5"}  # fmt: skip


def test_enrol_group_prints_its_key_once_and_asks_for_its_terms(gateway, capsys, tmp_path) -> None:
    key = tmp_path / "key"
    key.write_text("a2V5\n")
    gateway.answers["POST /v1/enrolments"] = ENROLMENT

    code = main(["enrol", "group", "hall", "--ids", "pump-*", "--hold", "--tag", "site=a", "--key-file", str(key),
                 "--url", gateway.url, "--token", "t"])  # fmt: skip

    assert (code, capsys.readouterr().out) == (0, "a2V5\n")
    assert json.loads(gateway.asked[-1][1]) == {
        "name": "hall", "kind": "group", "tags": {"site": "a"}, "ids": "pump-*", "policy": "hold", "key": "a2V5",
    }  # fmt: skip


def test_enrol_derive_prints_the_key_of_a_device(capsys, tmp_path) -> None:
    key = tmp_path / "key"
    key.write_text("8isrFI1sGsIlvvFSSFRiMfCNzv21fjbE/+ah/lSh3lF8e2YG1Te7w1KpZhJFFXJrqYKi9yegxkqIChbqOS9Egw==")

    assert main(["enrol", "derive", "sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6", "--key-file", str(key)]) == 0
    assert capsys.readouterr().out == "Jsm0lyGpjaVYVP2g3FnmnmG9dI/9qU24wNoykUmermc=\n"


NOBODY = {"left_out": 0, "left_out_children": []}


def test_gateway_tells_which_children_its_prefixes_leave_out(
    gateway: Gateway, capsys: pytest.CaptureFixture[str]
) -> None:
    told = {"prefixes": ["x-"], "left_out": 3, "left_out_children": ["a", "b"]}
    gateway.answers |= {"GET /v1/devices/g1/gateway": {"prefixes": []}, "PUT /v1/devices/g1/gateway": told}

    assert run(gateway, "gateway", "set", "g1", "--prefix", "x-") == 0
    said = "".join(capsys.readouterr())
    assert "3 of its children" in said
    assert "a, b, ..." in said


def test_gateway_rules_that_are_not_given_stay(gateway: Gateway) -> None:
    old = {"children": "auto", "child_type": "sensor", "child_tags": {"a": "1"}, "prefixes": ["x-"], "max_children": 5}
    gateway.answers |= {"GET /v1/devices/g1/gateway": old, "PUT /v1/devices/g1/gateway": old | NOBODY}

    assert run(gateway, "gateway", "set", "g1", "--children", "hold", "--prefix", "") == 0
    assert gateway.body() == old | {"children": "hold", "prefixes": []}


def test_child_is_listed_moved_and_released(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    child = {"id": "c1", "type": None, "state": "held", "online": False, "last_seen": None, "since": "t", "tags": {}}
    gateway.answers |= {"GET /v1/devices/g1/children?limit=500": {"items": [child], "next": None}}
    gateway.answers |= {"PUT /v1/devices/c1/parent": {"gateway": "g2"}, "DELETE /v1/devices/c1/parent": None}

    assert run(gateway, "gateway", "children", "g1") == run(gateway, "gateway", "move", "c1", "--to", "g2") == 0
    assert gateway.body() == {"gateway": "g2"}
    assert run(gateway, "gateway", "release", "c1") == 0
    assert "held" in capsys.readouterr().out


def test_rotation_writes_secrets_privately_and_shows_who_waits(
    gateway: Gateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.answers |= {"POST /v1/rotations": JOB, "GET /v1/jobs/j1": JOB, "POST /v1/rotations/j1:finish": JOB}
    gateway.answers |= {"GET /v1/jobs/j1/result": "device,secret\nd1,sss\n", "DELETE /v1/jobs/j1/result": None}
    waits = {"device": "d9", "credential": "c1", "online": True, "last_seen": None}
    gateway.answers |= {"GET /v1/rotations/j1/waiting?limit=500": {"items": [waits], "next": None}}

    assert run(gateway, "rotation", "start", "type=pump", "--overlap", "60") == 0
    assert gateway.body() == {"query": "type=pump", "overlap_s": 60.0}
    assert run(gateway, "rotation", "secrets", "j1", "--result", str(tmp_path / "out.csv")) == 0
    assert (tmp_path / "out.csv").stat().st_mode & 0o077 == 0
    assert run(gateway, "rotation", "waiting", "j1") == run(gateway, "rotation", "finish", "j1") == 0
    shown = capsys.readouterr().out
    assert "d9" in shown
    assert "sss" not in shown
