"""The page of enrolment and its forms."""

from __future__ import annotations

import pytest

from tests.dashboard_api.fakes import Platform, demo, enrolment

VIEWER, OPERATOR, ADMIN = (
    {"Authorization": f"Bearer {role}-token", "Accept": "text/html"} for role in ("viewer", "operator", "admin")
)
HOSTILE = "\"><img src=x onerror=alert(1)>'{{7*7}}</script>"
HELD = {"id": "pump-7", "source": "group:pumps", "since": "2026-01-02T03:04:05Z", "last_seen": None, "type": "pump",
        "tags": {"site": "a"}, "hardware": {"board": HOSTILE}}  # fmt: skip
AUTHORITY = {"name": "acme", "certificate": "", "is_own": False, "id_from": "CN", "ids": "pump-*", "type": None,
             "tags": {}, "policy": "hold", "state": "pending", "challenge": "c0ffee", "created": "2026-01-02T03:04:05Z",
             "expires": "2036-01-02T03:04:05Z"}  # fmt: skip


@pytest.fixture
def platform() -> Platform:
    made = demo()[0]
    made.held, made.ways, made.authorities = [dict(HELD)], [enrolment(name=HOSTILE)], [dict(AUTHORITY)]
    return made


def test_page_shows_who_waits_and_the_ways_in(client) -> None:
    page = client.get("/enrolment", headers=VIEWER)

    assert page.status_code == 200
    for text in ("pump-7", "group:pumps", "site", "acme", "to be proved"):
        assert text in page.text, text
    assert HOSTILE not in page.text
    assert '<form action="/enrolment/revoke"' not in page.text
    assert "c0ffee" not in page.text


def test_chosen_devices_are_accepted(client, platform) -> None:
    answer = client.post("/enrolment/decide", data={"id": "pump-7", "verb": "accept"}, headers=OPERATOR)

    assert (answer.status_code, answer.headers["Location"]) == (303, "/enrolment")
    assert ("POST", "/v1/holds:accept", "operator-token") in platform.calls
    assert "Nobody waits" in client.get("/enrolment", headers=VIEWER).text


def test_secret_is_on_the_answer_and_nowhere_after(client, platform) -> None:
    form = {"name": "hall-3", "kind": "token", "ids": " pump-* ", "tags": "site=a floor=2", "hold": "1", "type": ""}

    page = client.post("/enrolment/create", data=form, headers=OPERATOR)

    assert (page.status_code, "secret-shown-once" in page.text) == (200, True)
    made = platform.ways[-1]
    assert (made["ids"], made["tags"], made["policy"]) == ("pump-*", {"site": "a", "floor": "2"}, "hold")
    assert "secret-shown-once" not in client.get("/enrolment", headers=OPERATOR).text


def test_fault_is_told_beside_what_was_typed(client) -> None:
    client.post("/enrolment/create", data={"name": "twice"}, headers=OPERATOR)

    page = client.post("/enrolment/create", data={"name": "twice", "tags": "site=b"}, headers=OPERATOR)

    assert page.status_code == 409
    assert "enrolment twice exists already" in page.text
    assert 'value="site=b"' in page.text


@pytest.mark.parametrize("form", ["decide", "create", "revoke", "authority"])
def test_viewer_changes_nothing(client, platform, form) -> None:
    assert client.post(f"/enrolment/{form}", data={"id": "pump-7"}, headers=VIEWER).status_code == 403
    assert len(platform.held) == 1


def test_proof_is_asked_of_an_admin(client) -> None:
    assert "c0ffee" in client.get("/enrolment", headers=ADMIN).text
    assert client.post("/enrolment/authority", data={"verb": "make"}, headers=OPERATOR).status_code == 403
