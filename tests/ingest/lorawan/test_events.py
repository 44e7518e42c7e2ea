"""Events of a LoRaWAN network server through the ingestion service: its devices are the server's children."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from chassis import web
from chassis.services import Services
from chassis.tokens import PeerTokens
from ingest import api as device_api
from ingest.framing import Batch, Delivery
from ingest.protocols import PROTOCOLS
from tests.ingest.intake_support import SECRET, World
from tests.ingest.lorawan.test_decoders import EUI, RECEIVED_NS, TTS_UP, UP

TOPIC = f"application/a/device/{EUI}/event/up"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, {name: PROTOCOLS[name] for name in ("chirpstack", "tts")})
    made.registry.add("lns", gateway=True)
    made.registry.add("d1")
    yield made
    made.close()


@pytest.fixture
def client(world: World) -> FlaskClient:
    api = web.Api()
    device_api.add_routes(api, world.service, world.gate, world.reports)
    edge = web.Edge("ingest-lorawan", Services("", ""), PeerTokens(world.registry), dict[str, str])
    return web.create_app(edge, api, __name__).test_client()


def post(client: FlaskClient, path: str, body: Any, sender: str = "lns") -> Any:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client.post(path, data=content, headers={"Authorization": f"Bearer {sender}.{SECRET}"})


@pytest.mark.parametrize(
    ("path", "body", "device"),
    [("chirpstack?event=up", UP, EUI), ("chirpstack", UP, EUI), ("tts/up", TTS_UP, "app1.dev1")],
)
def test_an_uplink_is_a_reading_of_the_servers_child(
    client: FlaskClient, world: World, path: str, body: Any, device: str
) -> None:
    answered = post(client, f"/v1/telemetry/{path}", body)

    assert (answered.status_code, answered.json) == (202, {"accepted": 1, "quarantined": []})
    [reading] = world.commit.readings
    assert (reading.device, reading.fields["level"]) == (device, 3.25)


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("chirpstack?event=unheard", UP, "unsupported"),
        ("chirpstack?event=up", UP | {"fCnt": -1}, "bad_value"),
        ("tts/other", {"end_device_ids": TTS_UP["end_device_ids"]}, "unsupported"),
    ],
)
def test_an_event_that_cannot_be_taken_waits_and_is_no_error(
    client: FlaskClient, world: World, path: str, body: Any, code: str
) -> None:
    answered = post(client, f"/v1/telemetry/{path}", body)

    assert (answered.status_code, [each["code"] for each in answered.json["quarantined"]]) == (202, [code])
    assert world.quarantine.totals()["quarantined"] == 1


def test_a_device_that_the_rules_refuse_waits_too(client: FlaskClient, world: World) -> None:
    world.registry.rules = "child_refused"

    assert post(client, "/v1/telemetry/chirpstack?event=up", UP).status_code == 202
    assert world.quarantine.totals()["quarantined"] == 1


@pytest.mark.parametrize("path", ["chirpstack?event=join", "tts/join"])
def test_an_event_without_readings_is_no_reading_and_no_fault(client: FlaskClient, world: World, path: str) -> None:
    join = {"end_device_ids": TTS_UP["end_device_ids"], "join_accept": {}, "deviceInfo": {"devEui": EUI}}
    answered = post(client, f"/v1/telemetry/{path}", join)

    assert (answered.status_code, answered.json) == (202, {"accepted": 0, "quarantined": []})
    assert (world.commit.readings, world.quarantine.totals()["quarantined"]) == ([], 0)
    world.reports.send()
    device = EUI if "chirpstack" in path else "app1.dev1"
    assert world.registry.devices[device].parent == "lns"
    assert list(world.registry.presence) == [device]


def test_what_is_no_event_and_who_is_nobody_is_refused(client: FlaskClient) -> None:
    assert post(client, "/v1/telemetry/chirpstack?event=up", b'{"a": 1 "b"').status_code == 400
    assert post(client, "/v1/telemetry/tts/up", TTS_UP, "nobody").status_code == 401


def test_a_device_speaks_for_no_other(client: FlaskClient, world: World) -> None:
    answered = post(client, "/v1/telemetry/chirpstack?event=up", UP, "d1")

    assert [each["code"] for each in answered.json["quarantined"]] == ["identity_mismatch"]
    assert world.commit.readings == []


def test_events_over_mqtt_are_those_of_claimed_topics(world: World) -> None:
    sent = [
        Delivery("lns", TOPIC, json.dumps(UP).encode(), RECEIVED_NS, 7, protocol="chirpstack"),
        Delivery("lns", "v3/app1@t/devices/dev1/up", json.dumps(TTS_UP).encode(), RECEIVED_NS, 8, protocol="tts"),
        Delivery("lns", "v3/app1@t/devices/dev1/down/push", b'{"downlinks":[]}', RECEIVED_NS, 9, protocol="tts"),
    ]

    verdict = world.service.accept_batch(Batch("b", sent))

    assert verdict.endings == []
    assert [reading.device for reading in world.commit.readings] == [EUI, "app1.dev1"]
