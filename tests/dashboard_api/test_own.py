"""Choosing a password by an invitation, and changing one's own, through the pages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from dashboard_api.app import Ports, assemble
from dashboard_api.config import DashboardConfig
from devices.config import DevicesConfig
from tests.dashboard_api.fakes import MemoryReader
from tests.devices.running import ADMIN, SERVICE, Service
from tests.support.in_process import AppPeer

OURS = {"Origin": "http://localhost"}


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Service]:
    started = Service(DevicesConfig(data=tmp_path, broker="", operator_token=ADMIN, service_token=SERVICE))
    yield started
    started.stop()


@pytest.fixture
def browser(registry: Service) -> FlaskClient:
    peer = AppPeer(registry.app, SERVICE)
    return assemble(DashboardConfig(service_token=SERVICE), Ports(MemoryReader(), peer, peer)).test_client()


def log_in(browser: FlaskClient, name: str, password: str) -> Any:
    return browser.post("/login", data={"name": name, "password": password}, headers=OURS)


def test_invited_person_chooses_a_password_and_logs_in(registry, browser) -> None:
    made = registry.admin("POST", "/v1/invitations", {"name": "ann", "role": "viewer"}).json

    form = browser.get(made["path"])
    chosen = {"token": made["token"], "password": "my own password", "again": "my own password"}
    differ = browser.post("/invitation", data=chosen | {"again": "another"}, headers=OURS)
    accepted = browser.post("/invitation", data=chosen, headers=OURS)
    again = browser.post("/invitation", data=chosen, headers=OURS)

    assert (form.status_code, differ.status_code, again.status_code) == (200, 422, 404)
    assert (accepted.status_code, accepted.headers["Location"]) == (303, "/login")
    assert log_in(browser, "ann", "my own password").headers["Location"] == "/"


def test_who_must_change_the_password_gets_nowhere_before(registry, browser) -> None:
    body = {"name": "eve", "password": "correct horse", "role": "admin", "must_change": True}
    registry.admin("POST", "/v1/operators", body)

    first = log_in(browser, "eve", "correct horse")
    blocked = browser.get("/devices")
    form = {"old": "correct horse", "new": "battery staple", "again": "battery staple"}
    wrong = browser.post("/password", data=form | {"old": "wrong"}, headers=OURS)
    changed = browser.post("/password", data=form, headers=OURS)

    assert [answer.headers.get("Location") for answer in (first, blocked, changed)] == ["/password", "/password", "/"]
    assert (wrong.status_code, b"wrong name or password" in wrong.data) == (422, True)
    assert browser.get("/v1/session").json["name"] == "eve"


@pytest.mark.parametrize("path", ["/password", "/invitation"])
def test_form_of_another_site_is_refused(registry, browser, path: str) -> None:
    registry.admin("POST", "/v1/operators", {"name": "eve", "password": "correct horse", "role": "admin"})
    log_in(browser, "eve", "correct horse")

    assert browser.post(path, data={}, headers={"Origin": "http://evil.example"}).status_code == 403
