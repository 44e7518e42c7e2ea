"""An import meets a full disk: it waits, says why to whoever writes, and goes on by itself when there is room."""

from __future__ import annotations

import csv
import io
import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from devices.config import DevicesConfig
from tests.devices.running import ADMIN, SERVICE, Service
from tests.support.waiting import wait_until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a small disk needs mount, and mount needs root")
DEVICES = 6_000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A data folder of 24 MB."""
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=0700", "tmpfs", str(data)], check=True)
    yield data
    subprocess.run(["umount", "-l", str(data)], check=True)


@pytest.fixture
def registry(small_disk: Path) -> Iterator[Service]:
    started = Service(DevicesConfig(data=small_disk, broker="", operator_token=ADMIN, service_token=SERVICE))
    yield started
    started.stop()


def fill(ballast: Path) -> None:
    with ballast.open("ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


def test_import_waits_while_the_disk_is_full_and_misses_nothing(registry: Service, small_disk: Path) -> None:
    table = "id\n" + "\n".join(f"d{number}" for number in range(DEVICES))
    job = registry.admin("POST", "/v1/devices:import?job=true", data=table, content_type="text/csv").json
    path, ballast = f"/v1/jobs/{job['id']}", small_disk / "ballast"
    wait_until(lambda: registry.admin("GET", path).json["done"] > 0, 20)

    def is_full() -> bool:
        fill(ballast)  # what SQLite gives back meanwhile, too
        refused = registry.admin("POST", "/v1/devices", {"id": "one-more"})
        return refused.status_code == 503 and refused.json["detail"] == "the registry's disk is full"

    wait_until(is_full, 20)
    stuck = registry.admin("GET", path).json
    ballast.unlink()
    over = wait_until(lambda: (seen := registry.admin("GET", path).json)["state"] != "running" and seen, 60)

    assert (stuck["state"], 0 < stuck["done"] < DEVICES) == ("running", True)
    assert (over["state"], over["done"], over["failed"], over["result"]["created"]) == ("done", DEVICES, 0, DEVICES)
    rows = list(csv.DictReader(io.StringIO(registry.admin("GET", path + "/result").text)))
    assert len({row["id"] for row in rows}) == len(rows) == DEVICES
    for row in (rows[0], rows[len(rows) // 2], rows[-1]):
        bearer = {"Authorization": f"Bearer {row['id']}.{row['secret']}"}
        assert registry.nobody("GET", "/v1/device/twin", headers=bearer).status_code in (200, 204)
