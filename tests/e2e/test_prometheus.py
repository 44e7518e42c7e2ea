"""A request as Prometheus' agent sends it, replayed against a whole installation, beside ThingsBoard's paths."""

from __future__ import annotations

import json

import cramjam
import pytest

from ingest.protocols.prometheus.messages import WriteRequest
from tests.e2e.platform import Device, Installation
from tests.support.waiting import wait_until

pytestmark = pytest.mark.e2e
HEADERS = {
    "Content_Type": "application/x-protobuf",
    "Content_Encoding": "snappy",
    "X_Prometheus_Remote_Write_Version": "0.1.0",
    "User_Agent": "Prometheus/2.42.0",
}


def test_agent_writes_beside_devices_of_thingsboard(installation: Installation, device: Device) -> None:
    series = [
        {"labels": [{"name": "__name__", "value": "up"}, {"name": "job", "value": "node"}],
         "samples": [{"value": 1.0, "timestamp": 1_772_600_000_123}]},
        {"labels": [{"name": "__name__", "value": "load"}], "samples": [{"value": float("nan"), "timestamp": 1}]},
    ]  # fmt: skip
    content = bytes(cramjam.snappy.compress_raw(WriteRequest(timeseries=series).SerializeToString()))

    answer = installation.post(device, content, "/api/v1/write", **HEADERS)
    beside = installation.post(device, json.dumps({"a": 1}).encode(), f"/api/v1/{device.bearer}/telemetry")
    no_token = installation.post(device, b'{"a":1}', "/api/v1/write/telemetry")

    assert (answer.status, answer.body["errorType"], beside.status, no_token.status) == (400, "bad_data", 200, 401)
    (found,) = wait_until(
        lambda: [point for point in installation.points(device.id) if point["measurement"] == "up"], 10, what="a point"
    )
    assert (found["tags"], found["fields"]) == ({"job": "node"}, {"value": 1.0})
    assert found["time"] == "2026-03-04T04:53:20.123000000Z"
