"""Rotation of the secrets of many devices, as a job: issue, wait until each has switched, end the old ones.

New credentials come beside the old ones, which go on working. They end when all devices have used their new one, when
the overlap is over, or when an operator says so. A cancel takes back the new ones that nobody used: nobody is cut off.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import orjson

from devices import credentials
from devices.jobs.kinds import DAY_S, Job, Kind, Step
from devices.rows import CredentialRow, Who
from wire import clock
from wire.clock import NS_PER_S
from wire.jobs import JobView
from wire.registry import CredentialCreate

JOB_KIND = "credential.rotate"
PART = 200  # devices a turn
LOOK_S = 2.0  # between two looks at who has switched
COLUMNS = ("device", "credential", "secret", "code")
Effect = Callable[[Any], None]


class Rows(Protocol):
    """Where rotations are kept; see `devices.rotations.store.RotationStore`."""

    def fit(self, tenant: str, ids: Sequence[str]) -> dict[str, str | None]: ...
    def issuing(self, job: Job, rows: Sequence[CredentialRow]) -> Effect: ...
    def ending(self, job: Job, ids: Sequence[str]) -> Effect: ...
    def withdrawing(self, job: Job, ids: Sequence[str]) -> Effect: ...
    def page(self, job: Job, after: str, limit: int) -> list[str]: ...
    def count_waiting(self, job_id: str) -> int: ...


class Inputs(Protocol):
    """Where jobs keep their input; see `devices.jobs.store.JobStore`."""

    def read_input(self, job_id: str, number: int) -> str | None: ...


class Queue(Protocol):
    """Takes jobs; see `devices.jobs.service.Jobs`."""

    def start(
        self, kind: str, spec: dict[str, Any], by: tuple[str, Who], total: int | None = None, parts: Sequence[str] = ()
    ) -> JobView: ...


class Rotation:
    """The turns of such a job."""

    def __init__(self, rows: Rows, inputs: Inputs) -> None:
        self._rows = rows
        self._inputs = inputs

    def kind(self) -> Kind:
        """Describe its jobs."""
        return Kind(self._turn, self._undo, "text/csv", DAY_S, is_secret=True)

    def start(self, queue: Queue, ids: Sequence[str], spec: dict[str, Any], by: tuple[str, Who]) -> JobView:
        """Queue a rotation for these devices; `spec` holds `query` and `overlap_s`."""
        parts = [orjson.dumps(ids[start : start + PART]).decode() for start in range(0, len(ids), PART)]
        return queue.start(JOB_KIND, spec, by, len(ids), parts)

    def _turn(self, job: Job) -> Step:
        if "after" in job.cursor:
            return self._end(job)
        if "until_ns" in job.cursor:
            return self._watch(job)
        return self._issue(job)

    def _issue(self, job: Job) -> Step:
        number = job.cursor.get("part", 0)
        content = self._inputs.read_input(job.id, number)
        head = "" if number else ",".join(COLUMNS) + "\n"
        if content is None:
            until_ns = clock.now_ns() + int(job.spec["overlap_s"] * NS_PER_S)
            return Step(cursor={"until_ns": until_ns}, output=head, result={"until": clock.format_ns(until_ns)})
        verdicts = self._rows.fit(job.tenant, orjson.loads(content))
        fit = [device for device, code in verdicts.items() if code is None]
        made = [credentials.issue(device, clock.now_ns(), CredentialCreate(label="rotation")) for device in fit]
        lines = [(issued.username, issued.id, issued.secret, "") for issued, _ in made]
        lines += [(device, "", "", code) for device, code in verdicts.items() if code is not None]
        return Step(
            failed=len(verdicts) - len(fit),
            cursor={"part": number + 1},
            result={"issued": job.result.get("issued", 0) + len(fit)},
            output=head + _to_csv(lines),
            effect=self._rows.issuing(job, [row for _, row in made]) if made else None,
        )

    def _watch(self, job: Job) -> Step:
        waiting = self._rows.count_waiting(job.id)
        switched = max(job.done, job.result.get("issued", 0) - waiting)
        is_over = not waiting or job.cursor.get("finish") or clock.now_ns() >= job.cursor["until_ns"]
        return Step(
            done=switched - job.done,
            failed=waiting if is_over else 0,
            cursor=job.cursor | {"after": ""} if is_over else None,
            result={"switched": switched, "waiting": waiting},
            wait_s=0.0 if is_over else LOOK_S,
        )

    def _end(self, job: Job) -> Step:
        ids = self._rows.page(job, job.cursor["after"], PART)
        if not ids:
            return Step(is_last=True)
        return Step(cursor=job.cursor | {"after": ids[-1]}, effect=self._rows.ending(job, ids))

    def _undo(self, job: Job) -> Step:
        ids = self._rows.page(job, job.cursor.get("withdrawn", ""), PART)
        if not ids:
            return Step(is_last=True)
        return Step(cursor=job.cursor | {"withdrawn": ids[-1]}, effect=self._rows.withdrawing(job, ids))


def _to_csv(lines: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()
