"""What operators do to devices, seen from the devices' side."""

from __future__ import annotations

import base64
import json
import time

import paho.mqtt.client as paho
import pytest

from tests.e2e.platform import Device, Installation
from tests.support.waiting import wait_until

pytestmark = pytest.mark.e2e


def connected(installation: Installation, device: Device) -> paho.Client:
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=device.id)
    client.username_pw_set(device.id, device.secret)
    client.will_set(f"devices/{device.id}/status", "offline", retain=True)
    client.reconnect_delay_set(1, 1)
    client.connect("127.0.0.1", installation.mqtt)
    client.loop_start()
    wait_until(client.is_connected, 5)
    return client


def test_new_device_connects_within_two_seconds(installation: Installation) -> None:
    device = installation.add_device("fresh-1")

    def connects() -> bool:
        return installation.publish(device, f"devices/{device.id}/telemetry", b'{"a":1}').returncode == 0

    wait_until(connects, 2.0)


@pytest.mark.parametrize("how", ["disable", "delete"])
def test_cut_off_device_leaves_within_two_seconds_and_stays_out(installation: Installation, how: str) -> None:
    device = installation.add_device(f"cut-{how}")
    installation.wait_for_broker(device)
    client = connected(installation, device)

    if how == "disable":
        assert installation.call("POST", f"/v1/devices/{device.id}:disable").status == 200
    else:
        assert installation.call("DELETE", f"/v1/devices/{device.id}").status in (200, 204)

    wait_until(lambda: not client.is_connected(), 2.0)
    client.loop_stop()
    assert installation.publish(device, f"devices/{device.id}/telemetry", b'{"a":1}').returncode != 0
    wait_until(lambda: installation.post(device, b'{"a":1}').status in (401, 403), 5)


def test_enabled_device_is_back(installation: Installation, device: Device) -> None:
    installation.call("POST", f"/v1/devices/{device.id}:disable")
    wait_until(lambda: installation.post(device, b'{"a":1}').status == 403, 5)

    installation.call("POST", f"/v1/devices/{device.id}:enable")

    wait_until(lambda: installation.post(device, b'{"a":1}').status == 202, 5)
    installation.wait_for_broker(device)


def test_revoked_credential_stops_within_five_seconds(installation: Installation, device: Device) -> None:
    assert installation.post(device, b'{"a":1}').status == 202
    credential = installation.get(f"/v1/devices/{device.id}/credentials")["items"][0]["id"]

    assert installation.call("DELETE", f"/v1/devices/{device.id}/credentials/{credential}").status in (200, 204)

    wait_until(lambda: installation.post(device, b'{"a":1}').status == 401, 5)


def test_rotation_overlaps(installation: Installation, device: Device) -> None:
    answer = installation.call("POST", f"/v1/devices/{device.id}/credentials:rotate", {"overlap_s": 3})
    assert answer.status in (200, 201)
    renewed = Device(device.id, answer.body["credential"]["secret"], answer.body["credential"]["bearer"])

    wait_until(lambda: installation.post(renewed, b'{"a":1}').status == 202, 5)
    assert installation.post(device, b'{"a":1}').status == 202
    wait_until(lambda: installation.post(device, b'{"a":1}').status == 401, 10)
    assert installation.post(renewed, b'{"a":1}').status == 202


def test_presence_follows_connects_wills_and_telemetry(installation: Installation, device: Device) -> None:
    def online() -> bool:
        return bool(installation.get(f"/v1/devices/{device.id}")["online"])

    installation.wait_for_broker(device)
    client = connected(installation, device)
    wait_until(online, 5)
    client._sock_close()
    client.loop_stop()
    wait_until(lambda: not online(), 5)

    assert installation.post(device, b'{"a":1}').status == 202
    wait_until(online, 8)
    assert installation.get(f"/v1/devices/{device.id}")["last_seen"].startswith(time.strftime("%Y-", time.gmtime()))


def test_import_of_ten_thousand_devices_with_bad_lines(installation: Installation) -> None:
    lines = ["id,type,tag.site"] + [f"bulk-{n},,s{n % 7}" for n in range(10_000)]
    lines[5_000] = "bad id,,s1"
    lines[6_000] = "bulk-1,,s1"
    content = "\n".join(lines).encode()

    tried = installation.call("POST", "/v1/devices:import?dry_run=true", content, Content_Type="text/csv")
    assert installation.call("GET", "/v1/devices/bulk-0").status == 404
    done = installation.call("POST", "/v1/devices:import", content, Content_Type="text/csv")

    for report in (tried.body, done.body):
        assert (report["total"], report["created"], len(report["failed"])) == (10_000, 9_998, 2)
        assert [row["line"] for row in report["failed"]] == [5_001, 6_001]
    assert tried.body["credentials"] == []
    assert len(done.body["credentials"]) == 9_998
    first = done.body["credentials"][0]
    device = Device(first["device"], first["secret"], first["bearer"])
    assert installation.post(device, b'{"a":1}').status == 202
    wait_until(lambda: installation.publish(device, f"devices/{device.id}/status", b"online").returncode == 0, 3)
    page = installation.get("/v1/devices?tag=site:s3&limit=1000")
    assert len(page["items"]) == 1_000
    assert page["next"]


