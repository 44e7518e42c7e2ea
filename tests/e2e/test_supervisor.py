"""`headwater up` as a person meets it: ports, folders, second starts, ctrl-C, leftovers."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.platform import HEADWATER, Installation, free_ports
from tests.support.waiting import wait_until

pytestmark = pytest.mark.e2e


def up(data: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [HEADWATER, "up", "--no-demo", "--data", str(data), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def children_of(pid: int) -> set[int]:
    """All descendants, found by walking /proc."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
    found, grew = {pid}, True
    while grew:
        more = {child for child, parent in parents.items() if parent in found} - found
        found, grew = found | more, bool(more)
    return found - {pid}


def test_second_start_on_the_same_folder_is_one_clear_line(installation: Installation) -> None:
    result = up(installation.data, "--port", "1", "--mqtt-port", "2")

    assert result.returncode == 1
    assert len(result.stderr.strip().splitlines()) == 1
    assert str(installation.data) in result.stderr


@pytest.mark.parametrize("flag", ["--port", "--mqtt-port"])
def test_taken_port_is_named_in_one_line(tmp_path: Path, flag: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        other = "--mqtt-port" if flag == "--port" else "--port"

        result = up(tmp_path / "data", flag, str(port), other, str(free_ports(1)[0]))

    assert result.returncode == 1
    assert len(result.stderr.strip().splitlines()) == 1
    assert str(port) in result.stderr


def test_folder_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")

    result = up(tmp_path / "file/data")

    assert result.returncode == 1
    assert len(result.stderr.strip().splitlines()) == 1
    assert "file/data" in result.stderr


def test_secrets_are_private_and_the_password_is_printed_once(tmp_path: Path) -> None:
    installation = Installation(tmp_path / "data").start()
    first = installation.output()
    secrets = list((installation.data / "secrets").iterdir())
    installation.stop()
    installation.log.unlink()
    installation.start()
    second = installation.output()
    installation.stop()

    assert "admin" in first
    assert all(path.stat().st_mode & 0o077 == 0 for path in secrets)
    password = next(word for line in first.splitlines() if "password" in line.lower() for word in line.split()[-1:])
    assert password not in second
    stored = [
        path for path in installation.data.rglob("*") if path.is_file() and password.encode() in path.read_bytes()
    ]
    assert stored == []


@pytest.mark.faults
@pytest.mark.alone
def test_everything_ends_within_ten_seconds_and_leaves_no_orphan(tmp_path: Path) -> None:
    installation = Installation(tmp_path / "data").start()
    processes = children_of(installation.pid)
    assert len(processes) > 6

    started = time.monotonic()
    code = installation.stop()

    assert code == 0
    assert time.monotonic() - started < 10
    wait_until(lambda: not [pid for pid in processes if alive(pid)], 2, what="no orphan")


@pytest.mark.faults
def test_killed_supervisor_leaves_nothing_and_starts_again(tmp_path: Path) -> None:
    installation = Installation(tmp_path / "data").start()
    processes = children_of(installation.pid)

    installation.kill()

    wait_until(lambda: not [pid for pid in processes if alive(pid)], 10, what="no orphan")
    installation.start()
    assert installation.stop() == 0


@pytest.mark.faults
def test_each_killed_process_is_back(tmp_path: Path) -> None:
    installation = Installation(tmp_path / "data").start()
    before: dict[str, int] = {each["name"]: each["pid"] for each in installation.status()["processes"] if each["pid"]}
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)

    def is_back() -> bool:
        status = installation.status()
        restarts = {each["name"]: each["restarts"] for each in status["processes"]}
        return bool(status.get("ready")) and all(restarts[name] >= 1 for name in before)

    wait_until(is_back, 30, every_s=0.2)
    device = installation.add_device("after")
    assert installation.post(device, b'{"a":1}').status == 202
    wait_until(lambda: installation.points(device.id), 5)
    assert installation.stop() == 0


def test_data_folder_is_for_its_user_alone(installation: Installation) -> None:
    def is_open(path: Path) -> bool:
        try:
            return path.stat().st_mode & 0o077 != 0
        except FileNotFoundError:  # a file that came and went
            return False

    assert [str(path) for path in (installation.data, *installation.data.rglob("*")) if is_open(path)] == []
