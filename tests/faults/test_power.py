"""F16: a power cut. `kill -9` leaves the page cache to the kernel and so proves nothing about fsync; here a library
preloaded into every process keeps what each last fsync saw, and the platform starts again on that alone.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.rig import RiggedSite
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.faults]
NOT_OURS = ("secrets", "run", "broker")  # made at the first start, or the broker's own


@pytest.fixture
def powered(tmp_path: Path) -> Iterator[RiggedSite]:
    """A platform of which each file's last fsync is kept beside it."""
    survivors = tmp_path / "survivors"
    survivors.mkdir()
    site = RiggedSite(tmp_path, FAULT_SURVIVES=str(survivors)).start()
    yield site
    site.end_runs()
    site.stop()


def cut_power(site: RiggedSite) -> None:
    """End everything at once, the supervisor stopped first so that it can neither restart nor tidy up."""
    os.kill(site.installation.pid, signal.SIGSTOP)
    names = [path.stem for path in (site.data / "run").glob("*.pid")]
    pids = [pid for name in names for pid in site.family(name)]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    site.installation.kill()
    wait_until(lambda: not any(is_alive(pid) for pid in pids), 10, "all are gone")


def is_alive(pid: int) -> bool:
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def keep_what_was_synced(folder: Path, survivors: Path) -> int:
    """Replace files by what their last fsync saw, and drop names that no fsync of their folder saw; give the number
    of files that are shorter or gone.
    """
    names = (survivors / ".names").read_text().split("\n") if (survivors / ".names").exists() else []
    changed = 0
    for path in list(folder.iterdir()):
        kept = survivors / path.name
        if path.is_dir() and path.name in names:
            changed += keep_what_was_synced(path, kept)
        elif path.is_dir():
            shutil.rmtree(path)
        elif path.name not in names or path.name.endswith("-shm"):  # SQLite makes its index of the WAL anew
            path.unlink()
            changed += not path.name.endswith("-shm")
        else:
            content = kept.read_bytes() if kept.exists() else b""
            changed += content != path.read_bytes()
            path.write_bytes(content)
    return changed


def test_what_was_acknowledged_survives_a_power_cut(powered: RiggedSite, tmp_path: Path) -> None:
    site = powered
    run = site.run("power").start(mqtt=0, http=4)
    with site.frozen("writer"):  # what it has not stored is in the spool only, until the end
        run.wait_acked(50)
        cut_power(site)
    for name in NOT_OURS:
        shutil.copytree(site.data / name, tmp_path / "kept" / name)
    keep_what_was_synced(site.data, tmp_path / "survivors")
    for name in NOT_OURS:
        shutil.copytree(tmp_path / "kept" / name, site.data / name, dirs_exist_ok=True)
    site.start()

    run.check()
