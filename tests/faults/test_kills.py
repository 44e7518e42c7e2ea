"""kill -9 and freezes of each process but the broker, under load: nothing acknowledged is lost, nothing shows twice.

The short form runs in the suite; HEADWATER_TEST_LONG=1 runs 1,000 devices for 60 s over both transports.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.platform import HEADWATER, Installation
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.faults]
IS_LONG = bool(os.environ.get("HEADWATER_TEST_LONG"))
DEVICES, DURATION_S = (1_000, 60) if IS_LONG else (100, 14)
KILLED = ("bridge", "ingest-json", "writer", "devices", "dashboard", "gateway")


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    started = Installation(tmp_path_factory.mktemp("faults") / "data").start()
    yield started
    assert started.stop() == 0


def simulate(installation: Installation, tmp_path: Path, *more: str) -> subprocess.Popen[str]:
    command = [HEADWATER, "sim", "run", "--devices", str(DEVICES), "--rate", "1/s" if IS_LONG else "5/s"]
    command += ["--duration", f"{DURATION_S}s", "--ramp", "200/s", "--url", installation.url]
    command += [
        "--mqtt",
        f"127.0.0.1:{installation.mqtt}",
        "--token-file",
        str(installation.data / "secrets/operator.token"),
    ]
    command += ["--verify", "--report", str(tmp_path / "report.json"), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def verdict(simulation: subprocess.Popen[str], tmp_path: Path) -> dict[str, Any]:
    output, _ = simulation.communicate(timeout=DURATION_S + 120)
    assert simulation.returncode == 0, output[-3000:]
    return json.loads((tmp_path / "report.json").read_text())


def pids(installation: Installation) -> dict[str, int]:
    return {process["name"]: process["pid"] for process in installation.status()["processes"]}


@pytest.mark.parametrize("transport", ["mqtt", "http"])
def test_load_is_stored_whole(fresh: Installation, tmp_path: Path, transport: str) -> None:
    report = verdict(simulate(fresh, tmp_path, "--transport", transport), tmp_path)

    assert report["sent"] == report["acked"] > DEVICES
    assert (report["lost"], report["duplicates"]) == (0, 0)


@pytest.mark.parametrize("transport", ["mqtt", "http"])
def test_killing_each_process_in_turn_loses_nothing(fresh: Installation, tmp_path: Path, transport: str) -> None:
    simulation = simulate(fresh, tmp_path, "--transport", transport, "--seed", "7")
    time.sleep(DURATION_S / 10)  # the load must have begun: what is tested is a kill under load
    for name in KILLED:
        os.kill(pids(fresh)[name], signal.SIGKILL)
        time.sleep(DURATION_S / 10)

    report = verdict(simulation, tmp_path)

    assert (report["lost"], report["duplicates"]) == (0, 0), report
    wait_until(lambda: fresh.status()["ready"], 20)
    ledger = fresh.settle()
    assert ledger["accepted"] == ledger["stored"] + ledger["pending"] + ledger["duplicates"]


def test_freezing_bridge_ingest_and_writer_loses_nothing(fresh: Installation, tmp_path: Path) -> None:
    simulation = simulate(fresh, tmp_path, "--transport", "mqtt", "--seed", "9")
    time.sleep(DURATION_S / 10)
    for name in ("bridge", "ingest-json", "writer"):
        pid = pids(fresh)[name]
        os.kill(pid, signal.SIGSTOP)
        time.sleep(2)
        os.kill(pid, signal.SIGCONT)

    report = verdict(simulation, tmp_path)

    assert (report["lost"], report["duplicates"]) == (0, 0), report


def test_broker_restart_is_survived(fresh: Installation, tmp_path: Path) -> None:
    simulation = simulate(fresh, tmp_path, "--transport", "mqtt", "--seed", "11", "--fail-if", "lost>100000")
    time.sleep(DURATION_S / 3)
    os.kill(pids(fresh)["broker"], signal.SIGTERM)

    report = verdict(simulation, tmp_path)

    assert (report["lost"], report["duplicates"]) == (0, 0), report
    wait_until(lambda: fresh.status()["ready"], 20)
