"""Every route of the real services with every kind of caller; what was seen is docs/access.md.

`python -m pytest tests/test_access_matrix.py` fails when the page is not what was seen;
`HEADWATER_WRITE_MATRIX=1` with it writes the page anew.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import text

from chassis.tokens import hash_token
from chassis.web import Operation
from dashboard_api.app import Ports, assemble
from dashboard_api.config import DashboardConfig
from devices.config import DevicesConfig
from ingest.app import create_app as create_ingest
from ingest.config import IngestConfig
from ingest.protocols import SERVICES
from tests.dashboard_api.fakes import MemoryReader
from tests.devices.running import ADMIN, Service
from tests.support.in_process import AppPeer
from wire import clock
from wire.devices import ROLES, allows
from wire.points import Point

PAGE = Path(__file__).parent.parent / "docs" / "access.md"
GATEWAY = Path(__file__).parent.parent / "compose" / "gateway.conf"
WAY = re.compile(r"location (= )?(/v1/\S+) ")
CANARY = "canary-of-theirs"
THEIRS = "theirs"
NOBODY = "nobody-of-the-name"
COLUMNS = ("nobody", "wrong", "expired", "service", *ROLES, "some devices")
SOME = "some devices"  # a token of the role platform, for devices with the tag site=inside
INSIDE, OUTSIDE = "inside", "canary-outside"
REACHES = {"any": "yes", "path": "its", "narrowed": "its", "refused": "403"}
CALLERS = ("bridge", "dashboard", "devices", "firmware", "ingest", "writer")
LISTING = "\n".join(f"{name} {hash_token(f'token-of-{name}')}" for name in CALLERS)
OBJECTS = {  # part of a path -> an object of that kind in another tenant, or what fits where there is none
    "<device_id>": CANARY, "<id>": CANARY, "<token_id>": CANARY, "<path:name>": "css/app.css", "<tenant>": "no-such",
    "<name>": CANARY, "<number>": "1", "<protocol>": "json", "<token>": "x.y",
}  # fmt: skip
FOREIGN = ("<device_id>", "<token_id>", "<name>", "<id>")  # what of it exists in the other tenant


@dataclass
class Platform:
    """The three services, wired as in an installation, and a credential of each kind of caller."""

    folder: Path
    apps: dict[str, Flask] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    asked: int = 0

    def __post_init__(self) -> None:
        config = DevicesConfig(data=self.folder, broker="", operator_token=ADMIN, services=LISTING)
        self.registry = Service(config)
        self.apps["devices"] = self.registry.app
        peer = AppPeer(self.registry.app, "token-of-ingest")
        for service in SERVICES:
            name = "ingest" if service == SERVICES[0] else f"ingest-{service}"
            settings = IngestConfig(protocol=service, data=self.folder, services=LISTING)
            self.apps[name] = create_ingest(settings, peer)
        token = "token-of-dashboard"
        reader = MemoryReader()
        ports = Ports(reader, AppPeer(self.registry.app, token), AppPeer(self.apps["ingest"], token))
        self.apps["dashboard"] = assemble(DashboardConfig(services=LISTING), ports)
        self._fill_theirs()
        self._fill_ours(reader)
        made = {role: self._token(role, role) for role in ROLES}
        inner = {name: f"token-of-{name}" for name in CALLERS}
        self.tokens = (
            inner
            | {"wrong": "x" * 43, "service": "token-of-writer", "expired": self._token("expired", "platform")}
            | made
            | {SOME: self._token("some", "platform", devices=f"tag.site={INSIDE}")}
        )
        with self.registry.app.extensions["headwater.database"].engine.begin() as connection:
            connection.execute(text("UPDATE tokens SET expires_ns = 1 WHERE name = 'expired'"))

    def _token(self, name: str, role: str, **more: str) -> str:
        return str(self.registry.admin("POST", "/v1/tokens", {"name": name, "role": role} | more).json["token"])

    def _fill_ours(self, reader: MemoryReader) -> None:
        """A device within the reach of the token for some, and one beyond it, with all that may tell of it."""
        for device, site in ((INSIDE, INSIDE), (OUTSIDE, OUTSIDE)):
            self.registry.register(device, tags={"site": site})
            reader.points.append(Point(device, "telemetry", clock.now_ns(), {"temp": 1.0}))
        self.registry.admin("POST", f"/v1/devices/{OUTSIDE}/commands", {"name": "go"})
        self.registry.admin("POST", "/v1/devices:bulk", {"query": f"id={OUTSIDE}", "action": {"do": "enable"}})
        self.registry.admin("POST", "/v1/groups", {"name": OUTSIDE})
        self.registry.admin("POST", f"/v1/groups/{OUTSIDE}:add", {"devices": [OUTSIDE]})

    def _fill_theirs(self) -> None:
        self.registry.admin("POST", "/v1/tenants", {"id": THEIRS})
        person = {"name": CANARY, "password": "a long password", "role": "viewer"}
        bodies = {
            "/v1/devices": {"id": CANARY, "type": CANARY, "tags": {"site": CANARY}}, "/v1/device-types": {"name": CANARY},
            "/v1/tokens": {"name": CANARY, "role": "viewer"}, "/v1/operators": person,
            "/v1/invitations": {"name": CANARY + "2", "role": "viewer"}, "/v1/groups": {"name": CANARY},
            "/v1/enrolments": {"name": CANARY, "kind": "token"},
        }  # fmt: skip
        declared = {operation.rule for operation in self.registry.app.extensions["headwater.api"].operations}
        for path, body in ((path, body) for path, body in bodies.items() if path in declared):
            answer = self.registry.admin("POST", path, body, headers={"Headwater-Tenant": THEIRS})
            assert answer.status_code == 201, (path, answer.text)

    def ask(
        self,
        service: str,
        operation: Operation,
        caller: str,
        query: Mapping[str, str] | None = None,
        device: str = CANARY,
    ) -> Any:
        headers = {"Authorization": f"Bearer {self.tokens[caller]}"} if caller in self.tokens else {}
        nonsense = {"json": {"nonsense": 1}} if operation.method not in ("GET", "DELETE") else {}
        client = self.apps[service].test_client()
        self.asked += 1
        client.environ_base["REMOTE_ADDR"] = f"10.0.{self.asked // 50}.1"  # of one address many wrong tokens wait
        answer = client.open(
            path_of(operation, device), method=operation.method, headers=headers, query_string=query, **nonsense
        )
        kept = answer.headers.get("Cache-Control")  # what is for one asker is kept for no other
        assert operation.rule.startswith("/static/") or kept in ("no-store", "private, no-cache"), operation.rule
        return answer

    def stop(self) -> None:
        self.registry.stop()
        for name, app in self.apps.items():
            if name.startswith("ingest"):
                app.extensions["headwater.close"]()
        self.apps["dashboard"].extensions["headwater.workers"].stop()


def path_of(operation: Operation, device: str = CANARY) -> str:
    objects = OBJECTS | {"<device_id>": device} | ({"<id>": device} if "/devices/<id>" in operation.rule else {})
    return re.sub(r"<[^>]+>", lambda match: objects.get(match[0], CANARY), operation.rule)


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    started = Platform(tmp_path_factory.mktemp("platform"))
    yield started
    started.stop()


def expected(operation: Operation, caller: str) -> str:
    access = operation.access
    if access in ("public", "own"):
        return access
    if access == "service" or caller not in (*ROLES, SOME):
        return "401"
    if caller == SOME:
        return "yes" if access == "self" else REACHES[operation.reaches]
    return "yes" if access == "self" or allows(caller, access) else "403"


def seen(operation: Operation, caller: str, answer: Any) -> str:
    """Say what became of a request: refused for its credential, for its role, or let in."""
    if operation.access in ("public", "own"):
        return operation.access
    is_sent_to_login = answer.status_code == 303 and answer.headers["Location"].startswith("/login")
    if answer.status_code == 401 or is_sent_to_login:
        return "401"
    is_refused = answer.status_code == 403 and b"not_a_person" not in answer.data
    return "403" if is_refused else "yes"


def cell_of(platform: Platform, service: str, operation: Operation, caller: str) -> str:
    """Say what one kind of caller sees at a route; services each for themselves where it is for them."""
    where = (service, operation.method, operation.rule, caller)
    if operation.access == "service" and caller == "service":
        found = {name: seen(operation, name, platform.ask(service, operation, name)) for name in CALLERS}
        wanted = {name: "yes" if name in operation.callers else "403" for name in CALLERS}
        assert found == wanted, where
        assert operation.callers, where
        return ", ".join(sorted(operation.callers))
    answer = platform.ask(service, operation, caller)
    cell = seen(operation, caller, answer)
    if caller == SOME and cell == "yes" and operation.access != "self":
        cell = seen_by_some(platform, service, operation)
    assert cell == expected(operation, caller), where
    assert operation.access == "service" or CANARY not in leaked(answer), where
    return cell


def seen_by_some(platform: Platform, service: str, operation: Operation) -> str:
    """Say what a token for some devices sees at a route that lets it in: all there is, or its devices only."""
    where = (service, operation.method, operation.rule)
    told = leaked(platform.ask(service, operation, SOME, {"field": "temp"} if "/query/agg" in operation.rule else None))
    assert OUTSIDE not in told, where
    if operation.reaches != "path":
        is_its = operation.reaches == "narrowed"
        shows = is_its and operation.method == "GET" and "<" not in operation.rule and "/query/" in operation.rule
        assert not shows or INSIDE in told, where
        return "its" if is_its else "yes"
    fresh = f"{INSIDE}-{platform.asked}"  # the route may delete it
    platform.registry.register(fresh, tags={"site": INSIDE})
    mine, other, nobody = (platform.ask(service, operation, SOME, device=each) for each in (fresh, OUTSIDE, NOBODY))
    assert mine.status_code != 403, where
    assert mine.status_code != 404 or mine.json["code"] != "device_not_found", where
    for answer in (other, nobody):
        assert (answer.status_code, answer.json["code"]) == (404, "device_not_found"), where
    return "its"


def rows_of(platform: Platform) -> list[tuple[str, ...]]:
    rows, known = [], set()
    for service, app in platform.apps.items():
        for operation in app.extensions["headwater.api"].operations:
            if (way := (operation.method, operation.rule)) in known and service.startswith("ingest-"):
                continue  # what all ingestion services have stands once
            known.add(way)
            cells = [cell_of(platform, service, operation, caller) for caller in COLUMNS]
            rows.append((service, f"`{operation.method} {shown(operation.rule)}`", operation.access, *cells))
    return rows


def test_gateway_knows_the_way_to_every_route_of_the_registry(platform: Platform) -> None:
    lines = GATEWAY.read_text().splitlines()
    ways = [match for line in lines if "proxy_pass http://devices;" in line and (match := WAY.search(line))]
    lost = [
        operation.rule
        for operation in platform.apps["devices"].extensions["headwater.api"].operations
        if operation.rule.startswith("/v1/")
        and not any(operation.rule == way[2] or (not way[1] and operation.rule.startswith(way[2])) for way in ways)
    ]

    assert lost == []


def leaked(answer: Any) -> str:
    """Give what an answer tells; error texts repeat the id that was asked for."""
    return "" if answer.status_code >= 300 else answer.get_data(as_text=True)


def shown(rule: str) -> str:
    return re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule)


def test_every_route_lets_in_whom_the_page_says(platform: Platform) -> None:
    rows = sorted(rows_of(platform))
    page = page_of(rows)

    if os.environ.get("HEADWATER_WRITE_MATRIX"):
        PAGE.write_text(page)

    assert len(rows) > 80
    assert PAGE.read_text() == page, "write it anew with HEADWATER_WRITE_MATRIX=1 and this test"


def page_of(rows: list[tuple[str, ...]]) -> str:
    head = ("service", "route", "access", *COLUMNS)
    table = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]
    return INTRODUCTION + "\n".join(table) + "\n"


def test_object_of_another_tenant_is_nowhere(platform: Platform) -> None:
    """Each route that names a device, a type, a token or a person, with one that exists in another tenant."""
    checked = 0
    for service, app in platform.apps.items():
        for operation in app.extensions["headwater.api"].operations:
            is_ours = operation.access in (*ROLES[:3], "platform") and any(part in operation.rule for part in FOREIGN)
            if not is_ours or operation.body is not None:
                continue
            answer = platform.ask(service, operation, "platform")
            is_empty = operation.method == "GET" and answer.status_code == 200 and CANARY not in answer.text
            is_absent = answer.status_code in (404, 422, 405) or is_empty
            assert is_absent, (operation.method, operation.rule, answer.status_code)
            checked += 1

    assert checked > 20


def test_filter_finds_as_little_of_another_tenant_as_of_nobody(platform: Platform) -> None:
    """Each route of operators that takes a device by query or filter: its answers are the same, but for the name."""
    asked = []
    for service, app in platform.apps.items():
        for operation in app.extensions["headwater.api"].operations:
            if operation.query is None or "device" not in operation.query.model_fields or operation.access == "own":
                continue
            more = {"field": "temp"} if operation.rule.endswith("aggregate") else {}
            told = []
            for device in (CANARY, NOBODY):
                query = {"device": device} | more
                answer = platform.ask(service, operation, "platform", query)
                told.append((answer.status_code, answer.text.replace(device, "?")))
            assert told[0] == told[1], operation.rule
            assert told[0][0] == (404 if operation.rule == "/v1/commands" else 200), operation.rule
            asked.append(operation.rule)

    assert len(asked) >= 7, asked


INTRODUCTION = """\
# Access

