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
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.faults]
DEVICES, RATE, DURATION_S, KILLS = 30, "20/s", 20, 3


def simulate(site: RiggedSite, report: Path, prefix: str, *more: str) -> dict[str, Any]:
    """Run devices while the broker is killed with messages that it has not passed on; give their verdict."""
    command = [HEADWATER, "sim", "run", "--devices", str(DEVICES), "--rate", RATE, "--duration", f"{DURATION_S}s"]
    command += ["--ramp", "200/s", "--url", site.installation.url, "--mqtt", f"127.0.0.1:{site.installation.mqtt}"]
    command += ["--token-file", str(site.data / "secrets/operator.token"), "--seed", "7", "--prefix", prefix]
    command += ["--verify", "--report", str(report), *more]
    simulation = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for _ in range(KILLS):
        time.sleep(1.5)  # spread over the first part of the load: only what later numbers follow is a gap
        site.to_broker.cut()
        time.sleep(1.0)  # some hundred messages that nobody takes: what was on its way at the cut has been saved
        before = site.pid("broker")
        site.kill("broker")
        wait_until(lambda before=before: site.pid("broker") != before, 20, "the broker is back")
        site.to_broker.heal()
    output, _ = simulation.communicate(timeout=DURATION_S + 120)
    assert report.exists(), output[-3000:]
    found: dict[str, Any] = json.loads(report.read_text())
    return found


def missing(site: RiggedSite, prefix: str) -> int:
    """What the platform itself reports as missing of the devices of a run."""
    items = site.installation.get(f"/v1/devices?q={prefix}&limit=500")["items"]
    assert len(items) == DEVICES
    return sum(site.installation.get(f"/v1/devices/{item['id']}/ledger")["missing"] for item in items)


def test_devices_that_listen_to_their_acks_lose_nothing(rigged: RiggedSite, tmp_path: Path) -> None:
    found = simulate(rigged, tmp_path / "report.json", "resend-")

    assert (found["lost"], found["duplicates"]) == (0, 0), found
    assert found["acked"] == found["sent"] > 0
    assert found["errors"]["resent_missing"] > 0
    wait_until(lambda: missing(rigged, "resend-") == 0, 10, "no gap is left")


def test_every_loss_of_a_killed_broker_is_reported(rigged: RiggedSite, tmp_path: Path) -> None:
    found = simulate(rigged, tmp_path / "report.json", "forget-", "--outbox", "0")

    print(f"lost {found['lost']} in {KILLS} kills")
    assert found["duplicates"] == 0, found
    assert found["acked"] == found["sent"] > 0
    wait_until(lambda: missing(rigged, "forget-") == found["lost"], 10, "gaps reported are gaps real")
