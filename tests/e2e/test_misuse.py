"""Bad input through the public doors: the code of the contract, nothing lost, no 5xx, no process down."""

from __future__ import annotations

import gzip
import json
import time
from typing import Any

import paho.mqtt.client as paho
import pytest

from tests.e2e.platform import Device, Installation, basic
from tests.support.waiting import wait_until

pytestmark = pytest.mark.e2e

DEEP = b'{"a":' * 10_000 + b"1" + b"}" * 10_000
BOMB = gzip.compress(b"[" + b'{"a":1},' * 4_000_000 + b'{"a":1}]')
BAD_BODIES = [
    ("not json", b"temperature=21", 400, "bad_syntax"),
    ("latin-1", b'{"a":"\xe4"}', 400, "bad_encoding"),
    ("nan only", b'{"a":NaN}', 422, "nonfinite"),
    ("infinity only", b'{"a":-Infinity}', 422, "nonfinite"),
    ("1e400", b'{"a":1e400}', 422, "nonfinite"),
    ("too deep", DEEP, 400, "too_deep"),
    ("scalar", b"42", 400, "bad_structure"),
    ("empty array", b"[]", 422, "no_values"),
    ("empty body", b"", 422, "no_values"),
    ("2^64", b'{"a":18446744073709551616}', 422, "out_of_range"),
    ("5000 digits", b'{"a":' + b"9" * 5000 + b"}", 422, "out_of_range"),
    ("257 fields", json.dumps({f"f{n}": n for n in range(257)}).encode(), 400, "too_many_fields"),
    ("control character in a name", b'{"a\\u0001":1}', 422, "bad_name"),
    ("bad time", b'{"ts":"yesterday","a":1}', 422, "bad_time"),
]


@pytest.mark.parametrize(
    ("content", "status", "code"), [case[1:] for case in BAD_BODIES], ids=[case[0] for case in BAD_BODIES]
)
def test_bad_body_is_told_by_code(
    installation: Installation, device: Device, content: bytes, status: int, code: str
) -> None:
    answer = installation.post(device, content)

    assert (answer.status, answer.body["code"]) == (status, code), answer.body
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert installation.points(device.id) == []


def test_bodies_over_the_limit_are_413(installation: Installation, device: Device) -> None:
    big = installation.post(device, b'{"a":"' + b"x" * 1_100_000 + b'"}')
    bomb = installation.post(device, BOMB, Content_Encoding="gzip")

    assert [(a.status, a.body["code"]) for a in (big, bomb)] == [(413, "too_large")] * 2


def test_wrong_and_missing_credentials_are_401(installation: Installation, device: Device) -> None:
    forged = Device(device.id, "wrong", f"{device.id}.wrong")
    nobody = Device("nobody", "x", "nobody.x")

    answers = [installation.post(who, b'{"a":1}') for who in (forged, nobody, None)]
    answers.append(installation.post(None, b'{"a":1}', Authorization=basic(forged)))
    answers.append(installation.post(None, b'{"a":1}', Authorization=f"Bearer {installation.token}"))

    assert [answer.status for answer in answers] == [401] * 5
    assert installation.post(None, b'{"a":1}', Authorization=basic(device)).status == 202


def test_a_name_in_the_body_is_an_ordinary_field(installation: Installation, device: Device) -> None:
    other = installation.add_device(f"{device.id}-other")

    assert installation.post(device, json.dumps({"device": other.id, "a": 1}).encode()).status == 202

    wait_until(lambda: installation.points(device.id), 5)
    assert installation.points(device.id)[0]["fields"] == {"device": other.id, "a": 1.0}
    assert installation.points(other.id) == []


def test_another_devices_topic_is_refused(installation: Installation, device: Device) -> None:
    victim = installation.add_device(f"{device.id}-victim")
    installation.wait_for_broker(device)

    refused = installation.publish(device, f"devices/{victim.id}/telemetry", b'{"a":1}', "-V", "5")
    installation.publish(device, f"devices/{device.id}/telemetry", b'{"a":2}')

    assert "not authorized" in (refused.stderr + refused.stdout).lower()
    wait_until(lambda: installation.points(device.id), 5)
    assert installation.points(victim.id) == []


def test_another_devices_client_id_takes_no_session_over(installation: Installation, device: Device) -> None:
    thief = installation.add_device(f"{device.id}-thief")
    for each in (device, thief):
        installation.wait_for_broker(each)
    dropped: list[Any] = []
    owner = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=device.id)
    owner.username_pw_set(device.id, device.secret)
    owner.on_disconnect = lambda *args: dropped.append(args)
    owner.connect("127.0.0.1", installation.mqtt)
    owner.loop_start()
    wait_until(owner.is_connected, 5)

    installation.publish(thief, f"devices/{thief.id}/telemetry", b'{"a":1}', "-i", device.id)
    wait_until(lambda: installation.points(thief.id), 5)

    assert dropped == []
    assert owner.is_connected()
    owner.disconnect()
    owner.loop_stop()


@pytest.mark.parametrize("device_id", ["+", "#", "a/b", "a\0b", "gerät", "a" * 65, "a\n", "$SYS", "", "..", "_bridge"])
def test_odd_device_ids_are_refused(installation: Installation, device_id: str) -> None:
    answer = installation.call("POST", "/v1/devices", {"id": device_id})

    assert answer.status == 422, answer.body
    assert "id" in answer.body["fields"]


