"""The registry away, the writer away: known devices go on, and the answers tell the truth."""

from __future__ import annotations

import json
import time

import pytest

from tests.faults.rig import Site
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.faults]


def test_known_devices_publish_while_the_registry_is_away(site: Site) -> None:
    installation = site.installation
    device = installation.add_device("known")
    installation.wait_for_broker(device)
    for _ in range(8):  # each worker has its own memory of who is known
        assert installation.post(device, b'{"a":0}').status == 202

    with site.frozen("devices"):
        answers = [installation.post(device, json.dumps({"a": n}).encode()).status for n in range(1, 20)]
        sent = installation.publish(device, f"devices/{device.id}/telemetry", b'{"m":1}')
        unknown = installation.call("POST", "/v1/telemetry", b'{"a":1}', Authorization="Bearer never-seen.secret")

    assert answers == [202] * 19
    assert sent.returncode == 0
    assert unknown.status == 503
    assert int(unknown.headers["Retry-After"]) >= 1
    wait_until(lambda: len(installation.points(device.id)) == 28, 10)


def test_the_spool_holds_while_the_writer_is_away(site: Site) -> None:
    installation = site.installation
    device = installation.add_device("held")
    installation.settle()

    with site.frozen("writer"):
        answers = [
            installation.post(device, json.dumps({"ts": int(time.time() * 1000) + n, "a": n}).encode())
            for n in range(50)
        ]
        ledger = installation.get("/v1/ledger")

    assert [answer.status for answer in answers] == [202] * 50
    assert ledger["pending"] == 50
    wait_until(lambda: len(installation.points(device.id)) == 50, 10)
