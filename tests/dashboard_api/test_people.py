"""The pages of administration before a real registry: people and tokens, tenants, audit."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from chassis.web import SESSION_COOKIE
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
    client = assemble(DashboardConfig(service_token=SERVICE), Ports(MemoryReader(), peer, peer)).test_client()
    client.set_cookie(SESSION_COOKIE, ADMIN)
    return client


def test_person_is_invited_and_taken_back(registry, browser) -> None:
    made = browser.post("/people/create", data={"name": "ann", "role": "viewer", "kind": "invitation"}, headers=OURS)
    listed = browser.get("/people").text
    browser.post("/people/remove", data={"kind": "invitation", "name": "ann"}, headers=OURS)

    assert re.search(r"http://localhost/invitation\?token=[\w-]{43}", made.text)
    assert "ann" in listed
    assert "token=" not in listed
    assert "ann" not in browser.get("/people").text


def test_token_is_made_with_a_scope_and_revoked(registry, browser) -> None:
    form = {"name": "screen", "role": "viewer", "scope": "query:* devices:read", "devices": 'tag.site="<a>"'}
    form |= {"kind": "token"}
    browser.post("/people/create", data=form, headers=OURS)
    token = next(each for each in registry.admin("GET", "/v1/tokens").json["items"] if each["name"] == "screen")
    assert "tag.site=&#34;&lt;a&gt;&#34;" in browser.get("/people").text

    browser.post("/people/remove", data={"kind": "token", "name": token["id"]}, headers=OURS)

    assert (token["scope"], token["devices"]) == (["query:*", "devices:read"], 'tag.site="<a>"')
    assert "screen" not in registry.admin("GET", "/v1/tokens").text


def test_fault_is_told_on_the_page(registry, browser) -> None:
    answer = browser.post("/people/create", data={"name": "a b", "role": "viewer"}, headers=OURS)

    assert (answer.status_code, "is-bad" in answer.text) == (422, True)


def test_one_of_the_platform_enters_a_tenant_and_leaves_it(registry, browser) -> None:
    browser.post("/tenants/change", data={"deed": "create", "id": "acme", "title": "Acme"}, headers=OURS)
    browser.post("/tenants/enter", data={"id": "acme"}, headers=OURS)
    there = browser.get("/v1/session").json["tenant"]
    browser.post("/tenants/enter", data={"id": "default"}, headers=OURS)

    entries = registry.admin("GET", "/v1/audit?action=tenant.enter", headers={"Headwater-Tenant": "acme"}).json["items"]
    assert (there, browser.get("/v1/session").json["tenant"]) == ("acme", "default")
    assert [entry["actor"] for entry in entries] == ["token:bootstrap"]


def test_tenant_is_suspended_and_goes_on(registry, browser) -> None:
    registry.admin("POST", "/v1/tenants", {"id": "acme"})

    states = []
    for deed in ("suspend", "resume"):
        browser.post("/tenants/change", data={"deed": deed, "id": "acme"}, headers=OURS)
        states.append(registry.admin("GET", "/v1/tenants/acme").json["state"])

    assert states == ["suspended", "active"]


def test_page_of_tenants_says_what_each_uses(registry, browser) -> None:
    spent = {"messages": 1_234, "points": 5_678, "bytes": 91_000, "feed_readers": 3}
    registry.admin("POST", "/v1/tenants", {"id": "acme", "limits": {"feed_readers": 4}})
    registry.internal("POST", "/internal/usage", {"tenants": {"acme": spent}})

    page = browser.get("/tenants").text

    assert "Today: 1,234 messages, 5,678 points, 91.0 kB" in page
    assert "at most 3 of 4 feed readers" in page


def test_page_of_usage_is_of_the_own_tenant_day_by_day(registry, browser) -> None:
    spent = {"messages": 1_234, "points": 5_678, "bytes": 91_000, "feed_readers": 3}
    registry.admin("POST", "/v1/tenants", {"id": "acme"})
    registry.internal("POST", "/internal/usage", {"tenants": {"acme": {"messages": 77_777}, "default": spent}})

    page = browser.get("/usage").text

    assert page.count("<time datetime=") == 30
    assert page.count("5,678") == 2
    assert "77,777" not in page


def test_page_of_usage_names_types_and_the_devices_that_sent_most(registry, browser) -> None:
    registry.register("d1")
    told = {"types": {"default": {"pump": [4_321, 6, 90], "": [1, 1, 10]}},
            "devices": {"default": {"d1": [1_234, 5_678, 910], "d2": [7_654, 1, 1]}}}  # fmt: skip
    registry.internal("POST", "/internal/usage", told)

    page, device = browser.get("/usage").text, browser.get("/devices/d1").text

    assert 'href="/types/pump"' in page
    assert "4,321" in page
    assert "without a type" in page
    assert page.index('href="/devices/d2"') < page.index('href="/devices/d1"')
    assert "5,678" in device
    assert "7,654" not in device


def test_audit_is_narrowed_and_says_what_is_wrong_with_a_filter(registry, browser) -> None:
    registry.register("d1", tags={"note": "<script>alert(1)</script>"})
    registry.register("another-pump")

    narrowed = browser.get("/audit?object=d1").text
    wrong = browser.get("/audit?start=yesterday").text

    assert "device.create" in narrowed
    assert "another-pump" not in narrowed
    assert "<script>alert" not in narrowed
    assert "is-bad" in wrong


def test_forms_of_another_site_change_nothing(registry, browser) -> None:
    foreign = {"Origin": "http://evil.example"}
    for path in ("/people/create", "/people/remove", "/tenants/change", "/tenants/enter"):
        assert browser.post(path, data={"name": "x", "id": "x"}, headers=foreign).status_code == 403
