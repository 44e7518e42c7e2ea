"""A device type changes while its device publishes: checked, activated, what it refuses waits, rolled back, replayed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.e2e.platform import Device, Installation
from tests.support.waiting import wait_until
from wire import clock

pytestmark = pytest.mark.e2e
TYPE = "/v1/device-types/boiler"
WIDE = {"fields": {"bar": {"min": 0, "max": 10}}}
NARROW = {"fields": {"bar": {"min": 0, "max": 6}}}


def publish(installation: Installation, device: Device, *values: float) -> None:
    for number, value in enumerate(values):
        at_ms = clock.now_ns() // 1_000_000 + number
        sent = installation.publish(
            device, f"devices/{device.id}/telemetry", json.dumps({"ts": at_ms, "bar": value}).encode()
        )
        assert sent.returncode == 0, sent.stderr


def judged(installation: Installation, device: Device) -> list[tuple[float, int]]:
    page = installation.get(f"/v1/query/range?device={device.id}&judged=true&limit=1000")
    return [(point["fields"]["bar"], point["judged_by"]["version"]) for point in page["points"]]


def test_type_changes_while_its_device_publishes(installation: Installation, tmp_path: Path) -> None:
    installation.call("PUT", TYPE, WIDE)
    boiler = installation.add_device("boiler-1", type="boiler")
    installation.wait_for_broker(boiler)
    publish(installation, boiler, 1, 7, 2, 8, 3, 9, 4, 5)
    wait_until(lambda: len(judged(installation, boiler)) == 8, 10)
    (tmp_path / "boiler.json").write_text(json.dumps(NARROW))

    checked = installation.run("type", "check", str(tmp_path / "boiler.json"))
    report = json.loads(installation.run("type", "check", str(tmp_path / "boiler.json"), "--json").stdout)

    assert checked.returncode == 3
    assert "Of 8 stored readings of 1 devices, 3 of 1 devices would be refused" in checked.stdout
    assert (report["compatible"], report["traffic"]["codes"]) == (False, {"out_of_range": 3})
    assert len(judged(installation, boiler)) == 8  # nothing has changed

    check_all_of_it(installation, tmp_path)

    installation.run("type", "put", str(tmp_path / "boiler.json"), "--draft", check=True)
    installation.run("type", "activate", "boiler", "2", check=True)

    def is_refused() -> bool:
        publish(installation, boiler, 7.5)
        return bool(installation.quarantined(boiler.id))

    wait_until(is_refused, 5)
    publish(installation, boiler, 5.5)
    wait_until(lambda: (5.5, 2) in judged(installation, boiler), 10)
    entries = installation.quarantined(boiler.id)
    assert {(each["code"], each["type"], each["type_version"]) for each in entries} == {("out_of_range", "boiler", 2)}
    assert {version for value, version in judged(installation, boiler) if value in (7, 8, 9)} == {1}
    roll_back_and_replay(installation, boiler, len(entries))


def check_all_of_it(installation: Installation, folder: Path) -> None:
    devices = folder / "devices.ndjson"
    checked = installation.run("type", "check", str(folder / "boiler.json"), "--result", str(devices))

    assert checked.returncode == 3, checked.stderr
    assert "8 of 8 stored readings were judged, of 1 devices; 3 of 1 devices would be refused" in checked.stdout
    assert [json.loads(line) for line in devices.read_text().splitlines()] == [
        {"device": "boiler-1", "readings": 8, "refused": 3, "codes": {"out_of_range": 3}, "waiting": 0, "would_pass": 0}
    ]


def roll_back_and_replay(installation: Installation, boiler: Device, waiting: int) -> None:
    again = installation.call("POST", TYPE + ":check", {"spec": WIDE, "hours": 0}).body["quarantine"]
    assert (again["entries"], again["would_pass"]) == (waiting, waiting)

    installation.run("type", "rollback", "boiler", check=True)
    body = {"filter": {"device": boiler.id}}
    wait_until(lambda: installation.call("POST", "/v1/quarantine:replay", body).body["replayed"] == waiting, 5)
    wait_until(lambda: (7.5, 3) in judged(installation, boiler), 10)
    assert installation.quarantined(boiler.id) == []
    states = [(each["version"], each["state"]) for each in installation.get(TYPE + "/versions")["items"]]
    assert states == [(3, "active"), (2, "retired"), (1, "retired")]


def test_type_is_learned_from_what_a_device_sent(installation: Installation) -> None:
    meter = installation.add_device("meter-1")
    for number in range(12):
        content = json.dumps(
            {"ts": clock.now_ns() // 1_000_000 - 10_000 * (number + 1), "kwh": 100.0 + number, "on": True}
        )
        assert installation.post(meter, content.encode()).status == 202
    wait_until(lambda: len(installation.points(meter.id)) == 12, 10)

    learned = json.loads(installation.run("type", "learn", "meter", "--device", meter.id, "--json", check=True).stdout)

    spec = learned["draft"]["spec"]
    assert (learned["readings"], learned["draft"]["state"], spec["expected_interval_s"]) == (12, "draft", 10.0)
    assert (spec["fields"]["kwh"]["type"], spec["fields"]["kwh"]["required"]) == ("float", True)
    assert installation.call("GET", "/types").status in (200, 401)
    assert b"meter" in installation.call("GET", "/types/meter", Accept="text/html").body


def test_expected_interval_tells_who_says_too_little(installation: Installation) -> None:
    kind = "/v1/device-types/talker"
    installation.call("PUT", kind, {"expected_interval_s": 0.4})
    talker, waiter = installation.add_device("talker-1", type="talker"), installation.add_device("waiter-1")
    listening = [listen(installation, each) for each in (talker, waiter)]

    def ends_with(*told: tuple[str, str]) -> bool:
        events = installation.get(f"/v1/devices/{talker.id}/presence")["events"]
        return [(each["state"], each["reason"]) for each in events][-len(told) :] == list(told)

    try:
        wait_until(lambda: ends_with(("online", "connected"), ("stale", "silent")), 15)
        assert installation.post(talker, b'{"level": 1}').status == 202
        wait_until(lambda: ends_with(("stale", "silent"), ("online", "data"), ("stale", "silent")), 15)
        found = installation.get("/v1/devices?q=presence%3Dstale%20and%20type%3Dtalker")["items"]
        installation.call("PUT", kind, {"expected_interval_s": 3600})
        wait_until(lambda: ends_with(("stale", "silent"), ("online", "type")), 10)
    finally:
        for each in listening:
            each.kill()
            each.wait(5)
    wait_until(lambda: ends_with(("online", "type"), ("offline", "disconnected")), 10)
    assert [each["id"] for each in found] == [talker.id]
    waited = installation.get(f"/v1/devices/{waiter.id}/presence")["events"]
    assert "stale" not in {each["state"] for each in waited}  # nothing is expected of it


def listen(installation: Installation, device: Device) -> subprocess.Popen[bytes]:
    """Stay connected and say nothing."""
    installation.wait_for_broker(device)
    command = ["mosquitto_sub", "-h", "127.0.0.1", "-p", str(installation.mqtt), "-u", device.id, "-P", device.secret]
    return subprocess.Popen([*command, "-i", device.id, "-t", f"devices/{device.id}/commands/+"])
