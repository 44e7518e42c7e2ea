"""Log-in by a real provider through the pages, as a browser does it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from chassis.web import SESSION_COOKIE
from dashboard_api.app import Ports, assemble
from dashboard_api.config import DashboardConfig
from dashboard_api.oidc import COOKIE
from devices.config import DevicesConfig
from tests.dashboard_api.fakes import MemoryReader
from tests.devices.running import ADMIN, SERVICE, Service
from tests.support.in_process import AppPeer
from tests.support.oidc_provider import CALLBACK, CLIENT, SECRET, OidcProvider

OURS = {"Origin": "http://localhost"}


@pytest.fixture
def provider() -> Iterator[OidcProvider]:
    started = OidcProvider()
    started.add("ada", groups=["staff"])
    yield started
    started.stop()


@pytest.fixture
def pages(tmp_path: Path, provider: OidcProvider) -> Iterator[Flask]:
    settings = {
        "oidc_issuer": provider.issuer, "oidc_client_id": CLIENT, "oidc_client_secret": SECRET,
        "oidc_redirect_url": CALLBACK, "registry_key": "k" * 43, "oidc_accounts": "anybody",
    }  # fmt: skip
    registry = Service(DevicesConfig(data=tmp_path, broker="", operator_token=ADMIN, service_token=SERVICE, **settings))
    yield page_of(registry, oidc_issuer=provider.issuer, oidc_label="Example <Login>")
    registry.stop()


def page_of(registry: Service, **settings: Any) -> Flask:
    peer = AppPeer(registry.app, SERVICE)
    return assemble(DashboardConfig(service_token=SERVICE, **settings), Ports(MemoryReader(), peer, peer))


def test_browser_logs_in_by_the_provider_and_out(pages, provider) -> None:
    browser = pages.test_client()
    shown = browser.get("/login?next=/devices").text
    assert 'href="/login/oidc?next=%2Fdevices"' in shown or 'href="/login/oidc?next=/devices"' in shown
    assert "Example &lt;Login&gt;" in shown

    away = browser.get("/login/oidc?next=/devices")
    back = browser.get("/login/oidc/callback", query_string=provider.log_in(away.headers["Location"]))

    assert "HttpOnly; Path=/login/oidc; SameSite=Lax" in away.headers["Set-Cookie"]
    assert (back.status_code, 'url=/devices"' in back.text) == (200, True)
    cookies = back.headers.getlist("Set-Cookie")
    assert any(each.startswith(SESSION_COOKIE) and "SameSite=Strict" in each for each in cookies)
    assert any(each.startswith(f"{COOKIE}=;") for each in cookies)
    assert browser.get("/v1/session").json == {"name": "ada", "role": "viewer", "tenant": "default"}
    out = browser.post("/logout", headers=OURS)
    assert 'href="/login/oidc/logout"' in browser.get(out.headers["Location"]).text
    assert browser.get("/login/oidc/logout").headers["Location"].startswith(f"{provider.issuer}/logout?")
    assert browser.get("/v1/session").status_code == 401


def test_answer_in_another_browser_opens_nothing(pages, provider) -> None:
    away = pages.test_client().get("/login/oidc")
    victim = pages.test_client()

    answer = victim.get("/login/oidc/callback", query_string=provider.log_in(away.headers["Location"]))

    assert answer.status_code == 400
    assert "begun elsewhere" in answer.text
    assert victim.get_cookie(SESSION_COOKIE) is None


@pytest.mark.parametrize("target", ["https://evil.example/", "//evil.example", "/\\evil.example"])
def test_log_in_goes_on_to_our_own_pages_only(pages, provider, target) -> None:
    browser = pages.test_client()
    away = browser.get("/login/oidc", query_string={"next": target})

    back = browser.get("/login/oidc/callback", query_string=provider.log_in(away.headers["Location"]))

    assert 'url=/"' in back.text


def test_refusal_is_said_on_the_log_in(pages, provider) -> None:
    browser = pages.test_client()
    browser.get("/login/oidc")
    provider.metadata = {"issuer": "https://elsewhere.example"}

    denied = browser.get("/login/oidc/callback", query_string={"error": "access_denied", "state": "x"})

    assert denied.status_code == 400
    assert 'role="alert"' in denied.text


def test_button_is_there_only_with_a_provider(tmp_path) -> None:
    registry = Service(DevicesConfig(data=tmp_path, broker="", operator_token=ADMIN, service_token=SERVICE))
    browser = page_of(registry).test_client()

    assert "/login/oidc" not in browser.get("/login").text
    assert "/login/oidc" not in browser.get("/invitation?token=x").text
    assert browser.get("/login/oidc").status_code == 404
    registry.stop()
