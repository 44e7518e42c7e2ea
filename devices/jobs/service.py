"""The registry's verbs for jobs, and the runner that does their turns. Knows no HTTP and no SQL."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from chassis import logs
from devices.jobs.kinds import DAY_S, Job, JobFilter, Kind, Step, TurnTaken
from devices.rows import Who
from wire import clock
from wire.clock import NS_PER_S
from wire.errors import Conflict, HeadwaterError, NotFound, RetryLater
from wire.jobs import JobState, JobView

log = logs.get(__name__)
POLL_S = 0.2  # how soon a new job is noticed
RETRY_S = 1.0  # after a turn for which something was away
MAX_CONFLICTS = 5  # turns in a row that contradicted what others had changed
CLEAN_S = 600.0
JOBS_KEPT_S = 90 * DAY_S


class JobRows(Protocol):
    """Where jobs are kept; see `devices.jobs.store.JobStore`."""

    def add(self, job: Job, parts: Sequence[str] = ()) -> None: ...
    def find(self, tenant: str, job_id: str) -> JobView: ...
    def list(self, wanted: JobFilter) -> list[JobView]: ...
    def cancel(self, tenant: str, job_id: str, who: Who) -> None: ...
    def read_output(self, job_id: str) -> Iterator[str]: ...
    def drop_output(self, tenant: str, job_id: str, who: Who) -> None: ...
    def note(self, who: Who, action: str, job_id: str) -> None: ...


class DueJobs(Protocol):
    """What the runner needs; see `devices.jobs.store.JobStore`."""

    def due(self, now_ns: int) -> Sequence[Job]: ...
    def advance(self, job: Job, step: Step, ends_as: JobState | None) -> None: ...
    def fail(self, job: Job, why: str) -> None: ...
    def drop_old(self, kept_ns: Mapping[str, int], secret: Sequence[str], jobs_before_ns: int, now_ns: int) -> None: ...


class Jobs:
    """Long work with progress; thread-safe. Whoever offers some calls `start` and answers 202 with the job."""

    def __init__(self, rows: JobRows, kinds: Mapping[str, Kind]) -> None:
        self._rows = rows
        self._kinds = kinds

    def start(
        self, kind: str, spec: dict[str, Any], by: tuple[str, Who], total: int | None = None, parts: Sequence[str] = ()
    ) -> JobView:
        """Queue a job; it begins within POLL_S.

        Args:
            kind: a key of the kinds given to this object.
            spec: what is asked for, JSON values; shown to viewers.
            by: tenant and caller.
            total: how many things are to be done, when known.
            parts: input that its turns read with `JobStore.read_input`, dropped when it ends; may hold anything.
        """
        tenant, who = by
        job_id = f"j{clock.now_ns():016x}{secrets.token_hex(3)}"
        self._rows.add(Job(job_id, tenant, kind, spec, who, total=total), parts)
        return self._rows.find(tenant, job_id)

    def find(self, tenant: str, job_id: str) -> JobView:
        """Give one job.

        Raises:
            NotFound: the tenant has no such job.
        """
        return self._rows.find(tenant, _plain(job_id))

    def list(self, wanted: JobFilter) -> list[JobView]:
        """List jobs, newest first."""
        return self._rows.list(wanted)

    def cancel(self, tenant: str, job_id: str, who: Who) -> JobView:
        """Ask a job to end: it does after the turn it is in, and after undoing what its kind undoes.

        Raises:
            NotFound: the tenant has no such job.
            Conflict: it is over.
        """
        self._rows.cancel(tenant, _plain(job_id), who)
        return self._rows.find(tenant, job_id)

    def open_output(self, tenant: str, job_id: str, who: Who) -> tuple[str, Iterator[str]]:
        """Give media type and parts of a job's output.

        Raises:
            NotFound: no such job, or it has no output (any more).
        """
        job = self.find(tenant, job_id)
        if job.download is None:
            raise NotFound(f"job {job_id} has no result to download", code="result_not_found")
        kind = self._kinds.get(job.kind)
        if kind is not None and kind.is_secret:
            self._rows.note(who, "job.result.read", job_id)
        return kind.media_type if kind else "text/plain", self._rows.read_output(job_id)

    def drop_output(self, tenant: str, job_id: str, who: Who) -> None:
        """Delete a job's output for good.

        Raises:
            NotFound: the tenant has no such job.
        """
        self._rows.drop_output(tenant, _plain(job_id), who)


class Runner:
    """Does the turns of all jobs, one after another, in the thread that calls `run`."""

    def __init__(self, rows: DueJobs, kinds: Mapping[str, Kind]) -> None:
        self._rows = rows
        self._kinds = kinds
        self._conflicts: dict[str, int] = {}  # job -> turns in a row that ended in a conflict

    def run(self, stopping: threading.Event) -> None:
        """Work until stopped; what was begun and not ended before goes on."""
        cleaned_ns = 0
        while not stopping.is_set():
            due = self._rows.due(clock.now_ns())
            for job in due:
                if stopping.is_set():
                    return
                self.take_turn(job)
            if clock.now_ns() - cleaned_ns > CLEAN_S * NS_PER_S:
                cleaned_ns = clock.now_ns()
                self._clean(cleaned_ns)
            if not due:
                stopping.wait(POLL_S)

    def take_turn(self, job: Job) -> None:
        """Do one turn of a job and keep what it did."""
        try:
            step, ends_as = self._step(job)
            self._rows.advance(job, step, ends_as)
            self._conflicts.pop(job.id, None)
        except TurnTaken:
            return
        except RetryLater:
            self._rows.advance(job, Step(wait_s=RETRY_S), None)
        except Conflict as error:
            self._conflicts[job.id] = self._conflicts.get(job.id, 0) + 1
            if self._conflicts[job.id] >= MAX_CONFLICTS:
                self._fail(job, error.detail)
        except HeadwaterError as error:
            self._fail(job, error.detail)
        except Exception:
            log.fault("job_fault", job=job.id, kind=job.kind)
            self._fail(job, "an error of ours; it was logged")

    def _step(self, job: Job) -> tuple[Step, JobState | None]:
        kind = self._kinds.get(job.kind)
        if kind is None:
            raise NotFound(f"this version knows no jobs of kind {job.kind}")
        if not job.is_cancelled:
            step = kind.turn(job)
            return step, "done" if step.is_last else None
        if kind.undo is None:
            return Step(), "cancelled"
        step = kind.undo(job)
        return step, "cancelled" if step.is_last else None

    def _fail(self, job: Job, why: str) -> None:
        self._conflicts.pop(job.id, None)
        self._rows.fail(job, why)

    def _clean(self, now_ns: int) -> None:
        kept = {name: int(kind.kept_s * NS_PER_S) for name, kind in self._kinds.items()}
        secret = [name for name, kind in self._kinds.items() if kind.is_secret]
        self._rows.drop_old(kept, secret, now_ns - int(JOBS_KEPT_S * NS_PER_S), now_ns)


def _plain(job_id: str) -> str:
    return job_id if job_id.isascii() and job_id.isalnum() else ""
