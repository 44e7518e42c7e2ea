"""Gaps and copies as a device and an operator see them: ledger, acks topic, metrics, status, page."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from typing import Any

import pytest

from tests.e2e.platform import Device, Installation
from tests.support.waiting import wait_until

pytestmark = pytest.mark.e2e


def numbered(*numbers: int, boot_id: str = "b1", **more: Any) -> bytes:
    return json.dumps(
        [{"boot_id": boot_id, "seq": number, "values": {"n": number}} | more for number in numbers]
    ).encode()


def account(installation: Installation, device: Device) -> dict[str, Any]:
    return installation.get(f"/v1/devices/{device.id}/ledger")


def acks(installation: Installation, device: Device, within_s: int = 5) -> dict[str, Any]:
    """What the device finds on its topic when it connects; empty when there is nothing."""
    command = ["mosquitto_sub", "-p", str(installation.mqtt), "-u", device.id, "-P", device.secret, "-i", device.id]
    command += ["-t", f"devices/{device.id}/acks", "-C", "1", "-W", str(within_s)]
    found = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False).stdout
    return json.loads(found or "{}")


def metric(installation: Installation, name: str) -> float:
    port = json.loads((installation.data / "run/ports.json").read_text())["writer"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


def test_a_gap_is_known_within_10_s_and_closes_when_the_reading_comes(
    installation: Installation, device: Device
) -> None:
    before = installation.get("/v1/ledger")
    installation.post(device, numbered(1, 2, 5))

    wait_until(lambda: account(installation, device)["missing"] == 2, 10, "the gap is known")
    wait_until(lambda: acks(installation, device).get("missing") == [[3, 4]], 10, "the device is told")

    (boot,) = account(installation, device)["boots"]
    assert (boot["first"], boot["contiguous_to"], boot["newest"], boot["missing_ranges"]) == (1, 2, 5, [[3, 4]])
    ledger = installation.get("/v1/ledger")
    assert ledger["missing"] - before["missing"] == 2
    assert ledger["devices_with_gaps"] - before["devices_with_gaps"] == 1
    wait_until(lambda: metric(installation, "headwater_writer_missing") == ledger["missing"], 10, "the metric follows")
    assert installation.status()["ledger"]["missing"] == ledger["missing"]

    installation.post(device, numbered(4, 3))
    wait_until(lambda: account(installation, device)["missing"] == 0, 10, "the gap is closed")
    wait_until(lambda: acks(installation, device).get("seq") == 5, 10, "the device is told")


def test_a_new_boot_leaves_what_is_missing_of_the_old_one(installation: Installation, device: Device) -> None:
    installation.post(device, numbered(1, 3))
    installation.post(device, numbered(1, 2, boot_id="b2"))

    found = wait_until(lambda: (told := account(installation, device))["missing"] == 1 and told, 10, "the gap is known")

    assert [(boot["boot_id"], boot["is_current"], boot["missing"]) for boot in found["boots"]] == [
        ("b2", True, 0), ("b1", False, 1),
    ]  # fmt: skip
    told = wait_until(lambda: (said := acks(installation, device)).get("boot_id") == "b2" and said, 15, "it is told")
    assert [each["boot_id"] for each in told["earlier"]] == ["b1"]


def test_every_kind_of_copy_is_counted_and_shows_once(installation: Installation, device: Device) -> None:
    before = installation.settle()["duplicates"]
    installation.wait_for_broker(device)
    timed = b'{"ts": 1772600000000, "values": {"t": 1.5}}'

    installation.post(device, numbered(1))
    installation.publish(device, f"devices/{device.id}/telemetry", numbered(1))
    installation.post(device, timed)
    installation.post(device, timed)
    wait_until(lambda: installation.settle()["duplicates"] - before == 2, 10, "both copies are counted")

    assert [point["fields"] for point in installation.points(device.id)] == [{"t": 1.5}, {"n": 1}]
    assert account(installation, device)["duplicates"] == 1


def test_a_device_added_again_under_an_old_name_begins_anew(installation: Installation) -> None:
    device = installation.add_device("gaps-again")
    installation.post(device, numbered(1, 2))
    wait_until(lambda: account(installation, device)["boots"], 10, "it is known")
    installation.wait_for_broker(device)
    wait_until(lambda: acks(installation, device).get("seq") == 2, 10, "it is told")

    assert installation.call("DELETE", f"/v1/devices/{device.id}").status == 204
    shown = f"/v1/devices/{device.id}/ledger"
    wait_until(lambda: not installation.call("GET", shown).body.get("boots"), 10, "its numbers are forgotten")
    again = installation.add_device("gaps-again")
    installation.wait_for_broker(again)
    wait_until(lambda: not acks(installation, again, within_s=1), 10, "its topic is cleared")

    installation.post(again, numbered(1))
    wait_until(lambda: len(installation.points(device.id)) == 3, 10, "the same number is another reading")


def test_what_was_lost_before_a_device_went_is_known_by_its_next_number(installation: Installation) -> None:
    device = installation.add_device("gone-for-a-while")
    installation.post(device, numbered(1, 2))
    installation.wait_for_broker(device)
    installation.publish(device, f"devices/{device.id}/status", b'{"state":"offline"}')
    told = wait_until(lambda: acks(installation, device), 15, "it is told what came")
    assert (told["newest"], told["missing"]) == (2, []), "3 and 4 are not covered: only the device knows of them"

    installation.post(device, numbered(5))

    wait_until(lambda: account(installation, device)["missing"] == 2, 10, "what was lost is known")
