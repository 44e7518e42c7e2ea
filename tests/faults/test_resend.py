"""F3 to its end: a killed broker forgets what it acknowledged; the gap audit says so, and devices send it again."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.platform import HEADWATER
from tests.faults.rig import RiggedSite
from tests.support.tied import tied
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.faults]
DEVICES, RATE, DURATION_S, KILLS = 30, "20/s", 20, 2


def begin(site: RiggedSite, report: Path, prefix: str, *more: str) -> subprocess.Popen[str]:
    """Start simulated devices that send for DURATION_S."""
    command = [HEADWATER, "sim", "run", "--devices", str(DEVICES), "--rate", RATE, "--duration", f"{DURATION_S}s"]
    command += ["--ramp", "200/s", "--url", site.installation.url, "--mqtt", f"127.0.0.1:{site.installation.mqtt}"]
    command += ["--token-file", str(site.data / "secrets/operator.token"), "--seed", "7", "--prefix", prefix]
    command += ["--verify", "--report", str(report), *more]
    return subprocess.Popen(tied(*command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def end(simulation: subprocess.Popen[str], report: Path) -> dict[str, Any]:
    """Give the verdict of a fleet."""
    output, _ = simulation.communicate(timeout=DURATION_S + 120)
    assert report.exists(), output[-3000:]
    found: dict[str, Any] = json.loads(report.read_text())
    return found


def kill_broker(site: RiggedSite) -> None:
    """Kill it with messages that it has not passed on."""
    time.sleep(1.5)  # spread over the first part of the load: only what later numbers follow is a gap
    site.to_broker.cut()
    time.sleep(1.0)  # some hundred messages that nobody takes: what was on its way at the cut has been saved
    before = site.pid("broker")
    site.kill("broker")
    wait_until(lambda: site.pid("broker") != before, 20, "the broker is back")
    site.to_broker.heal()


def missing(site: RiggedSite, prefix: str) -> int:
    """What the platform itself reports as missing of the devices of a run."""
    items = site.installation.get(f"/v1/devices?q={prefix}&limit=500")["items"]
    assert len(items) == DEVICES
    return sum(site.installation.get(f"/v1/devices/{item['id']}/ledger")["missing"] for item in items)


def test_every_loss_of_a_killed_broker_is_reported_and_sent_again_by_devices_that_listen(
    rigged: RiggedSite, tmp_path: Path
) -> None:
    """Two fleets under the same kills: one keeps its readings until its acks topic covers them, the other does not."""
    reports = tmp_path / "listen.json", tmp_path / "forget.json"
    listening, forgetting = begin(rigged, reports[0], "resend-"), begin(rigged, reports[1], "forget-", "--outbox", "0")
    for _ in range(KILLS):
        kill_broker(rigged)

    found, other = end(listening, reports[0]), end(forgetting, reports[1])

    print(f"lost {other['lost']} in {KILLS} kills")
    assert (found["lost"], found["duplicates"], other["duplicates"]) == (0, 0, 0), (found, other)
    assert found["acked"] == found["sent"] > 0
    assert other["acked"] == other["sent"] > 0
    assert found["errors"]["resent_missing"] > 0
    wait_until(lambda: missing(rigged, "resend-") == 0, 10, "no gap is left")
    wait_until(lambda: missing(rigged, "forget-") == other["lost"], 10, f"as many gaps as losses: {other['lost']}")
