"""Every route with every kind of caller, generated from what the routes declare."""

from __future__ import annotations

import pytest
from flask import Flask

from chassis.web import SESSION_COOKIE
from dashboard_api.app import Ports, assemble
from dashboard_api.config import DashboardConfig
from tests.dashboard_api.fakes import SERVICE_TOKEN, TOKENS, FakePeer, demo
from wire.devices import ROLES, allows


def built() -> Flask:
    platform, reader = demo()
    return assemble(DashboardConfig(service_token=SERVICE_TOKEN), Ports(reader, FakePeer(platform), FakePeer(platform)))


OPERATIONS = built().extensions["headwater.api"].operations
FILLED = {"<device_id>": "pump-16", "<path:name>": "css/app.css"}
QUERIES = {"/v1/query/aggregate": "?field=temperature"}
CALLERS = [None, "wrong", SERVICE_TOKEN, *ROLES]


def path_of(operation) -> str:
    path = operation.rule
    for part, value in FILLED.items():
        path = path.replace(part, value)
    return path + QUERIES.get(operation.rule, "")


@pytest.fixture(scope="module")
def client():
    return built().test_client()


def expected(operation, caller) -> str:
    if operation.access == "public":
        return "let in"
    if caller not in ROLES:
        return "unknown"
    if operation.access == "self":
        return "let in"
    return "let in" if allows(caller, operation.access) else "forbidden"


@pytest.mark.parametrize("caller", CALLERS, ids=str)
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: f"{operation.method} {operation.rule}")
def test_route_lets_in_whom_it_declares(client, operation, caller):
    token = TOKENS.get(caller, caller)
    headers = {"Authorization": f"Bearer {token}"} if token else {}

    answer = client.open(path_of(operation), method=operation.method, headers=headers)

    is_api = operation.rule.startswith("/v1/")
    wanted = expected(operation, caller)
    if wanted == "unknown":
        assert answer.status_code == (401 if is_api else 303)
        assert is_api or answer.headers["Location"].startswith("/login")
    elif wanted == "forbidden":
        assert answer.status_code == 403
    else:
        assert answer.status_code not in (401, 403)  # what becomes of it then: tests/test_access_matrix.py


def test_every_route_of_the_app_declares_its_access():
    declared = {operation.rule for operation in OPERATIONS}
    probes = {"/livez", "/readyz", "/healthz", "/metrics", "/openapi.json", "/v1/feed"}

    assert {rule.rule for rule in built().url_map.iter_rules()} == declared | probes


@pytest.mark.parametrize("headers", [{"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {}])
def test_session_from_a_foreign_page_changes_nothing(client, headers):
    client.set_cookie(SESSION_COOKIE, TOKENS["operator"])
    try:
        answer = client.post("/quarantine/replay", data={"id": "901"}, headers=headers)
    finally:
        client.delete_cookie(SESSION_COOKIE)

    assert answer.status_code == 403


def test_unknown_methods_are_refused(client):
    answer = client.delete("/v1/query/latest", headers={"Authorization": f"Bearer {TOKENS['admin']}"})

    assert answer.status_code == 405
    assert "GET" in answer.headers["Allow"]
