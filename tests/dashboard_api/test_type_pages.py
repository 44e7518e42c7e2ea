"""The pages of device types over the real registry."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dashboard_api.app import Ports, assemble
from dashboard_api.config import DashboardConfig
from devices.config import DevicesConfig
from tests.dashboard_api.fakes import MemoryReader
from tests.dashboard_api.registry import RegistryPeer
from tests.devices.running import ADMIN, SERVICE, Service

HEADERS = {"Authorization": f"Bearer {ADMIN}", "Accept": "text/html"}
PUMP = "/v1/device-types/pump"
HOSTILE = "\"><script>alert(1)</script>'{{7*7}}"
TRAFFIC = {
    "readings": 12, "devices": 2, "refused_readings": 3, "refused_devices": 1, "lost_fields": 4,
    "codes": {"out_of_range": 3}, "since": "2026-01-02T03:04:05Z", "complete": False,
    "examples": [{"device": "d1", "time": "2026-01-02T03:04:05Z", "field": "p", "code": "out_of_range", "detail": "p: 9 is above 6", "entry": None}],
}  # fmt: skip
WAITING = {"entries": 5, "devices": 1, "would_pass": 2, "codes": {}, "examples": [], "complete": True}


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Service]:
    started = Service(
        DevicesConfig(
            data=tmp_path, broker="", ingest_url="http://127.0.0.1:9", operator_token=ADMIN, service_token=SERVICE
        )
    )
    yield started
    started.stop()


@pytest.fixture
def peer(registry: Service) -> RegistryPeer:
    return RegistryPeer(registry)


@pytest.fixture
def client(peer: RegistryPeer):
    ports = Ports(reader=MemoryReader(), devices=peer, ingest=peer)
    return assemble(DashboardConfig(service_token=SERVICE), ports).test_client()


def get(client, path, **query):
    page = client.get(path, query_string=query, headers=HEADERS)
    return page, re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page.text))


def post(client, path, **form):
    return client.post(path, data=form, headers=HEADERS | {"Origin": "http://localhost"}, follow_redirects=True)


def test_empty_list_offers_the_shipped_types_and_installs_them(client, registry) -> None:
    _, shown = get(client, "/types")
    page = post(client, "/types/install", name=["pump", "shelly-plus"])

    assert "No types yet" in shown
    assert "Centrifugal process pump" in shown
    assert page.text.count('href="/types/pump"') == 1
    assert registry.admin("GET", PUMP).json["version"] == 1


def test_list_shows_versions_drafts_and_devices(client, registry) -> None:
    registry.admin("PUT", PUMP, {"fields": {"p": {}}, "description": HOSTILE})
    registry.admin("POST", PUMP + "/versions", {"spec": {}})
    registry.admin("POST", "/v1/device-types/tank/versions", {"spec": {}})
    registry.register("d1", type="pump")

    page, shown = get(client, "/types")

    assert "<script>alert" not in page.text
    assert re.search(r"pump 1 1 draft fields 1 devices 1", shown)
    assert re.search(r"tank none in force 1 draft", shown)


def test_editor_saves_a_draft_that_can_be_put_in_force_and_rolled_back(client, registry) -> None:
    registry.admin("PUT", PUMP, {"fields": {"p": {"max": 10}}})

    saved = post(client, "/types/pump/edit", text='{"fields":{"p":{"max":6}}}', note="tighter", deed="draft")
    compared, _ = get(client, "/types/pump", version="2")
    activated = post(client, "/types/pump/act", deed="activate", version="2")
    back = post(client, "/types/pump/act", deed="rollback", version="1")

    assert "Version 2 is a draft" in saved.text
    assert "tighter" in saved.text
    assert "not compatible" in compared.text
    assert "fields.p.max" in compared.text
    assert "Version 2 is in force" in activated.text
    assert registry.admin("GET", PUMP).json["version"] == 3
    assert "in force again" in back.text


def test_faults_are_shown_at_their_members_and_nothing_is_saved(client, registry) -> None:
    text = '{"fields":{"p":{"min":3,"max":1},"q":{"type":"tpye"}}}'

    wrong = post(client, "/types/pump/edit", text=text.replace("tpye", "float"), deed="draft")
    shape = post(client, "/types/pump/edit", text=text, deed="check")
    broken = post(client, "/types/pump/edit", text='{"fields":', deed="activate")

    assert "<code>fields.p.min</code>: 3 is above max 1" in wrong.text
    assert "<code>fields.q.type</code>" in shape.text
    assert "not JSON" in broken.text
    assert "&#34;fields&#34;:</textarea>" in broken.text.replace("{", "")
    assert registry.admin("GET", PUMP + "/versions").status_code == 404


def test_check_shows_what_would_be_refused_and_keeps_the_text(client, registry, peer) -> None:
    registry.admin("PUT", PUMP, {"fields": {"p": {"max": 10}}})
    changes = registry.admin("POST", PUMP + ":check", {"spec": {"fields": {"p": {"max": 6}}}, "hours": 0}).json
    peer.overlay["POST /v1/device-types/pump:check"] = changes | {"traffic": TRAFFIC, "quarantine": WAITING, "note": ""}

    page = post(client, "/types/pump/edit", text='{"fields":{"p":{"max":6}}}', hours="3", deed="check")

    shown = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", page.text))
    assert "3 of 12 readings would be refused, of 1 of 2 devices" in shown
    assert "4 fields would be dropped" in shown
    assert "p: 9 is above 6" in shown
    assert "2 of 5 entries would pass" in shown
    assert "&#34;max&#34;:6" in page.text
    assert len(registry.admin("GET", PUMP + "/versions").json["items"]) == 1


def test_all_readings_are_judged_in_a_job_that_its_page_follows_and_cancels(client, registry, peer) -> None:
    registry.register("d1", type="pump")
    report = registry.admin("POST", PUMP + ":check", {"spec": {}, "hours": 0}).json
    peer.overlay["POST /v1/device-types/pump:check"] = report | {"traffic": TRAFFIC, "quarantine": WAITING, "note": ""}

    checked = post(client, "/types/pump/edit", text='{"fields":{"p":{"max":6}}}', hours="3", deed="check")
    started = post(client, "/types/pump/edit", text='{"fields":{"p":{"max":6}}}', hours="3", deed="dry-run")
    job_id = re.search(r'data-run="(\w+)"', started.text)[1]
    cancelled = post(client, "/types/pump/dry-runs", job=job_id)
    _, listed = get(client, "/types/pump/dry-runs")

    assert 'value="dry-run"' in checked.text
    assert "on the last 3.0 hours" in started.text
    assert registry.admin("GET", f"/v1/jobs/{job_id}").json["cancelling"] or "data-run" not in cancelled.text
    assert "readings, by" in listed
    registry.admin("PUT", "/v1/device-types/tank", {})
    assert get(client, "/types/tank/dry-runs", job=job_id)[0].status_code == 404
    assert get(client, "/types/tank/dry-runs")[0].status_code == 200
    assert get(client, "/types/nothing/dry-runs")[0].status_code == 404


def test_report_of_a_dry_run_tells_of_how_many_which_and_why(client, registry, peer) -> None:
    worst = {"device": HOSTILE, "readings": 9, "refused": 7, "codes": {}, "waiting": 2, "would_pass": 1}
    result = {
        "stored": 90000, "sample": 0.1, "readings": 9000, "devices": 4, "refused_readings": 7, "refused_devices": 1,
        "lost_fields": 2, "codes": {"out_of_range": 8}, "code_devices": {}, "waiting": 2, "would_pass": 1,
        "examples": TRAFFIC["examples"], "worst": [worst],
    }  # fmt: skip
    job = {
        "id": "j1", "kind": "type.dry-run", "state": "failed", "error": "no such store", "done": 9000, "total": 9000,
        "spec": {"type": "pump", "version": 4, "hours": 24, "sample": 0.1}, "result": result, "by": "token:a",
        "download": "/v1/jobs/j1/result", "created": "2026-01-02T03:04:05Z",
    }  # fmt: skip
    peer.overlay["GET /v1/jobs?kind=type.dry-run&limit=100"] = {"items": [job]}

    page, shown = get(client, "/types/pump/dry-runs")

    assert "7 of 9,000 readings would be refused, of 1 of 4 devices" in shown
    assert "9,000 of 90,000 stored readings were judged , a sample" in shown or "judged, a sample" in shown
    assert "no such store" in shown
    assert "p: 9 is above 6" in shown
    assert "Of 2 entries in the quarantine, 1 would pass" in shown
    assert "/v1/jobs/j1/result" in page.text
    assert "<script>alert" not in page.text


def test_check_without_ingestion_says_so(client, registry) -> None:
    page = post(client, "/types/pump/edit", text='{"fields":{"p":{}}}', deed="check")

    assert "no dry run" in page.text


def test_schedule_is_set_and_taken_back(client, registry) -> None:
    registry.admin("POST", PUMP + "/versions", {"spec": {}})

    planned = post(client, "/types/pump/act", deed="activate", version="1", at="2099-01-02T03:04")
    taken = post(client, "/types/pump/act", deed="unschedule", version="1")
    past = post(client, "/types/pump/act", deed="activate", version="1", at="2001-01-02T03:04")

    assert "scheduled" in planned.text
    assert "Take back" in planned.text
    assert "Take back" not in taken.text
    assert "the time has passed" in past.text


def test_viewer_sees_no_forms_and_may_not_send_them(client, registry) -> None:
    registry.admin("PUT", PUMP, {"fields": {"p": {}}})
    token = registry.admin("POST", "/v1/tokens", {"name": "watcher", "role": "viewer"}).json["token"]
    headers = {"Authorization": f"Bearer {token}", "Accept": "text/html"}

    page = client.get("/types/pump", headers=headers)
    editor = client.get("/types/pump/edit", headers=headers)

    assert page.status_code == 200
    assert "<form" not in page.text.partition("<main")[2]
    assert editor.status_code == 403
    assert client.post("/types/install", data={"name": "tank"}, headers=headers).status_code == 403


def test_names_that_are_none_are_not_found(client) -> None:
    assert get(client, "/types/nothing")[0].status_code == 404
    assert get(client, "/types/a%2Fb")[0].status_code == 404
    assert get(client, "/types/nothing/edit")[0].status_code == 404
    assert post(client, "/types/nothing/act", deed="activate", version="1").status_code == 404
    assert post(client, "/types/nothing/act", deed="burn", version="1").status_code == 422


def test_new_type_begins_empty_and_a_draft_alone_is_edited(client, registry) -> None:
    page, _ = get(client, "/types/new", name="pump")
    post(client, "/types/pump/edit", text='{"fields":{"p":{}}}', deed="draft")
    again, _ = get(client, "/types/pump/edit")

    assert 'action="/types/pump/edit"' in page.text
    assert "&#34;p&#34;" in again.text


def test_editor_begins_with_all_that_the_type_says(client, registry) -> None:
    spec = {"fields": {"p": {"min": 0.0, "max": 9.0, "required": True}}, "time_back_s": 0.0, "rate_limit": ""}
    registry.admin("PUT", PUMP, spec)

    page, _ = get(client, "/types/pump/edit")
    text = html.unescape(re.search(r"<textarea[^>]*>(.*?)</textarea>", page.text, re.DOTALL)[1])
    saved = post(client, "/types/pump/edit", text=text, deed="activate")

    assert "Version 2" in saved.text
    assert registry.admin("GET", PUMP + "/versions/2/diff?against=1").json["changes"] == []