Who is let in where. This page is written by a test that asks every route of the real services as every kind of caller, and fails when what it sees differs (`tests/test_access_matrix.py`).

`yes`: let in; what of another tenant is named then answers 404. `401`: no credential, a wrong, expired or revoked one, or one of another tenant; pages send to the log-in. `403`: the role is too low.
`own`: the route checks devices' credentials by itself. `self`: about the asker; a token is told there that it is no person. `service` routes are not reached through the gateway;
they take the tokens of the services that are named, and answer 403 `wrong_service` to those of others.
Column "some devices": a token of the role platform that was made for the devices of a query ([http.md](http.md#tokens-for-some-devices)). `its`: its devices only; others are 404 in a path, and left out of lists, readings and bulk work. `403` (`out_of_scope`): not with such a token.

A device in a **path** that is nobody's or another tenant's is 404 (`device_not_found`). A device in a **query** (`/v1/query/latest?device=`, range, aggregate, export, quarantine) is a filter: of a device that is nobody's or another tenant's it finds nothing, 200 and an empty list, and nothing tells the two apart.
It is no 404 because readings outlive who sent them (a device that was deleted without its data, or moved away, is still found by its name), because reading goes on while the registry is away, and because whoever waits for a device's first reading asks before anybody knows it. Commands go with their device, so `/v1/commands?device=` is 404.

"""
