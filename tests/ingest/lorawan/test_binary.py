"""ChirpStack's events in Protocol Buffers: each kind as its JSON would have been, and commands in that form."""

from __future__ import annotations

import json
from base64 import b64decode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.protocols.base import Context, Decoded
from ingest.protocols.lorawan import binary
from ingest.protocols.lorawan.decoder import decode_chirpstack
from tests.ingest.intake_support import SHARED
from tests.ingest.lorawan.test_decoders import EUI, RECEIVED_NS
from wire import clock

CLASSES = binary._CLASSES
TIME = "2026-03-04T05:06:07.123456789Z"
INFO = {"dev_eui": EUI}


def seconds() -> dict[str, int]:
    whole, nanos = divmod(clock.parse_rfc3339(TIME)[0], clock.NS_PER_S)
    return {"seconds": whole, "nanos": nanos}


def made(name: str, **members: Any) -> bytes:
    content: bytes = CLASSES[name](**{"device_info": INFO, "time": seconds()} | members).SerializeToString()
    return content


def of(members: dict[str, Any]) -> Any:
    struct = CLASSES["Struct"]()
    binary._fill(struct, members)
    return struct


def decode(kind: str, content: bytes) -> Decoded:
    topic = f"application/a/device/{EUI}/event/{kind}"
    return decode_chirpstack(content, Context(RECEIVED_NS, topic=topic, transport="mqtt", is_gateway=True))


def as_json(kind: str, value: dict[str, Any]) -> Decoded:
    return decode(kind, json.dumps({"deviceInfo": {"devEui": EUI}, "time": TIME} | value).encode())


def test_uplink_is_read_as_its_json() -> None:
    heard = [{"rssi": -101, "snr": -3.5}, {"rssi": -88, "snr": 7.25, "gw_time": seconds()}]
    content = made(
        "Up", dr=5, f_cnt=4711, f_port=2, data=b"\x01\x02", rx_info=heard,
        object=of({"level": {"m": 3.25, "raw": [812, True, None, "x"]}, "ok": False}),
    )  # fmt: skip
    value = {
        "dr": 5, "fCnt": 4711, "fPort": 2, "data": "AQI=", "rxInfo": [{"rssi": -101, "snr": -3.5}, {"rssi": -88, "snr": 7.25}],
        "object": {"level": {"m": 3.25, "raw": [812, True, None, "x"]}, "ok": False},
    }  # fmt: skip

    assert decode("up", content).records == as_json("up", value).records
    [record] = decode("up", content).records
    assert record.time_ns == clock.parse_rfc3339(TIME)[0]
    assert record.fields["level.raw.0"] == 812.0


def test_uplink_of_zeros_without_a_codec_keeps_its_bytes() -> None:
    [record] = decode("up", made("Up", data=b"\xff")).records

    assert record.fields == {"lora.data": "/w==", "lora.dr": 0, "lora.f_cnt": 0, "lora.f_port": 0}
    assert record.payload is not None
    assert record.payload.content == b"\xff"


@pytest.mark.parametrize(
    ("kind", "name", "members", "value"),
    [
        ("status", "Status", {"margin": 7, "battery_level": 61.5}, {"margin": 7, "batteryLevel": 61.5}),
        ("status", "Status", {"margin": 7, "battery_level_unavailable": True}, {"margin": 7}),
        ("status", "Status", {"external_power_source": True}, {"margin": 0, "externalPowerSource": True}),
        (
            "location",
            "Located",
            {"location": {"latitude": 48.1, "longitude": 11.5}},
            {"location": {"latitude": 48.1, "longitude": 11.5, "altitude": 0, "accuracy": 0}},
        ),
        ("location", "Located", {}, {}),
        ("join", "Other", {}, {}),
        ("integration", "Other", {}, {}),
    ],
)
def test_other_events_are_read_as_their_json(
    kind: str, name: str, members: dict[str, Any], value: dict[str, Any]
) -> None:
    content = made(name, **members)

    found, expected = decode(kind, content), as_json(kind, value)

    assert (found.records, found.is_event, found.faults) == (expected.records, expected.is_event, expected.faults)


def test_log_names_its_device_elsewhere_and_is_an_event() -> None:
    content = CLASSES["Log"](device_info=INFO).SerializeToString()

    assert decode("log", content).is_event


@pytest.mark.parametrize(("kind", "name"), [("ack", "Ack"), ("txack", "TxAck")])
def test_acknowledgement_ends_a_command(kind: str, name: str) -> None:
    item = f"00000000-0000-0000-0000-00010000000{int(kind == 'ack')}"
    more = {"acknowledged": True} if kind == "ack" else {}

    [answer] = decode(kind, made(name, queue_item_id=item, **more)).answers

    assert (answer.id, answer.device, answer.error) == (f"c{1:024x}", f"lora:{EUI}", None)


def test_server_that_speaks_protocol_buffers_is_answered_so() -> None:
    [place] = decode("up", made("Up", data=b"1")).places.values()
    assert place == f"application/a/device/{EUI}#binary"
    told = {"id": "i", "devEui": EUI, "confirmed": True, "fPort": 5}

    raw = CLASSES["Command"].FromString(binary.dump_command(told | {"data": "AQI="}))
    members = {"open": True, "list": [1, "x", None, {"a": 2.5}]}
    encoded = CLASSES["Command"].FromString(binary.dump_command(told | {"object": members}))

    assert (raw.id, raw.dev_eui, raw.confirmed, raw.f_port, raw.data) == ("i", EUI, True, 5, b"\x01\x02")
    assert binary._struct(encoded.object) == members


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"\x0a\x24cut", "bad_syntax"),
        (b"\x01", "bad_syntax"),
        (made("Up", device_info={"dev_eui": "none"}), "bad_structure"),
        (made("Up", device_info={"dev_eui": "a840410001810002"}), "identity_mismatch"),
        (made("Up", time={"seconds": 2**62}), "bad_time"),
        (made("Up", time={"seconds": 1, "nanos": -1}), "bad_time"),
        (
            made("Up", object={"fields": [{"key": "a", "value": {"string_value": "x"}}]}).replace(b"x", b"\xff"),
            "bad_encoding",
        ),
    ],
)
def test_what_is_none_of_its_events_is_a_fault(content: bytes, code: str) -> None:
    assert [fault.code for fault in decode("up", content).faults] == [code]


def test_object_that_is_too_deep_is_a_fault() -> None:
    members: dict[str, Any] = {"a": 1}
    for _ in range(20):
        members = {"a": members}

    assert [fault.code for fault in decode("up", made("Up", object=of(members))).faults] == ["too_deep"]


@given(st.binary(max_size=80))
def test_any_bytes_are_decoded_or_a_fault(content: bytes) -> None:
    decode("up", content)


def test_shared_uplink_in_both_forms() -> None:
    folder = SHARED / "chirpstack_v4/up_two_gateways_with_object"
    value = json.loads((folder / "input.json").read_text())
    rx = [{"rssi": each["rssi"], "snr": each["snr"]} for each in value["rxInfo"]]
    content = made(
        "Up", dr=value["dr"], f_cnt=value["fCnt"], f_port=value["fPort"], data=b64decode(value["data"]), rx_info=rx,
        object=of(value["object"]),
    )  # fmt: skip

    expected = decode("up", (folder / "input.json").read_bytes().replace(b"a84041000181c061", EUI.encode()))

    assert decode("up", content).records == expected.records
