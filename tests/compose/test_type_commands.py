"""`headwater type`: what is asked of the platform, what is printed, and the exit code."""

from __future__ import annotations

import json
import re

import pytest

from tests.compose.gateway import Gateway, run

VERSION = {"name": "pump", "version": 3, "state": "active", "due": None}
TRAFFIC = {
    "readings": 9, "devices": 2, "refused_readings": 3, "refused_devices": 1, "lost_fields": 0,
    "codes": {"out_of_range": 3}, "since": None, "complete": True,
    "examples": [{"device": "d1", "time": "2026-01-02T03:04:05Z", "field": "p", "code": "out_of_range", "detail": "p: 9 is above 6"}],
}  # fmt: skip
CHANGE = {"path": "fields.p.max", "level": "refuses", "before": 10, "after": 6, "detail": "values outside of it"}
JOB = {
    "id": "j1", "kind": "type.dry-run", "state": "done", "done": 900000, "failed": 0, "total": 900000, "error": None,
    "download": "/v1/jobs/j1/result",
    "result": {
        "stored": 900000, "sample": 1, "readings": 900000, "devices": 40, "refused_readings": 7, "refused_devices": 2,
        "lost_fields": 0, "codes": {"out_of_range": 8}, "code_devices": {"out_of_range": 2}, "waiting": 0,
        "would_pass": 0, "examples": TRAFFIC["examples"], "worst": [],
    },
}  # fmt: skip
REPORT = {"name": "pump", "compatible": False, "changes": [CHANGE], "traffic": TRAFFIC, "quarantine": None, "note": ""}


def test_check_prints_what_would_be_refused_and_ends_with_3(gateway: Gateway, tmp_path, capsys) -> None:
    gateway.answers["POST /v1/device-types/pump:check"] = REPORT
    (tmp_path / "pump.json").write_text(json.dumps({"fields": {"p": {"max": 6}}}))

    code = run(
        gateway, "type", "check", str(tmp_path / "pump.json"), "--against", "2", "--hours", "3", "--device", "d1"
    )

    assert code == 3
    assert gateway.body() == {"spec": {"fields": {"p": {"max": 6}}}, "hours": 3.0, "devices": ["d1"], "against": 2}
    printed = capsys.readouterr().out
    assert "Of 9 stored readings of 2 devices, 3 of 1 devices would be refused" in printed
    assert "p: 9 is above 6" in printed


def test_check_of_more_than_fits_at_once_follows_a_job_and_prints_what_it_found(gateway, tmp_path, capsys) -> None:
    gateway.answers["POST /v1/device-types/pump:check"] = REPORT | {"traffic": TRAFFIC | {"complete": False}}
    gateway.answers["POST /v1/device-types/pump:dry-run"] = JOB
    gateway.answers["GET /v1/jobs/j1"] = JOB
    gateway.answers["GET /v1/jobs/j1/result"] = '{"device":"d1"}\n'
    (tmp_path / "pump.json").write_text("{}")

    code = run(gateway, "type", "check", str(tmp_path / "pump.json"), "--result", str(tmp_path / "devices.ndjson"))

    printed = capsys.readouterr().out
    assert code == 3
    assert "900000 of 900000 stored readings were judged, of 40 devices; 7 of 2 devices would be refused" in printed
    assert "Of 9 stored readings" not in printed
    assert re.search(r"out_of_range +8 +2", printed)
    assert (tmp_path / "devices.ndjson").read_text() == '{"device":"d1"}\n'


def test_sample_goes_to_a_job_and_quick_check_to_none(gateway, tmp_path, capsys) -> None:
    gateway.answers["POST /v1/device-types/pump:check"] = REPORT | {"traffic": TRAFFIC | {"complete": False}}
    (tmp_path / "pump.json").write_text("{}")

    quick = run(gateway, "type", "check", str(tmp_path / "pump.json"), "--quick")
    gateway.answers |= {"POST /v1/device-types/pump:dry-run": JOB, "GET /v1/jobs/j1": JOB | {"state": "cancelled"}}
    cancelled = run(gateway, "type", "check", str(tmp_path / "pump.json"), "--sample", "0.1", "--hours", "5")

    assert (quick, cancelled) == (3, 1)
    started = next(json.loads(body) for what, body, _ in gateway.asked if what.endswith(":dry-run"))
    assert started == {"spec": {}, "hours": 5.0, "sample": 0.1}
    assert "cancelled" in capsys.readouterr().out


