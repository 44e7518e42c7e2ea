"""Commands for LoRaWAN devices: worded for their network server, encoded by their codec, ended by its events."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ingest.codecs import Codecs
from ingest.courier import Courier
from ingest.division import Division
from ingest.downlinks import Downlinks
from ingest.framing import Batch, Delivery
from ingest.intake import Intake
from ingest.ports import Ports
from ingest.protocols import PROTOCOLS
from ingest.service import IngestService
from tests.ingest.intake_support import World
from tests.ingest.lorawan.test_decoders import RECEIVED_NS
from wire import clock
from wire.devices import Codec

EUI = "a840410001810001"
AT = f"application/66666666-7777-4888-8999-aaaaaaaaaaaa/device/{EUI}"
TTS_AT = "v3/app1@tenant/devices/dev1"
ENCODER = """
function decodeUplink(input) { return {data: {}}; }
function encodeDownlink(input) {
  if (input.data.open === undefined) { return {errors: ["open is missing"]}; }
  return {bytes: [input.data.open ? 1 : 0, 300 - 100], fPort: 7};
}
"""


class Server:
    """A network server whose device has commands, the registry that gives them, and the courier between them."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder, {name: PROTOCOLS[name] for name in ("chirpstack", "tts")})
        self.world.registry.add("lns", gateway=True)
        for device, name in ((EUI, f"lora:{EUI}"), ("dev1", "lora:app1/dev1")):
            self.world.registry.add(device, parent="lns")
            self.world.registry.name(name, device, "lns")
        self.codec: Codec | None = None
        self.commands: list[dict[str, Any]] = []
        self.reports: list[dict[str, Any]] = []
        self.folder = folder
        self.start()

    def start(self) -> None:
        self.downlinks = Downlinks(self.folder / "lorawan.db", self.world.codecs, lambda _device: self.codec)
        ports = self.world.ports
        intake = Intake(
            self.world.field_types, Division(self.world.gate, ports.rates), self.world.codecs, self.downlinks
        )
        ports = Ports(self.world.gate, intake, ports.commit, ports.quarantine, ports.reports, ports.rates)
        self.service = IngestService(ports, self.world.service.protocols)
        self.courier = Courier(self, "lorawan", self.downlinks, self.downlinks.hold)

    def close(self) -> None:
        self.downlinks.close()
        self.world.close()

    def call(self, _method: str, path: str, body: Any = None, *, token: str | None = None) -> Any:
        if path.endswith(":claim"):
            found, self.commands = self.commands, []
            return {"commands": found}
        self.reports += body["reports"]
        return {"unknown": []}

    def say(self, event: str, body: dict[str, Any], at: str = AT) -> None:
        is_tts = at.startswith("v3/")
        ids = {"device_id": "dev1", "application_ids": {"application_id": "app1"}}
        whose = {"end_device_ids": ids} if is_tts else {"deviceInfo": {"devEui": EUI}}
        topic = f"{at}/{event}" if is_tts else f"{at}/event/{event}"
        content = json.dumps(whose | body).encode()
        protocol = "tts" if is_tts else "chirpstack"
        self.service.accept_batch(Batch("b", [Delivery("lns", topic, content, RECEIVED_NS, 1, protocol=protocol)]))

    def order(self, params: Any, name: str = "downlink", *, number: int = 1, device: str = EUI) -> str:
        id_ = f"c{number:024x}"
        known = f"lora:{EUI}" if device == EUI else "lora:app1/dev1"
        deadline = clock.format_ns(clock.now_ns() + 60 * clock.NS_PER_S)
        made = {"id": id_, "device": device, "tenant": "default", "gateway": "lns", "names": ["tb:x", known]}
        self.commands.append(made | {"name": name, "params": params, "attempt": 1, "deadline": deadline})
        return id_

    def carry(self) -> list[dict[str, Any]]:
        before = len(self.reports)
        self.courier.claim(0)
        self.courier.word()
        return self.reports[before:]

    def told(self) -> tuple[str, dict[str, Any]]:
        [report] = self.carry()
        assert "publish" in report, report
        return report["publish"]["topic"], json.loads(b64decode(report["publish"]["payload"]))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    yield made
    made.close()