def test_quarantine_is_listed_fixed_and_replayed(installation: Installation) -> None:
    strict = {"fields": {"level": {"type": "float", "max": 10}}}
    installation.call("PUT", "/v1/device-types/tank", strict)
    device = installation.add_device("tank-1", type="tank")
    raw = json.dumps({"ts": 1_772_600_000_000, "level": 50}).encode()
    wait_until(lambda: installation.post(device, raw).status == 422, 5)
    kept = installation.quarantined(device.id)
    assert kept[0]["code"] == "out_of_range"
    assert base64.b64decode(kept[0]["raw_base64"]) == raw

    installation.call("PUT", "/v1/device-types/tank", {"fields": {"level": {"type": "float", "max": 100}}})

    def replays() -> bool:
        body = {"filter": {"device": device.id}}
        return bool(installation.call("POST", "/v1/quarantine:replay", body).body["replayed"])

    wait_until(replays, 5, every_s=0.5)
    wait_until(lambda: installation.points(device.id), 5)
    again = installation.call("POST", "/v1/quarantine:replay", {"ids": [kept[0]["id"]]})
    installation.settle()
    assert again.status == 200
    assert [p["fields"] for p in installation.points(device.id)] == [{"level": 50.0}]


def test_command_line_does_the_same(installation: Installation) -> None:
    added = installation.run("device", "add", "cli-1", "--tag", "site=a")
    listed = json.loads(installation.run("device", "list", "--json").stdout)
    token = installation.run("token", "create", "--role", "viewer", "--name", "screen")

    assert added.returncode == 0, added.stderr
    assert "cli-1" in [item["id"] for item in listed]
    assert token.returncode == 0
    assert installation.run("token", "list", "--json").returncode == 0
    assert installation.run("quarantine", "list", "--json").returncode == 0
    assert installation.run("token", "revoke", "screen").returncode == 0
    wrong = installation.run("device", "add", "bad/id")
    assert wrong.returncode != 0
    assert len(wrong.stderr.strip().splitlines()) == 1


def test_changes_are_audited(installation: Installation, device: Device) -> None:
    installation.call("POST", f"/v1/devices/{device.id}:disable")

    entries = installation.get(f"/v1/audit?object={device.id}")["items"]

    assert {"actor", "action", "object", "time", "remote_ip"} <= set(entries[0])
    assert len(entries) >= 2


def test_deleted_with_its_data_a_device_leaves_nothing_for_its_successor(installation: Installation) -> None:
    device, other = installation.add_device("gone-1"), installation.add_device("gone-2")
    for each in (device, other):
        assert installation.post(each, b'{"boot_id":"b","seq":1,"values":{"t":1}}').status == 202
    assert installation.post(device, b"{").status == 400
    wait_until(lambda: installation.points("gone-1") and installation.points("gone-2"), 10)

    done = installation.run("device", "delete", "gone-1", "--with-data")

    assert done.returncode == 0, done.stderr
    successor = installation.add_device("gone-1")
    assert installation.points("gone-1") == []
    assert installation.quarantined("gone-1") == []
    assert len(installation.points("gone-2")) == 1
    wait_until(lambda: installation.post(successor, b'{"boot_id":"b","seq":1,"values":{"t":2}}').status == 202, 5)
    wait_until(lambda: len(installation.points("gone-1")) == 1, 10, what="the successor's number 1 is no duplicate")


def test_children_of_a_gateway_come_over_both_doors(installation: Installation) -> None:
    gateway = installation.add_device("gw-1", gateway=True)
    installation.run("gateway", "set", "gw-1", "--type", "sensor", "--prefix", "gw-1-", check=True)
    installation.wait_for_broker(gateway)

    topic = "devices/gw-1/children/{}/telemetry"
    assert installation.publish(gateway, topic.format("gw-1-a"), b'{"t":1}').returncode == 0
    assert installation.publish(gateway, topic.format("foreign"), b'{"t":1}').returncode == 0
    assert installation.post(gateway, b'{"t":2}', "/v1/telemetry?device=gw-1-b").status == 202

    wait_until(lambda: installation.points("gw-1-a") and installation.points("gw-1-b"), 10)

    def children() -> list[tuple[str, str, str]]:
        items = installation.get("/v1/devices/gw-1/children")["items"]
        return [(item["id"], item["type"], item["state"]) for item in items]

    wait_until(lambda: children() == [(name, "sensor", "active") for name in ("gw-1-a", "gw-1-b")], 10)
    assert installation.call("GET", "/v1/devices/foreign").status == 404