def test_viewer_is_told_that_only_the_newest_were_judged(gateway, tmp_path, capsys) -> None:
    gateway.answers["POST /v1/device-types/pump:check"] = REPORT | {"traffic": TRAFFIC | {"complete": False}}
    refused = {"code": "forbidden", "status": 403, "detail": "operators only"}
    gateway.problems["POST /v1/device-types/pump:dry-run"] = (403, refused)
    (tmp_path / "pump.json").write_text("{}")

    assert run(gateway, "type", "check", str(tmp_path / "pump.json")) == 3
    told = capsys.readouterr()
    assert "a viewer sees the newest" in told.err
    assert "Of 9 stored readings" in told.out


def test_check_of_what_changes_nothing_ends_with_0(gateway: Gateway, tmp_path, capsys) -> None:
    quiet = REPORT | {"compatible": True, "changes": [], "traffic": None, "note": "no dry run: away"}
    gateway.answers["POST /v1/device-types/x:check"] = quiet
    (tmp_path / "x.json").write_text("{}")

    assert run(gateway, "type", "check", str(tmp_path / "x.json")) == 0
    assert capsys.readouterr().out == "no difference\nno dry run: away\n"


@pytest.mark.parametrize(
    ("words", "asked", "body"),
    [
        (["activate", "pump", "3"], "POST /v1/device-types/pump:activate", {"version": 3}),
        (["activate", "pump", "3", "--at", "T"], "POST /v1/device-types/pump:activate", {"version": 3, "at": "T"}),
        (["unschedule", "pump", "3"], "POST /v1/device-types/pump:unschedule", {"version": 3}),
        (["rollback", "pump"], "POST /v1/device-types/pump:rollback", {}),
        (["rollback", "pump", "--version", "1"], "POST /v1/device-types/pump:rollback", {"version": 1}),
    ],
)
def test_deeds_ask_for_what_they_say(gateway: Gateway, words, asked, body) -> None:
    gateway.answers[asked] = VERSION

    assert run(gateway, "type", *words) == 0
    assert gateway.body() == body


def test_put_as_draft_takes_a_version_as_shown(gateway: Gateway, tmp_path, capsys) -> None:
    gateway.answers["POST /v1/device-types/pump/versions"] = VERSION | {"state": "draft"}
    (tmp_path / "x.json").write_text(json.dumps(VERSION | {"spec": {"fields": {}}}))

    assert run(gateway, "type", "put", str(tmp_path / "x.json"), "--draft", "--note", "why") == 0
    assert gateway.body() == {"spec": {"fields": {}}, "note": "why"}
    assert capsys.readouterr().out == "pump version 3: draft\n"


def test_learn_names_devices_and_prints_the_fields(gateway: Gateway, capsys) -> None:
    spec = {"fields": {"p": {"type": "float", "min": 0, "max": 9, "required": True, "description": ""}}}
    answer = {"draft": VERSION | {"spec": spec}, "readings": 20, "devices": 2}
    gateway.answers["POST /v1/device-types/pump:learn"] = answer

    assert run(gateway, "type", "learn", "pump", "--device", "d1", "--hours", "2") == 0
    assert gateway.body() == {"hours": 2.0, "note": "", "devices": ["d1"]}
    assert "from 20 readings of 2 devices" in capsys.readouterr().out


def test_import_lists_what_is_not_understood(gateway: Gateway, tmp_path, capsys) -> None:
    made = VERSION | {"state": "draft", "spec": {"fields": {"p": {}}}}
    gateway.answers["POST /v1/device-types/pump:import"] = {"version": made, "ignored": ["if: is not understood"]}
    (tmp_path / "pump.json").write_text('{"type": "object", "if": {}}')

    assert run(gateway, "type", "import", str(tmp_path / "pump.json")) == 0
    assert gateway.body() == {"type": "object", "if": {}}
    assert capsys.readouterr().out == "pump version 3: draft, 1 fields\nNot understood:\n  if: is not understood\n"


def test_shipped_types_are_listed_installed_and_exported(gateway: Gateway, capsys) -> None:
    listed = [{"name": "shelly-plus", "installed": False, "description": "Shelly"}]
    gateway.answers["GET /v1/device-types:ready"] = {"items": listed}
    gateway.answers["POST /v1/device-types:install"] = {"installed": ["shelly-plus"], "present": ["pump"]}
    gateway.answers["GET /v1/device-types/pump:export?version=2"] = {"$id": "x"}

    assert run(gateway, "type", "ready") == 0
    assert run(gateway, "type", "install", "shelly-plus", "pump") == 0
    assert gateway.body() == {"names": ["shelly-plus", "pump"]}
    assert run(gateway, "type", "export", "pump", "--version", "2") == 0
    printed = capsys.readouterr().out
    assert "was there before" in printed
    assert '"$id": "x"' in printed