@pytest.fixture
def heard(server: Server) -> Server:
    """A server that spoke of both devices."""
    server.say("up", {"data": "AA=="})
    server.say("up", {"uplink_message": {"frm_payload": "AA=="}}, TTS_AT)
    return server


def test_chirpstack_is_told_bytes_for_its_queue(heard: Server) -> None:
    heard.order({"f_port": 5, "confirmed": True, "data": "AQL/"})

    topic, told = heard.told()

    assert topic == f"{AT}/command/down"
    item = told.pop("id")
    assert told == {"devEui": EUI, "confirmed": True, "fPort": 5, "data": "AQL/"}
    assert item == "00000000-0000-0000-0000-000100000001"
    assert heard.reports[-1]["publish"]["qos"] == 1
    assert 55 < heard.reports[-1]["retry_s"] <= 60


def test_things_stack_is_told_bytes_for_its_queue(heard: Server) -> None:
    id_ = heard.order({"data": "AQL/"}, device="dev1")

    topic, told = heard.told()

    assert topic == f"{TTS_AT}/down/push"
    mark = f"headwater:{id_}:0"
    one = {"f_port": 1, "confirmed": False, "priority": "NORMAL", "frm_payload": "AQL/", "correlation_ids": [mark]}
    assert told == {"downlinks": [one]}


def test_object_is_encoded_by_the_codec_of_the_type(heard: Server) -> None:
    heard.codec = Codec(language="javascript", text=ENCODER)
    heard.order({"f_port": 5, "object": {"open": True}})

    _, told = heard.told()

    assert (b64decode(told["data"]), told["fPort"]) == (b"\x01\xc8", 7)


@pytest.mark.parametrize("text", ["", "function Decoder() { return {}; }"])
def test_object_is_left_to_the_servers_codec_where_the_type_has_none(heard: Server, text: str) -> None:
    heard.codec = Codec(language="javascript", text=text) if text else None
    heard.order({"object": {"open": True}})
    heard.order({"object": {"open": True}}, number=2, device="dev1")

    chirpstack, tts = (json.loads(b64decode(each["publish"]["payload"])) for each in heard.carry())

    assert chirpstack["object"] == tts["downlinks"][0]["decoded_payload"] == {"open": True}
    assert "data" not in chirpstack


@pytest.mark.parametrize(
    ("params", "name", "said"),
    [
        ({"data": "AA=="}, "reboot", "unsupported"),
        ([], "downlink", "bad_structure"),
        ({"data": "AA==", "extra": 1}, "downlink", "bad_structure"),
        ({"data": "AA==", "object": {}}, "downlink", "bad_structure"),
        ({}, "downlink", "bad_structure"),
        ({"object": [1]}, "downlink", "bad_structure"),
        ({"data": "!"}, "downlink", "bad_value"),
        ({"data": 7}, "downlink", "bad_value"),
        ({"data": "AA==", "f_port": 0}, "downlink", "bad_value"),
        ({"data": "AA==", "f_port": True}, "downlink", "bad_value"),
        ({"data": "AA==", "confirmed": 1}, "downlink", "bad_value"),
        ({"data": b64encode(bytes(243)).decode()}, "downlink", "too_large"),
        ({"object": {}}, "downlink", "codec: open is missing"),
    ],
)
def test_command_that_no_device_can_be_sent_fails_with_the_reason(
    heard: Server, params: Any, name: str, said: str
) -> None:
    heard.codec = Codec(language="javascript", text=ENCODER)
    id_ = heard.order(params, name)

    [report] = heard.carry()

    assert (report["id"], report["device"], report["state"]) == (id_, EUI, "failed")
    assert said in report["error"]


