"""The doors of other systems' clients, each in its own ingestion service, over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from ingest.app import create_app
from ingest.config import IngestConfig
from ingest.protocols import PROTOCOLS, SERVICES
from tests.ingest.intake_support import ROLE_TOKENS, SECRET, FakeRegistry

Open = Callable[[str], FlaskClient]


@pytest.fixture
def open_service(tmp_path: Path) -> Iterator[Open]:
    registry = FakeRegistry()
    registry.add("d1")
    with ExitStack() as closing:

        def start(service: str) -> FlaskClient:
            config = IngestConfig(protocol=service, data=tmp_path, service_token="s", spool_floor_bytes=0)
            app = create_app(config, registry)
            closing.callback(app.extensions["headwater.close"])
            return app.test_client()

        yield start


@pytest.mark.parametrize("name", PROTOCOLS)
def test_decoder_of_each_protocol_is_there(name: str) -> None:
    assert callable(PROTOCOLS[name].decode)


def test_first_service_keeps_the_books_and_describes_the_others(open_service: Open) -> None:
    first, other = open_service(SERVICES[0]), open_service("thingsboard")
    viewer = {"Authorization": f"Bearer {ROLE_TOKENS['viewer']}"}

    assert first.get("/v1/ledger", headers=viewer).status_code == 200
    assert other.get("/v1/ledger", headers=viewer).status_code == 404
    assert "/api/v1/{token}/telemetry" in first.get("/openapi.json").get_json()["paths"]
    assert first.post("/api/v1/x/telemetry").status_code == 404


def test_thingsboard_answers_an_empty_200(open_service: Open) -> None:
    answer = open_service("thingsboard").post(f"/api/v1/d1.{SECRET}/telemetry", data=b'{"a":1}')

    assert (answer.status_code, answer.data) == (200, b"")


def test_thingsboard_client_that_tries_its_token_is_let_in(open_service: Open) -> None:
    client, path = open_service("thingsboard"), f"/api/v1/d1.{SECRET}/telemetry"

    assert [client.post(path, data=tried).status_code for tried in (b"{}", b"[]", b"12")] == [200, 422, 400]
    assert client.post("/api/v1/d1.wrong/telemetry", data=b"{}").status_code == 401


def test_thingsboard_is_named_by_path_too(open_service: Open) -> None:
    headers = {"Authorization": f"Bearer d1.{SECRET}"}

    answer = open_service("thingsboard").post("/v1/telemetry/thingsboard", json={"n": {"b": 1}}, headers=headers)

    assert answer.status_code == 202


def test_thingsboard_wrong_token_is_401(open_service: Open) -> None:
    assert open_service("thingsboard").post("/api/v1/d1.wrong/telemetry", data=b'{"a":1}').status_code == 401


def test_thingsboard_bad_json_is_400(open_service: Open) -> None:
    client = open_service("thingsboard")

    assert client.post(f"/api/v1/d1.{SECRET}/telemetry", data=b"temperature=21").status_code == 400
