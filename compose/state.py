"""What the supervisor tells others through files: run/state.json, and run/<name>.pid for each process."""

from __future__ import annotations

import json
from typing import Literal

from pydantic import BaseModel

from compose.folder import Folder

ProcessState = Literal["waiting", "idle", "starting", "running", "restarting", "stopped"]


class ProcessRecord(BaseModel):
    """One supervised process."""

    name: str
    pid: int | None = None
    state: ProcessState = "waiting"
    restarts: int = 0
    start_ticks: int = 0  # with `boot_id` it tells this process from a later one with the same number
    ready_url: str = ""


class State(BaseModel):
    """All of run/state.json."""

    supervisor_pid: int
    boot_id: str
    ready: bool = False
    url: str  # what people open
    near_url: str  # what this machine's command line uses
    mqtt: str
    ready_s: float | None = None  # from start to ready
    processes: list[ProcessRecord] = []


def read(folder: Folder) -> State | None:
    """Read the state of the last or present run; None when there is none."""
    try:
        return State.model_validate_json(folder.state.read_bytes())
    except (OSError, ValueError):
        return None


def write(folder: Folder, state: State) -> None:
    """Replace run/state.json as a whole. Not fsynced: it says nothing after a crash of the machine."""
    fresh = folder.state.with_suffix(".new")
    fresh.write_text(json.dumps(state.model_dump(), indent=1) + "\n")
    fresh.rename(folder.state)


def write_pid(folder: Folder, name: str, pid: int | None) -> None:
    """Write run/<name>.pid, or remove it."""
    path = folder.run / f"{name}.pid"
    if pid is None:
        path.unlink(missing_ok=True)
        return
    fresh = folder.run / f".{name}.pid.new"
    fresh.write_text(f"{pid}\n")
    fresh.replace(path)
