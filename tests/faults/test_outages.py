"""The registry away, the store away, the spool's disk full: acknowledged data stays, and the answers tell the truth."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.platform import Installation
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.faults]


@contextmanager
def frozen(installation: Installation, name: str) -> Iterator[None]:
    """Stop a process and all its workers, so that it is there but does not answer."""
    master = next(p["pid"] for p in installation.status()["processes"] if p["name"] == name)
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(master)], capture_output=True, text=True, check=False)
    pids = [master, *(int(pid) for pid in listed.stdout.split())]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def test_known_devices_publish_while_the_registry_is_away(tmp_path: Path) -> None:
    installation = Installation(tmp_path / "data").start()
    device = installation.add_device("known")
    installation.wait_for_broker(device)
    assert installation.post(device, b'{"a":0}').status == 202

    with frozen(installation, "devices"):
        answers = [installation.post(device, json.dumps({"a": n}).encode()).status for n in range(1, 20)]
        sent = installation.publish(device, f"devices/{device.id}/telemetry", b'{"m":1}')
        unknown = installation.call("POST", "/v1/telemetry", b'{"a":1}', Authorization="Bearer never-seen.secret")

    assert answers == [202] * 19
    assert sent.returncode == 0
    assert unknown.status == 503
    assert int(unknown.headers["Retry-After"]) >= 1
    wait_until(lambda: len(installation.points(device.id)) == 21, 10)
    assert installation.stop() == 0


def test_the_spool_holds_while_the_writer_is_away(tmp_path: Path) -> None:
    installation = Installation(tmp_path / "data").start()
    device = installation.add_device("held")

    with frozen(installation, "writer"):
        answers = [
            installation.post(device, json.dumps({"ts": int(time.time() * 1000) + n, "a": n}).encode())
            for n in range(50)
        ]
        ledger = installation.get("/v1/ledger")

    assert [answer.status for answer in answers] == [202] * 50
    assert ledger["pending"] == 50
    wait_until(lambda: len(installation.points(device.id)) == 50, 10)
    assert installation.settle()["stored"] == 50
    assert installation.stop() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="a small disk needs mount, and mount needs root; the suite's CI is root")
def test_a_full_spool_disk_refuses_and_recovers(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "spool").mkdir(parents=True)
    data.chmod(0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(data / "spool")], check=True)
    try:
        fill_and_free(Installation(data))
    finally:
        subprocess.run(["umount", "-l", str(data / "spool")], check=True)


def fill_and_free(installation: Installation) -> None:
    installation.start(HEADWATER_SPOOL_FLOOR_BYTES="500000")
    device = installation.add_device("many")
    installation.wait_for_broker(device)
    accepted, start_ms = 0, int(time.time() * 1000)
    with frozen(installation, "writer"):
        for n in range(400):
            batch = [{"ts": start_ms + n * 100 + k, "text": "x" * 900} for k in range(50)]
            answer = installation.post(device, json.dumps(batch).encode())
            if answer.status != 202:
                break
            accepted += answer.body["accepted"]
        assert (answer.status, answer.body["code"]) == (503, "spool_full")
        assert int(answer.headers["Retry-After"]) >= 1
        assert installation.publish(device, f"devices/{device.id}/telemetry", b'{"last":1}').returncode == 0
        assert installation.status()["processes"]

    wait_until(lambda: installation.post(device, b'{"again":1}').status == 202, 15)
    wait_until(lambda: len(installation.points(device.id)) == accepted + 2, 30, what=f"{accepted} + 2 points")
    assert installation.stop() == 0
