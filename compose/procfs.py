"""Processes as Linux shows them in /proc: who is who beyond doubt, and ending what an earlier run left behind."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
POLL_S = 0.02
# Places in /proc/PID/stat after the name (proc(5) counts from 3 there).
_STATE, _SESSION, _START = 0, 3, 19


@dataclass(slots=True, frozen=True)
class Process:
    """One running process."""

    pid: int
    session: int
    start_ticks: int
    uid: int


def boot_id() -> str:
    """Name this boot of the machine: process ids of another one mean nothing."""
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


def look(pid: int) -> Process | None:
    """Describe a process; None when there is none (or only its remains)."""
    try:
        stat = (PROC / str(pid) / "stat").read_text()
        uid = (PROC / str(pid)).stat().st_uid
    except (OSError, UnicodeDecodeError):
        return None
    parts = stat.rpartition(")")[2].split()  # the name may hold anything, also spaces and parentheses
    if parts[_STATE] in "ZX":
        return None
    return Process(pid, int(parts[_SESSION]), int(parts[_START]), uid)


def members(session: int, start_ticks: int) -> list[Process]:
    """Find the processes of the session that the process `session`, started at `start_ticks`, led.

    The leader may be gone. A later process with its number would lead a session of its own, so a live leader with
    another start time means that nothing is left of the old one.
    """
    leader = look(session)
    if leader is not None and leader.start_ticks != start_ticks:
        return []
    mine = os.geteuid()
    found = (look(pid) for pid in _pids())
    return [p for p in found if p and p.session == session and p.uid == mine and p.start_ticks >= start_ticks]


def end(found: Iterable[tuple[int, int]], grace_s: float) -> int:
    """End sessions, given as (leader's pid, its start), politely and then not; give how many processes that were."""
    sessions = list(found)
    first = _signal(sessions, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while _alive(sessions) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    _signal(sessions, signal.SIGKILL)
    while _alive(sessions) and time.monotonic() < deadline + grace_s:
        time.sleep(POLL_S)
    return first


def _alive(sessions: list[tuple[int, int]]) -> bool:
    return any(members(pid, start) for pid, start in sessions)


def _signal(sessions: list[tuple[int, int]], number: signal.Signals) -> int:
    targets = [process.pid for pid, start in sessions for process in members(pid, start)]
    for pid in targets:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
    return len(targets)


def _pids() -> Iterator[int]:
    return (int(path.name) for path in PROC.iterdir() if path.name.isdigit())
