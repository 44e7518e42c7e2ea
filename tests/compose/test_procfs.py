"""Processes in /proc."""

from __future__ import annotations

import os
import subprocess
import sys

from compose import procfs
from tests.compose.standins import is_alive
from tests.support.waiting import wait_until

NAP = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]


def test_this_process_is_described() -> None:
    seen = procfs.look(os.getpid())

    assert seen is not None
    assert seen.session == os.getsid(0)
    assert procfs.look(2**22 + 1) is None


def test_session_is_found_only_with_the_right_start() -> None:
    with subprocess.Popen(NAP, start_new_session=True) as process:
        seen = wait_until(lambda: procfs.look(process.pid))

        assert [member.pid for member in procfs.members(process.pid, seen.start_ticks)] == [process.pid]
        assert procfs.members(process.pid, seen.start_ticks - 1) == []
        process.kill()


def test_process_with_a_reused_number_is_left_alone() -> None:
    with subprocess.Popen(NAP, start_new_session=True) as process:
        seen = wait_until(lambda: procfs.look(process.pid))

        assert procfs.end([(process.pid, seen.start_ticks + 5)], 0.1) == 0
        assert is_alive(process.pid)
        process.kill()


def test_zombie_is_no_process() -> None:
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])

    assert wait_until(lambda: procfs.look(process.pid) is None)
    process.wait()
