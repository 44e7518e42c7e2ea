"""Codecs of device types on the bytes that a network server carries, through the ingestion service."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ingest.codecs import STRIKES
from ingest.framing import Batch, Delivery, Verdict
from ingest.protocols import PROTOCOLS
from ingest.quarantine import Selection
from tests.ingest.intake_support import World
from tests.ingest.lorawan.test_decoders import RECEIVED_NS
from wire.points import UNCERTAIN

EUIS = ("a840410001810001", "a840410001810002")
TS013 = """
function decodeUplink(input) {
  if (input.bytes.length < 3) { return {errors: ["too short"]}; }
  return {data: {temp: (input.bytes[0] << 8 | input.bytes[1]) / 100, deep: {port: input.fPort}},
          warnings: input.bytes[2] ? [] : ["empty battery"]};
}
"""
COUNTER = "let n = 0; function decodeUplink(input) { n += 1; return {data: {n: n}}; }"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, {name: PROTOCOLS[name] for name in ("chirpstack", "tts")})
    made.registry.add("lns", gateway=True)
    for place, eui in enumerate(EUIS):
        made.registry.add(eui, parent="lns", type=f"kind{place}")
        made.registry.name(f"lora:{eui}", eui, "lns")
    yield made
    made.close()


def set_codec(world: World, text: str = "", place: int = 0, **more: Any) -> None:
    codec = {"language": "javascript", "text": text} | more
    world.registry.put_type(name=f"kind{place}", version=1, codec=codec)


def up(payload: str, eui: str = EUIS[0], port: int = 2, **members: Any) -> Delivery:
    event = {"deviceInfo": {"devEui": eui}, "fPort": port, "data": b64encode(bytes.fromhex(payload)).decode()} | members
    topic = f"application/a/device/{eui}/event/up"
    return Delivery("lns", topic, json.dumps(event).encode(), RECEIVED_NS, protocol="chirpstack")


def send(world: World, *deliveries: Delivery) -> Verdict:
    return world.service.accept_batch(Batch("b", list(deliveries)))


def fields(world: World, eui: str = EUIS[0]) -> list[dict[str, Any]]:
    found = [reading.fields for reading in world.commit.readings if reading.device == eui]
    return [{name: value for name, value in each.items() if name not in ("lora.dr", "lora.f_cnt")} for each in found]


def waiting(world: World) -> list[tuple[str, str, str]]:
    return [(each.device, each.code, each.detail) for each in world.quarantine.page(Selection(state="waiting"))]


@pytest.mark.parametrize(
    "text",
    [
        TS013,
        "const decodeUplink = ({bytes, fPort}) => ({data: {temp: (bytes[0] * 256 + bytes[1]) / 100, deep: {port: fPort}}})",
        "function Decode(fPort, bytes, variables) { return {temp: (bytes[0] << 8 | bytes[1]) / 100, deep: {port: fPort}}; }",
        "function Decoder(bytes, port) { return {temp: (bytes[0] << 8 | bytes[1]) / 100, deep: {port: port}}; }",
    ],
    ids=["TS013", "arrow", "ChirpStack v3", "The Things Network v2"],
)
def test_each_public_form_of_decoder_gives_fields_in_place_of_bytes(world: World, text: str) -> None:
    set_codec(world, text)

    send(world, up("08fc01"))

    assert fields(world) == [{"temp": 23.0, "deep.port": 2.0, "lora.f_port": 2}]
    assert waiting(world) == []


def test_warning_makes_a_reading_uncertain_and_error_quarantines_it_with_the_scripts_words(world: World) -> None:
    set_codec(world, TS013)

    verdict = send(world, up("08fc00"), up("08"), up("08fc01"))

    assert [reading.flags & UNCERTAIN for reading in world.commit.readings] == [UNCERTAIN, 0]
    assert waiting(world) == [(EUIS[0], "codec", "codec: too short")]
    assert verdict.accepted == 2


def test_mended_codec_decodes_what_waited(world: World) -> None:
    set_codec(world, "function decodeUplink(input) { return {data: inptu.bytes}; }")
    send(world, up("08fc01"))
    [(_, code, detail)] = waiting(world)
    set_codec(world, TS013)
    world.gate.poll()

    outcome = world.replayer.replay_selection(Selection())

    assert (code, "inptu is not defined" in detail) == ("codec", True)
    assert (outcome.replayed, outcome.failed) == (1, [])
    assert fields(world)[0]["temp"] == 23.0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("function decodeUplink() { for (;;); }", "more than 50 ms"),
        ("function decodeUplink() { const a = []; for (;;) a.push(new Array(1e4).fill(1)); }", "of memory"),
        ("function decodeUplink() { return decodeUplink(); }", "call stack"),
        ("function decodeUplink() { return {data: {a: 'x'.repeat(1e6)}}; }", "characters"),
        ("function decodeUplink() { return 7; }", "no object"),
        (r"function decodeUplink() { return {errors: ['odd \ud800']}; }", "odd ?"),
        ("function decodeUplink() { return {errors: ['x'.repeat(60000)]}; }", "codec: " + "x" * 256),
    ],
)
def test_hostile_codec_costs_exactly_its_own_message(world: World, text: str, said: str) -> None:
    set_codec(world, text)
    set_codec(world, TS013, place=1)

    verdict = send(world, up("08fc01", EUIS[1]), up("08fc01"), up("08fc02", EUIS[1]))

    [(device, code, detail)] = waiting(world)
    assert (device, code, said in detail) == (EUIS[0], "codec", True)
    assert verdict.accepted == len(fields(world, EUIS[1])) == 2


def test_codec_that_never_ends_rests_and_others_go_on(world: World) -> None:
    set_codec(world, "function decodeUplink() { for (;;); }", time_limit_ms=5)
    set_codec(world, TS013, place=1)

    send(world, *[up(f"08fc{count:02x}") for count in range(1, STRIKES + 3)], up("08fc01", EUIS[1]))

    details = [detail for _, _, detail in waiting(world)]
    assert len(details) == STRIKES + 2
    assert sum("rests" in detail for detail in details) == 2
    assert len(fields(world, EUIS[1])) == 1


def test_codec_that_was_out_of_time_leaves_the_process_of_the_others(world: World) -> None:
    text = (
        "function decodeUplink(input) { if (input.bytes[0] === 1) { for (;;); } return {data: {v: input.bytes[0]}}; }"
    )
    set_codec(world, text, time_limit_ms=5)
    used: list[tuple[bool, bool]] = []

    for payload in ("00", "01", "02", "03"):
        before = runs_of(world)
        send(world, up(payload))
        used.append(tuple(now > then for now, then in zip(runs_of(world), before, strict=True)))  # type: ignore[arg-type]

    assert used == [(True, False), (True, False), (False, True), (True, False)]


def test_codec_that_rests_leaves_the_same_script_of_others_alone(world: World) -> None:
    text = "function decodeUplink(input) { if (input.bytes[0]) { for (;;); } return {data: {v: 1}}; }"
    set_codec(world, text, time_limit_ms=5)
    set_codec(world, text, place=1, time_limit_ms=5)

    send(world, *[up("01")] * STRIKES, up("00"), up("00", EUIS[1]))

    assert (fields(world), len(fields(world, EUIS[1]))) == ([], 1)


def runs_of(world: World) -> tuple[int, int]:
    """Give how many runs either process was asked for."""
    return world.codecs._scripts.runs, world.codecs._struck_scripts.runs


def test_batch_of_slow_codecs_is_answered_in_time_and_the_rest_is_sent_again(world: World) -> None:
    slow = "const end = Date.now() + 900; function decodeUplink() { while (Date.now() < end); return {data: {v: 1}}; }"
    set_codec(world, slow, time_limit_ms=1_000)

    verdict = send(world, *[up(f"{count:02x}") for count in range(8)])

    deferred = [ending for ending in verdict.endings if ending.end == "deferred"]
    assert deferred
    assert verdict.accepted + len(verdict.endings) == 8
    assert [ending.index for ending in deferred] == list(range(8 - len(deferred), 8))


def test_slow_codecs_of_one_tenant_leave_others_their_time(world: World) -> None:
    slow = "const end = Date.now() + 300; function decodeUplink() { while (Date.now() < end); return {data: {v: 1}}; }"
    set_codec(world, slow, time_limit_ms=1_000)
    theirs = "b840410001810001"
    world.registry.add("theirs", gateway=True, tenant="b")
    world.registry.add(theirs, parent="theirs", tenant="b")
    world.registry.name(f"lora:{theirs}", theirs, "theirs")

    other = msgspec.structs.replace(up("01", theirs, object={"t": 1}), device="theirs")
    verdict = send(world, *[up(f"{count:02x}") for count in range(9)], other)

    assert len(fields(world, theirs)) == 1
    assert {ending.end for ending in verdict.endings} == {"deferred"}


def test_messages_share_nothing(world: World) -> None:
    set_codec(world, COUNTER)
    set_codec(world, COUNTER, place=1)

    send(world, up("01"), up("02"), up("01", EUIS[1]))

    assert [each["n"] for eui in EUIS for each in fields(world, eui)] == [1.0, 1.0, 1.0]


def test_what_the_server_decoded_goes_before_the_codec(world: World) -> None:
    set_codec(world, TS013)

    send(world, up("08fc01", object={"temp": 5}))

    assert fields(world) == [{"temp": 5.0, "lora.f_port": 2}]


def test_codec_of_named_ports_leaves_other_bytes_alone(world: World) -> None:
    set_codec(world, TS013, ports=[2])

    send(world, up("08fc01"), up("08fc01", port=3))

    assert [sorted(each) for each in fields(world)] == [
        ["deep.port", "lora.f_port", "temp"],
        ["lora.data", "lora.f_port"],
    ]


def test_cayenne_payload_is_decoded_and_its_unknown_rest_is_kept_as_bytes(world: World) -> None:
    set_codec(world, language="cayenne_lpp")

    send(world, up("03670110"), up("03670110" + "07fa01"), up("07fa01"))

    whole, part = fields(world)
    assert whole == {"temperature_3": 27.2, "lora.f_port": 2}
    assert part == {"temperature_3": 27.2, "lora.f_port": 2, "lora.data": "A2cBEAf6AQ=="}
    assert world.commit.readings[1].flags & UNCERTAIN
    assert [(code, "type 250" in detail) for _, code, detail in waiting(world)] == [("codec", True)]


def test_type_judges_what_its_codec_gives(world: World) -> None:
    codec = {"language": "javascript", "text": TS013}
    world.registry.put_type(name="kind0", version=1, codec=codec, fields={"temp": {"max": 20}}, unknown_fields="drop")

    send(world, up("08fc01"), up("03e801"))

    assert [each.get("temp") for each in fields(world)] == [10.0]
    assert [(code, detail) for _, code, detail in waiting(world)] == [("out_of_range", "temp: 23.0 is above 20")]


def test_things_stack_carries_bytes_as_well(world: World) -> None:
    set_codec(world, TS013)
    event = {
        "end_device_ids": {"device_id": "d", "dev_eui": EUIS[0].upper(), "application_ids": {"application_id": "a"}},
        "uplink_message": {"f_port": 2, "frm_payload": b64encode(bytes.fromhex("08fc01")).decode()},
    }

    send(world, Delivery("lns", "v3/a@t/devices/d/up", json.dumps(event).encode(), RECEIVED_NS, protocol="tts"))

    assert fields(world)[0]["temp"] == 23.0
