"""Late and early data as the device type says, over both transports."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.platform import Device, Installation
from tests.support.waiting import wait_until

pytestmark = pytest.mark.e2e

TYPE = {
    "time_skew_s": 1,
    "time_ahead_s": 3_600,
    "time_back_s": 7 * 86_400,
    "time_late_s": 3_600,
    "time_skew_field": "clock_ahead_s",
}
Send = Callable[[Device, Any], None]


@pytest.fixture(params=["http", "mqtt"])
def send(request: pytest.FixtureRequest, installation: Installation) -> Send:
    def post(device: Device, content: Any) -> None:
        installation.post(device, json.dumps(content).encode())

    def publish(device: Device, content: Any) -> None:
        installation.wait_for_broker(device)
        installation.publish(device, f"devices/{device.id}/telemetry", json.dumps(content).encode())

    return post if request.param == "http" else publish


def test_window_clamp_and_latest_follow_the_type(installation, send, request) -> None:
    installation.call("PUT", "/v1/device-types/buoy", TYPE)
    device = installation.add_device(f"buoy-{'-'.join(request.node.callspec.params.values())}", type="buoy")
    now_ms = int(time.time() * 1_000)
    day_ms = 86_400_000
    content = [
        {"ts": now_ms - 8 * day_ms, "level": 1},  # too old
        {"ts": now_ms - 2 * day_ms, "level": 2},  # late: history
        {"ts": now_ms, "level": 3},
        {"ts": now_ms + 600_000, "level": 4, "tide": 1},  # a clock ahead: clamped and flagged
        {"ts": now_ms + day_ms, "level": 5},  # too new
    ]

    send(device, content)
    wait_until(lambda: len(installation.points(device.id)) == 3, 10)
    late, live, clamped = installation.points(device.id)
    [latest] = installation.get(f"/v1/query/latest?device={device.id}&field=level")["points"]

    assert [point["fields"]["level"] for point in (late, live, clamped)] == [2, 3, 4]
    assert 590 < clamped["fields"]["clock_ahead_s"] < 601
    assert latest["fields"]["level"] == 4
    found = {entry["record"]: (entry["code"], entry["type_version"]) for entry in installation.quarantined(device.id)}
    assert found == {0: ("too_old", 1), 4: ("too_new", 1)}


def test_history_never_is_the_latest_value_even_as_the_first(installation, send, request) -> None:
    installation.call("PUT", "/v1/device-types/buoy", TYPE)
    device = installation.add_device(f"old-{'-'.join(request.node.callspec.params.values())}", type="buoy")

    send(device, {"ts": int(time.time() * 1_000) - 86_400_000, "level": 1})

    wait_until(lambda: len(installation.points(device.id)) == 1, 10)
    assert installation.get(f"/v1/query/latest?device={device.id}")["points"] == []