def test_values_against_the_device_type_cost_one_message_each(installation: Installation) -> None:
    spec = {"fields": {"temp": {"type": "float", "min": -40, "max": 85, "required": True}, "count": {"type": "int"}}}
    assert installation.call("PUT", "/v1/device-types/probe", spec).status in (200, 201)
    probe = installation.add_device("typed-probe", type="probe")
    readings = [
        {"temp": 20},
        {"temp": "hot"},
        {"temp": 900},
        {"count": 1},
        {"temp": 21, "count": 7},
        {"temp": 22, "count": 1.5},
    ]
    content = [{"ts": 1_772_600_000_000 + number, "values": values} for number, values in enumerate(readings)]

    answer = installation.post(probe, json.dumps(content).encode())

    assert answer.status == 202
    codes = [(q["index"], q["code"]) for q in answer.body["quarantined"]]
    assert codes == [(1, "type_conflict"), (2, "out_of_range"), (3, "missing_field"), (5, "type_conflict")]
    wait_until(lambda: len(installation.points(probe.id)) == 3, 5)
    assert [p["fields"] for p in installation.points(probe.id)] == [
        {"temp": 20.0},
        {"temp": 21.0, "count": 7},
        {"temp": 22.0},
    ]


def test_one_bad_of_a_thousand_costs_one(installation: Installation, device: Device) -> None:
    start_ms = int(time.time() * 1000) - 10_000
    content: list[dict[str, Any]] = [{"ts": start_ms + n, "a": n} for n in range(1_000)]
    content[500] = {"ts": "broken", "a": 1}

    answer = installation.post(device, json.dumps(content).encode())

    assert (answer.status, answer.body["accepted"]) == (202, 999)
    assert [(q["index"], q["code"]) for q in answer.body["quarantined"]] == [(500, "bad_time")]
    wait_until(lambda: len(installation.points(device.id)) == 999, 10)


def test_a_clock_ten_years_off_is_kept_by_arrival_when_guarded(installation: Installation, device: Device) -> None:
    ten_years_ms = 10 * 365 * 86_400_000
    ahead = int(time.time() * 1000) + ten_years_ms

    assert installation.post(device, json.dumps({"ts": ahead, "a": 1}).encode()).status == 202
    assert installation.post(device, b'{"ts":86400,"a":2}').status == 202

    wait_until(lambda: len(installation.points(device.id)) == 2, 5)
    years = {point["time"][:4] for point in installation.points(device.id)}
    assert years <= {time.strftime("%Y", time.gmtime(time.time() - 60)), time.strftime("%Y")}


def test_duplicates_are_answered_alike_and_kept_once(installation: Installation, device: Device) -> None:
    numbered = json.dumps({"ts": int(time.time() * 1000), "boot_id": "b1", "seq": 1, "values": {"a": 1}}).encode()
    timed = json.dumps({"ts": int(time.time() * 1000) - 5_000, "b": 2}).encode()

    answers = [installation.post(device, content) for content in (numbered, numbered, timed, timed)]

    assert [(a.status, a.body["accepted"]) for a in answers] == [(202, 1)] * 4
    wait_until(lambda: len(installation.points(device.id)) == 2, 5)
    ledger = installation.settle()
    assert ledger["duplicates"] >= 2
    assert ledger["accepted"] == ledger["stored"] + ledger["pending"] + ledger["duplicates"]
    assert ledger["received"] == ledger["accepted"] + ledger["quarantined"] + ledger["refused"]


def test_other_content_types_are_415_and_named(installation: Installation, device: Device) -> None:
    answer = installation.post(device, b"<a/>", Content_Type="application/xml")

    assert (answer.status, answer.body["code"]) == (415, "media_type")
    assert "application/json" in answer.body["detail"]


def test_bad_mqtt_messages_are_told_on_the_errors_topic(installation: Installation, device: Device) -> None:
    installation.wait_for_broker(device)
    told: list[dict[str, Any]] = []
    listener = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=device.id)
    listener.username_pw_set(device.id, device.secret)
    listener.on_message = lambda _c, _u, message: told.append(json.loads(message.payload))
    listener.on_connect = lambda client, *_: client.subscribe(f"devices/{device.id}/errors")
    listener.connect("127.0.0.1", installation.mqtt)
    listener.loop_start()
    wait_until(listener.is_connected, 5)
    listener.publish(f"devices/{device.id}/telemetry", b"not json", qos=1).wait_for_publish(5)
    listener.publish(f"devices/{device.id}/telemetry", b'{"good":1}', qos=1).wait_for_publish(5)

    wait_until(lambda: told, 5)
    assert told[0]["code"] == "bad_syntax"
    wait_until(lambda: installation.points(device.id), 5)
    assert [q["code"] for q in installation.quarantined(device.id)] == ["bad_syntax"]
    listener.disconnect()
    listener.loop_stop()


@pytest.mark.parametrize(
    "path",
    ["/internal/changes?since=0", "//internal/changes", "/%69nternal/changes", "/v1/../internal/changes", "/metrics"],
)
def test_inner_routes_are_not_at_the_gateway(installation: Installation, path: str) -> None:
    service_token = (installation.data / "secrets/service-writer.token").read_text().strip()

    assert installation.call("GET", path, Authorization=f"Bearer {service_token}").status in (400, 404)


def test_nothing_died_from_all_this(installation: Installation) -> None:
    status = installation.status()

    assert status["ready"]
    assert {process["name"]: process["restarts"] for process in status["processes"] if process["restarts"]} == {}
