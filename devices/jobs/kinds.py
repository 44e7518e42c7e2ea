"""What a kind of job is: a function that does one short turn of it. Knows no HTTP and no SQL.

A job's turns follow each other until one says `is_last`. What a turn changes (`effect`) is committed together with the
progress it reports, so a process that is killed repeats a turn whose effect is nowhere, and skips one whose effect is
there. Turns of several jobs alternate in one thread: a turn takes tenths of a second, never seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from devices.rows import Who

DAY_S = 86_400.0


@dataclass(slots=True, frozen=True)
class Job:
    """A job as its next turn finds it."""

    id: str
    tenant: str
    kind: str
    spec: dict[str, Any]  # what was asked for; shown to whoever may see jobs: no secrets
    who: Who
    turn: int = 0
    done: int = 0
    failed: int = 0
    total: int | None = None
    cursor: dict[str, Any] = field(default_factory=dict)  # as the last turn left it; not shown
    result: dict[str, Any] = field(default_factory=dict)
    is_cancelled: bool = False
    created_ns: int = 0


@dataclass(slots=True, frozen=True)
class Step:
    """What one turn did; JSON values only."""

    done: int = 0  # added to what was done before
    failed: int = 0
    total: int | None = None  # when it became known only now
    cursor: dict[str, Any] | None = None  # for the next turn; None leaves it
    result: dict[str, Any] | None = None  # merged into what is shown with the job
    output: str = ""  # appended to the file that can be downloaded
    effect: Callable[[Any], None] | None = None  # gets the open transaction, `devices.database.engine.Write`
    is_last: bool = False
    wait_s: float = 0.0  # least time until the next turn


class TurnTaken(Exception):  # noqa: N818 - no error: somebody else was faster
    """Another host did this turn of a job."""


Turn = Callable[[Job], Step]


@dataclass(slots=True, frozen=True)
class Kind:
    """How jobs of one kind are done.

    A turn that raises `wire.errors.RetryLater` or `Conflict` is repeated, any other error ends the job as failed.
    """

    turn: Turn
    undo: Turn | None = None  # turns after a cancel, until `is_last`; None: it just ends
    media_type: str = "application/x-ndjson"  # of the output
    kept_s: float = 7 * DAY_S  # how long the output can be downloaded after the end, unless it is deleted before
    is_secret: bool = False  # each download is audited, and `kept_s` counts from when it is written


@dataclass(slots=True, frozen=True)
class JobFilter:
    """Which jobs to list."""

    tenant: str
    kind: str | None = None
    state: str | None = None
    before: str = ""
    limit: int = 100
    by: str | None = None
