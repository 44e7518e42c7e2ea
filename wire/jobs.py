"""Jobs of the registry as its routes show them: long work with progress."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from wire.points import TimeNs

JobState = Literal["queued", "running", "done", "failed", "cancelled"]


class JobView(BaseModel):
    """A job; `total` is null while unknown, `download` the path of its output when there is one."""

    id: str
    kind: str
    state: JobState
    cancelling: bool
    done: int
    failed: int
    total: int | None
    spec: dict[str, Any]
    result: dict[str, Any]
    error: str | None
    download: str | None
    by: str
    created: TimeNs
    started: TimeNs | None
    finished: TimeNs | None


class JobPage(BaseModel):
    """Jobs, newest first; `next` is the cursor of the following page."""

    items: list[JobView]
    next: str | None
