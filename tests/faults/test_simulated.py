"""The product's own proof under kills: `headwater sim run --verify`, as the README shows it.

HEADWATER_TEST_LONG=1 runs 1,000 devices for 60 s over MQTT and over HTTP; the short form MQTT alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.platform import HEADWATER
from tests.faults.rig import Site

pytestmark = [pytest.mark.e2e, pytest.mark.faults]
IS_LONG = bool(os.environ.get("HEADWATER_TEST_LONG"))
DEVICES, RATE, DURATION_S = (1_000, "1/s", 60) if IS_LONG else (100, "5/s", 12)
KILLED = ("bridge", "ingest-json", "writer", "devices", "dashboard", "gateway")


@pytest.mark.parametrize("transport", ["mqtt", "http"] if IS_LONG else ["mqtt"])
def test_simulated_devices_lose_nothing_under_kills(site: Site, tmp_path: Path, transport: str) -> None:
    report = tmp_path / "report.json"
    command = [HEADWATER, "sim", "run", "--devices", str(DEVICES), "--rate", RATE, "--duration", f"{DURATION_S}s"]
    command += ["--ramp", "200/s", "--url", site.installation.url, "--mqtt", f"127.0.0.1:{site.installation.mqtt}"]
    command += ["--token-file", str(site.data / "secrets/operator.token"), "--transport", transport, "--seed", "7"]
    command += ["--prefix", f"{transport}-", "--verify", "--report", str(report)]
    simulation = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for name in KILLED:
        time.sleep(DURATION_S / 8)  # spread over the load: what is tested is a kill under load
        site.kill(name)

    output, _ = simulation.communicate(timeout=DURATION_S + 120)

    assert simulation.returncode == 0, output[-3000:]
    found = json.loads(report.read_text())
    assert found["acked"] > DEVICES
    assert (found["lost"], found["duplicates"]) == (0, 0), found
    site.wait_ready()
    ledger = site.installation.settle()
    assert ledger["accepted"] == ledger["stored"] + ledger["pending"] + ledger["duplicates"]
