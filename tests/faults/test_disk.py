"""F6, F7: the disk is full, refuses writes or fails to sync: 503 and no acknowledgement, and all goes on afterwards."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e.platform import Installation
from tests.faults.rig import RiggedSite, Run, Site
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.faults]
needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="a small disk needs mount, and mount needs root; the suite's CI is root"
)
LITTLE = 1_000_000


def wait_refused(run: Run, count: int = 5) -> None:
    before = run.load.statuses[503]
    wait_until(lambda: run.load.statuses[503] >= before + count, 30, "posts are refused")


def test_failed_sync_acknowledges_nothing(rigged: RiggedSite) -> None:
    run = rigged.run("sync").start(mqtt=2, http=3)
    rigged.fail("sync", errno.EIO, "spool/")
    wait_refused(run)
    accepted = run.load.statuses[202]
    wait_refused(run)
    assert run.load.statuses[202] == accepted

    rigged.heal()
    run.wait_acked(60)

    run.check()


@pytest.mark.parametrize(
    ("code", "below"), [(errno.ENOSPC, "spool/"), (errno.EROFS, "")], ids=["full spool", "read-only data"]
)
def test_refused_writes_cost_nothing(rigged: RiggedSite, code: int, below: str) -> None:
    run = rigged.run("refused-writes").start()
    restarts = rigged.restarts()
    rigged.fail("write", code, below)
    wait_refused(run)
    assert rigged.installation.call("GET", "/v1/query/latest").status == 200, "what is stored can be read"

    rigged.heal()
    run.wait_acked(100)

    run.check()
    assert rigged.restarts() == restarts


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A data folder of 48 MB."""
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m,mode=0700", "tmpfs", str(data)], check=True)
    yield data
    subprocess.run(["umount", "-l", str(data)], check=True)


@needs_root
def test_full_disk_refuses_answers_and_recovers(small_disk: Path) -> None:
    """The disk of everything: spool, store, registry and broker. First the spool is at its limit, then nothing is left."""
    limits = {"HEADWATER_SPOOL_LIMIT_BYTES": str(8 * LITTLE), "HEADWATER_SPOOL_FLOOR_BYTES": str(LITTLE)}
    site = Site(Installation(small_disk).start(**limits))
    run = site.run("full").start(mqtt=2, http=2)
    try:
        fill_and_free(site, run, small_disk / "ballast")
    finally:
        site.stop()
    assert "Traceback" not in site.installation.output()


def fill_and_free(site: Site, run: Run, ballast: Path) -> None:
    device = site.installation.add_device("filler")
    body = json.dumps([{"text": "x" * 900}] * 200).encode()
    with site.frozen("writer"):
        answer = wait_until(lambda: (got := site.installation.post(device, body)).status != 202 and got, 60, "full")
        assert (answer.status, answer.body["code"]) == (503, "spool_full")
        assert int(answer.headers["Retry-After"]) >= 1
        wait_refused(run)
        fill(ballast)
        wait_refused(run)
        assert site.installation.call("GET", "/v1/devices").status == 200
        ballast.unlink()
    wait_until(lambda: site.installation.post(device, b'{"again":1}').status == 202, 30, "there is room again")
    run.wait_acked(60)

    run.check()
    assert all(count == 0 for count in site.restarts().values())


def fill(ballast: Path) -> None:
    """Take all that is left of the disk."""
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
