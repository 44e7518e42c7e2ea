"""`GET /v1/protocols`: what a tenant's devices said in each protocol, and nothing of another's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from chassis import web
from chassis.services import Services
from chassis.tokens import PeerTokens, hash_token
from ingest import protocols_api
from ingest.framing import Batch, Delivery
from ingest.message import Message
from ingest.protocols import PROTOCOLS
from ingest.service import IngestService
from ingest.traffic import Traffic
from tests.ingest.intake_support import FakeRegistry, World
from wire import clock
from wire.protocols import BUILT_IN


class Tokens(FakeRegistry):
    """Takes a tenant's name for its viewer's token."""

    def _tokens_verify(self, path: str, body: Any) -> Any:
        tenants = ("default", "acme", "other")
        [tenant] = [each for each in tenants if hash_token(f"of-{each}") == body["sha256"]]
        return {"id": tenant, "name": tenant, "role": "viewer", "tenant": tenant}


class Scene:
    """A service with its figures, and two tenants with a device each."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder, PROTOCOLS)
        for tenant in ("acme", "other"):
            self.world.registry.add(f"{tenant}-1", tenant=tenant)
        self.traffic = Traffic(folder)
        self.service = IngestService(replace(self.world.ports, traffic=self.traffic), PROTOCOLS)
        api, tokens = web.Api(), Tokens()
        protocols_api.add_routes(api, self.world.quarantine, self.traffic)
        edge = web.Edge("ingest-json", Services("", ""), PeerTokens(tokens), dict[str, str])
        self.client: FlaskClient = web.create_app(edge, api, __name__).test_client()

    def post(self, device: str, protocol: str, content: bytes) -> None:
        known = self.world.gate.find([device]).known[device]
        self.service.accept(Message(known, PROTOCOLS[protocol], content, clock.now_ns()))

    def say(self, device: str, protocol: str, content: bytes) -> None:
        sent = Delivery(device, f"devices/{device}/telemetry/{protocol}", content, clock.now_ns(), 7)
        self.service.accept_batch(Batch("b", [sent]))

    def shown(self, tenant: str) -> dict[str, Any]:
        self.traffic.save(clock.now_ns())
        answer = self.client.get("/v1/protocols", headers={"Authorization": f"Bearer of-{tenant}"})
        return {each["name"]: each for each in answer.json["items"]}


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.traffic.close()
    made.world.close()


def test_each_protocol_is_there_before_anybody_spoke(scene: Scene) -> None:
    shown = scene.shown("acme")

    assert list(shown)[: len(BUILT_IN)] == [each.name for each in BUILT_IN]
    assert shown["ruuvi"] == {
        "name": "ruuvi", "service": "ruuvi", "state": "idle", "started": None, "media_types": [], "paths": [],
        "topics": ["ruuvi/#"], "last_heard": None, "rate_s": 0.0, "accepted": 0, "quarantined": 0, "refused": 0,
        "waiting": {}, "last_bad": None,
    }  # fmt: skip


def test_readings_and_faults_of_both_transports_are_counted(scene: Scene) -> None:
    scene.post("acme-1", "json", b'[{"a":1},{"a":2},{}]')
    scene.say("acme-1", "json", b'{"a":1}')
    scene.say("acme-1", "json", b'{"a":')
    scene.say("acme-1", "cbor", b"\xff")

    shown = scene.shown("acme")

    json = shown["json"]
    assert (json["accepted"], json["quarantined"], json["waiting"]) == (3, 2, {"bad_syntax": 1, "no_values": 1})
    assert (json["last_bad"]["code"], json["last_bad"]["device"]) == ("bad_syntax", "acme-1")
    assert json["rate_s"] > 0
    assert shown["cbor"]["waiting"] == {"bad_syntax": 1}
    assert shown["line"]["last_heard"] is None


def test_nothing_of_another_tenant_is_told(scene: Scene) -> None:
    before = scene.shown("acme")
    for protocol, content in (("json", b'{"a":1}'), ("json", b"{"), ("line", b"a b=1")):
        scene.post("other-1", protocol, content)
        scene.say("other-1", protocol, content)

    assert scene.shown("acme") == before
    assert scene.shown("other")["json"]["waiting"] == {"bad_syntax": 2}
