"""Events of LoRaWAN network servers: the shared cases, and what no case shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ingest.protocols.base import Context, Decoded
from ingest.protocols.lorawan.decoder import decode_chirpstack, decode_tts
from tests.ingest.intake_support import CASES, SHARED
from wire import clock
from wire.points import SIMULATED, UNCERTAIN

RECEIVED_NS = clock.parse_rfc3339("2026-03-05T00:00:00Z")[0]
DECODERS = {"chirpstack_v4": decode_chirpstack, "tts_v3": decode_tts}
FOLDERS = (CASES / "lorawan", *(SHARED / name for name in DECODERS))
ALL = [case for folder in FOLDERS for case in sorted(folder.glob("*"))]
EUI = "a84041000181c061"
UP = {
    "deviceInfo": {"devEui": EUI},
    "time": "2026-03-04T05:06:07Z",
    "fPort": 2,
    "object": {"level": 3.25},
    "rxInfo": [{"rssi": -101, "snr": -3.5}, {"rssi": -88, "snr": 7.25}],
}
TTS_UP = {
    "end_device_ids": {"device_id": "dev1", "application_ids": {"application_id": "app1"}},
    "received_at": "2026-03-04T05:06:08Z",
    "uplink_message": {"f_cnt": 1, "f_port": 2, "decoded_payload": {"level": 3.25}},
}


def sources(request: dict[str, Any]) -> list[str]:
    """Give what the decoder is told of each door: the topic, or the end of the path."""
    found = []
    for door in request.get("any_of") or [request]:
        if "mqtt" in door:
            found.append(door["mqtt"]["topic"])
        else:
            found.append(door["http"]["path"].rpartition("=" if "=" in door["http"]["path"] else "tts/")[2])
    return found


def decode(name: str, value: Any, source: str) -> Decoded:
    return DECODERS[name](json.dumps(value).encode(), Context(RECEIVED_NS, topic=source))


def up(source: str = "up", **members: Any) -> Decoded:
    return decode("chirpstack_v4", UP | members, source)


def tts_up(source: str = "up", top: dict[str, Any] | None = None, **members: Any) -> Decoded:
    return decode("tts_v3", TTS_UP | (top or {}) | {"uplink_message": TTS_UP["uplink_message"] | members}, source)


@pytest.mark.parametrize("folder", ALL, ids=[f"{folder.parent.name}/{folder.name}" for folder in ALL])
def test_shared_case(folder: Path) -> None:
    names = ("expected.json", "mapped.json")
    expected = json.loads(next(folder / name for name in names if (folder / name).exists()).read_text())
    request = (folder / "request.json").read_text()
    is_tts = "/tts/" in request or "v3/" in request
    for source in sources(json.loads(request)):
        decoded = DECODERS["tts_v3" if is_tts else "chirpstack_v4"](
            next(folder.glob("input.*")).read_bytes(), Context(RECEIVED_NS, topic=source)
        )
        assert [fault.code for fault in decoded.faults] == [each["code"] for each in expected.get("quarantined", [])]
        assert decoded.is_event == (expected["outcome"] == "event")
        assert len(decoded.records) == len(expected["points"])
        for record, point in zip(decoded.records, expected["points"], strict=True):
            assert (record.device, record.measurement) == (point["device"], point["measurement"])
            assert record.time_ns == (clock.parse_rfc3339(point["time"])[0] if point["time"] != "received" else None)
            kept = {name: record.fields.get(name) for name in point["fields"]}
            assert {name: (type(value), value) for name, value in kept.items()} == {
                name: (type(value), value) for name, value in point["fields"].items()
            }


def test_radio_is_of_the_gateway_that_heard_best() -> None:
    assert up().records[0].fields == {
        "level": 3.25, "lora.dr": 0, "lora.f_cnt": 0, "lora.f_port": 2, "lora.rssi": -88, "lora.snr": 7.25
    }  # fmt: skip


@pytest.mark.parametrize("heard", [None, [], "x", [1], [{}], [{"snr": "x", "rssi": 1.5}]])
def test_radio_that_is_not_there_costs_nothing(heard: Any) -> None:
    assert up(rxInfo=heard).records[0].fields["level"] == 3.25


def test_bytes_nobody_decoded_are_kept() -> None:
    assert up(object={}, data="y/YL").records[0].fields["lora.data"] == "y/YL"
    assert tts_up(decoded_payload=None, frm_payload="gkHe").records[0].fields["lora.data"] == "gkHe"


def test_what_a_device_calls_like_its_radio_gives_way() -> None:
    assert up(object={"lora": {"rssi": 1.0}}).records[0].fields["lora.rssi"] == -88


@pytest.mark.parametrize(
    ("time", "gateway_time", "expected"),
    [
        ("2026-03-04T05:06:07.123456789+00:00", None, "2026-03-04T05:06:07.123456789Z"),
        (None, "2026-03-04T05:06:06Z", "2026-03-04T05:06:06Z"),
        ("", "2026-03-04T05:06:06Z", "2026-03-04T05:06:06Z"),
        (None, None, None),
    ],
)
def test_time_is_the_servers_then_the_gateways(time: Any, gateway_time: Any, expected: str | None) -> None:
    found = up(time=time, rxInfo=[{"gwTime": gateway_time}]).records[0].time_ns

    assert found == (None if expected is None else clock.parse_rfc3339(expected)[0])


def test_a_status_tells_margin_and_battery() -> None:
    base = {"deviceInfo": {"devEui": EUI.upper()}}
    assert decode("chirpstack_v4", base | {"margin": 7, "batteryLevel": 61}, "status").records[0].fields == {
        "lora.margin": 7, "lora.battery": 61.0
    }  # fmt: skip
    assert decode("chirpstack_v4", base | {"externalPowerSource": True}, "status").records[0].fields == {
        "lora.margin": 0, "lora.external_power": True
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "source", "code"),
    [
        ("chirpstack_v4", {}, "up", "bad_structure"),
        ("chirpstack_v4", [1], "up", "bad_structure"),
        ("chirpstack_v4", UP | {"deviceInfo": {"devEui": "xyz"}}, "up", "bad_structure"),
        ("chirpstack_v4", UP | {"deviceInfo": []}, "up", "bad_structure"),
        ("chirpstack_v4", UP | {"fCnt": -1}, "up", "bad_value"),
        ("chirpstack_v4", UP | {"fCnt": True}, "up", "bad_value"),
        ("chirpstack_v4", UP | {"time": "noon"}, "up", "bad_time"),
        ("chirpstack_v4", UP, "started", "unsupported"),
        ("chirpstack_v4", UP, "application/a/device/ffffffffffffffff/event/up", "identity_mismatch"),
        ("chirpstack_v4", UP | {"location": {"latitude": 1.0}}, "location", "no_values"),
        ("tts_v3", {}, "up", "bad_structure"),
        ("tts_v3", {"end_device_ids": TTS_UP["end_device_ids"]}, "up", "unsupported"),
        ("tts_v3", TTS_UP | {"end_device_ids": {"device_id": "dev1"}}, "up", "bad_structure"),
    ],
)
def test_what_is_no_event_says_why(name: str, value: Any, source: str, code: str) -> None:
    decoded = decode(name, value, source)

    assert decoded.records == []
    assert code in [fault.code for fault in decoded.faults]


def test_a_comma_that_is_missing_is_bad_syntax() -> None:
    assert [fault.code for fault in decode_tts(b'{"a": 1 "b": 2}', Context(RECEIVED_NS)).faults] == ["bad_syntax"]


def test_locations_are_readings() -> None:
    place = {"latitude": 52.5, "longitude": 13.25, "source": "GPS"}
    solved = {"end_device_ids": TTS_UP["end_device_ids"], "location_solved": {"location": place}}
    for name, value in (("chirpstack_v4", UP | {"location": place}), ("tts_v3", solved)):
        assert decode(name, value, "location").records[0].fields == {
            "location.latitude": 52.5, "location.longitude": 13.25
        }  # fmt: skip


def test_flags_of_the_things_stack() -> None:
    assert tts_up(top={"simulated": True}).records[0].flags & SIMULATED
    assert tts_up(decoded_payload_warnings=["low"]).records[0].flags & UNCERTAIN
    assert tts_up().records[0].flags & (SIMULATED | UNCERTAIN) == 0


def test_a_device_without_eui_is_named_by_its_application() -> None:
    assert tts_up("v3/app1@tenant/devices/dev1/up").records[0].device == "lora:app1/dev1"


def test_one_bad_value_costs_itself_only() -> None:
    decoded = up(object={"a": 1.0, "b": 2**70})

    assert decoded.records[0].fields["a"] == 1.0
    assert [(fault.field, fault.code) for fault in decoded.faults] == [("b", "out_of_range")]