def test_command_waits_until_the_server_spoke_of_its_device(server: Server) -> None:
    server.order({"data": "AA=="})
    before = server.carry()
    server.say("join", {})

    assert before == []
    assert server.told()[0] == f"{AT}/command/down"


def test_place_of_a_device_outlives_a_restart(heard: Server) -> None:
    heard.carry()
    heard.downlinks.close()
    heard.start()
    heard.order({"data": "AA=="})

    assert heard.told()[0] == f"{AT}/command/down"


@pytest.mark.parametrize(
    ("is_confirmed", "event", "more", "state"),
    [
        (True, "ack", {"acknowledged": True}, "succeeded"),
        (True, "ack", {}, "failed"),
        (True, "txack", {}, None),
        (False, "txack", {}, "succeeded"),
    ],
)
def test_events_of_chirpstack_end_a_command(
    heard: Server, is_confirmed: bool, event: str, more: dict[str, Any], state: str | None
) -> None:
    id_ = heard.order({"data": "AA==", "confirmed": is_confirmed})
    item = heard.told()[1]["id"]

    heard.say(event, {"queueItemId": item} | more)

    assert [(each["id"], each["device"], each["state"]) for each in heard.carry()] == (
        [(id_, EUI, state)] if state else []
    )
    assert heard.carry() == []  # told once
    if state == "succeeded":
        assert heard.reports[-1]["result"] == {"confirmed": is_confirmed}


@pytest.mark.parametrize(
    ("is_confirmed", "event", "state"),
    [
        (True, "downlink_queued", None),
        (True, "downlink_sent", None),
        (True, "downlink_nack", None),
        (True, "downlink_ack", "succeeded"),
        (False, "downlink_sent", "succeeded"),
        (False, "downlink_failed", "failed"),
    ],
)
def test_events_of_the_things_stack_end_a_command(
    heard: Server, is_confirmed: bool, event: str, state: str | None
) -> None:
    id_ = heard.order({"data": "AA==", "confirmed": is_confirmed}, device="dev1")
    marks = {"correlation_ids": ["as:downlink:01H", *heard.told()[1]["downlinks"][0]["correlation_ids"]]}
    body: dict[str, Any] = {event: marks}
    if event == "downlink_failed":
        body = {event: {"downlink": marks, "error": {"message_format": "payload is too long"}}}

    heard.say("down/" + event.removeprefix("downlink_"), body, TTS_AT)

    assert [(each["id"], each["device"], each["state"]) for each in heard.carry()] == (
        [(id_, "dev1", state)] if state else []
    )
    if state == "failed":
        assert heard.reports[-1]["error"] == "payload is too long"


def test_answer_that_was_not_told_outlives_a_restart(heard: Server) -> None:
    id_ = heard.order({"data": "AA=="})
    item = heard.told()[1]["id"]
    heard.say("txack", {"queueItemId": item})
    heard.downlinks.close()
    heard.start()

    assert [each["id"] for each in heard.carry()] == [id_]


@pytest.mark.parametrize("item", [None, "", "x", 7, "3f2504e0-4f89-41d3-9a0c-0305e82c3301"])
def test_downlinks_of_others_are_passed_over(heard: Server, item: Any) -> None:
    heard.say("txack", {"queueItemId": item})
    heard.say("ack", {"queueItemId": item, "acknowledged": True})
    heard.say("down/sent", {"downlink_sent": {"correlation_ids": [item, "headwater:c1:0"]}}, TTS_AT)

    assert heard.carry() == []


def test_codecs_of_the_older_forms_encode_too() -> None:
    codecs = Codecs()
    try:
        for text in ("function Encode(p, d, v) { return [p, d.a]; }", "function Encoder(d, p) { return [p, d.a]; }"):
            assert codecs.encode(Codec(language="javascript", text=text), {"a": 9}, 3) == (b"\x03\x09", 3)
    finally:
        codecs.close()
