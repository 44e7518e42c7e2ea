"""Snapshots of cameras through a whole installation: in by MQTT and HTTP, out by list, range and thumbnail."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.platform import HEADWATER, Device, Installation
from tests.support.pictures import picture, size_of
from tests.support.waiting import wait_until

pytestmark = pytest.mark.e2e


def listed(installation: Installation, device: Device) -> list[Any]:
    return installation.get(f"/v1/media?device={device.id}")["items"]


def wait_listed(installation: Installation, device: Device, count: int) -> list[Any]:
    return wait_until(
        lambda: found if len(found := listed(installation, device)) >= count else None, 15, what=f"{count} media"
    )


def points_of(installation: Installation, device: Device, count: int = 1) -> list[Any]:
    return wait_until(
        lambda: found if len(found := installation.points(device.id)) >= count else None, 10, what=f"{count} points"
    )


def test_snapshot_over_mqtt_becomes_blob_point_and_thumbnail(installation: Installation, device: Device) -> None:
    content = picture("JPEG", 1280, 720)
    installation.wait_for_broker(device)

    sent = installation.publish(device, f"devices/{device.id}/media/front", content)

    assert sent.returncode == 0, sent.stderr
    (item,) = wait_listed(installation, device, 1)
    assert (item["channel"], item["type"], item["size"]) == ("front", "image/jpeg", len(content))
    assert (item["width"], item["height"], item["sha256"]) == (1280, 720, hashlib.sha256(content).hexdigest())
    (point,) = points_of(installation, device)
    assert (point["measurement"], point["tags"], point["time"]) == ("media", {"channel": "front"}, item["time"])
    assert point["fields"] == {
        "media.size": len(content), "media.sha256": item["sha256"], "media.type": "image/jpeg",
        "media.width": 1280, "media.height": 720, "media.path": item["path"],
    }  # fmt: skip
    assert installation.call("GET", item["path"]).body == content
    thumbnail = installation.call("GET", item["thumbnail"])
    assert size_of(thumbnail.body) == ("JPEG", (320, 180))


def test_blob_over_http_is_read_in_parts_and_never_run(installation: Installation, device: Device) -> None:
    content = b"<script>alert(1)</script>" + os.urandom(3_000_000)

    answer = installation.post(device, content, "/v1/media?channel=clip", Content_Type="text/html")

    assert answer.status == 201, answer
    path = answer.body["path"]
    whole = installation.call("GET", path)
    assert (whole.status, whole.body, whole.headers["Content-Type"]) == (200, content, "text/html")
    assert whole.headers["Content-Disposition"].startswith("attachment")
    assert whole.headers["Content-Security-Policy"].startswith("sandbox")
    assert whole.headers["X-Content-Type-Options"] == "nosniff"
    part = installation.call("GET", path, Range="bytes=2999990-")
    assert (part.status, part.body) == (206, content[2_999_990:])
    assert part.headers["Content-Range"] == f"bytes 2999990-{len(content) - 1}/{len(content)}"
    assert installation.call("GET", path, Range=f"bytes={len(content)}-").status == 416
    assert installation.call("GET", path, If_None_Match=whole.headers["ETag"]).status == 304
    assert installation.call("GET", f"/v1/media/{answer.body['id']}/thumbnail").body["code"] == "no_thumbnail"


def test_command_line_puts_lists_gets_and_deletes(installation: Installation, device: Device, tmp_path: Path) -> None:
    taken, given_back = tmp_path / "taken.png", tmp_path / "back.png"
    taken.write_bytes(picture("PNG", 400, 300))

    put = installation.run("media", "put", device.id, str(taken), "--channel", "hall", "--json", check=True)
    media_id = str(json.loads(put.stdout)["id"])
    listing = json.loads(installation.run("media", "list", "--device", device.id, "--json", check=True).stdout)
    installation.run("media", "get", media_id, "--output", str(given_back), check=True)
    gone = installation.run("media", "delete", media_id)
    lacking = installation.run("media", "get", media_id, "--output", str(tmp_path / "none"))

    assert [(item["id"], item["channel"], item["type"]) for item in listing] == [(int(media_id), "hall", "image/png")]
    assert given_back.read_bytes() == taken.read_bytes()
    assert gone.returncode == 0
    assert lacking.returncode != 0
    assert "no media" in lacking.stderr
    assert not (tmp_path / "none").exists()


def test_simulated_cameras_lose_no_snapshot(installation: Installation, tmp_path: Path) -> None:
    report = tmp_path / "report.json"

    command = [
        HEADWATER, "sim", "run", "-c", "5", "--rate", "2/s", "--duration", "3s", "--ramp", "50/s", "--protocol", "media",
        "--transport", "http", "--size", "50000", "--verify", "--report", str(report), "--url", installation.url,
        "--token-file", str(installation.data / "secrets/operator.token"),
    ]  # fmt: skip
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    said = json.loads(report.read_text())
    assert ran.returncode == 0, (ran.stdout, ran.stderr)
    assert (said["acked"], said["stored"], said["lost"], said["duplicates"]) == (30, 30, 0, 0)


def test_large_snapshot_over_mqtt_is_kept_and_what_exceeds_the_limit_is_told(
    installation: Installation, device: Device
) -> None:
    content = os.urandom(4 * 1024 * 1024)
    installation.wait_for_broker(device)

    sent = installation.publish(device, f"devices/{device.id}/media/raw", content)
    refused = installation.post(device, b"x" * (33 * 1024 * 1024), "/v1/media")

    assert sent.returncode == 0, sent.stderr
    (item,) = wait_listed(installation, device, 1)
    assert (item["size"], item["type"], item["width"]) == (len(content), "application/octet-stream", None)
    assert (refused.status, refused.body["code"]) == (413, "too_large")


def test_slow_readers_hold_up_no_camera(installation: Installation, device: Device) -> None:
    made = installation.post(device, os.urandom(20 * 1024 * 1024), "/v1/media").body
    request = f"GET {made['path']} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {installation.token}\r\n\r\n"

    with ExitStack() as readers:
        for _ in range(18):  # more than the service has threads
            reader = readers.enter_context(socket.socket())
            reader.settimeout(15)
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            reader.connect(("127.0.0.1", installation.port))
            reader.sendall(request.encode())
            assert reader.recv(12) == b"HTTP/1.1 200"
        answer = installation.post(device, b"one more", "/v1/media")

    assert answer.status == 201
