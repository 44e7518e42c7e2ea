"""Jobs, their input and output: the only SQL about them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy import ColumnElement, and_, delete, func, insert, or_, select, update

from devices.database.engine import Database, Write
from devices.database.tables_jobs import JOB_PARTS, JOBS
from devices.jobs.kinds import Job, JobFilter, Step, TurnTaken
from devices.rows import Deed, Who
from wire.clock import NS_PER_S
from wire.errors import Conflict, NotFound
from wire.jobs import JobState, JobView

_LIVE = ("queued", "running")
_DUE_AT_ONCE = 64
MAX_WAIT_NS = 60 * NS_PER_S  # a job that waits for longer than any turn asks for was put off by another clock


class JobStore:
    """Jobs; thread-safe. Each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, job: Job, parts: Sequence[str] = ()) -> None:
        """Queue a job with its input."""
        with self._database.write() as transaction:
            transaction.execute(insert(JOBS).values(**_values(job), created_ns=transaction.now_ns))
            rows = [
                {"job": job.id, "flow": "in", "number": i, "content": part, "created_ns": transaction.now_ns}
                for i, part in enumerate(parts)
            ]
            transaction.execute(insert(JOB_PARTS), rows)
            transaction.audit([Deed(job.who, "job.start", job.id, {"kind": job.kind})])

    def find(self, tenant: str, job_id: str) -> JobView:
        """Give one job.

        Raises:
            NotFound: the tenant has no such job.
        """
        with self._database.read() as connection:
            row = connection.execute(_views().where(_is(tenant, job_id))).mappings().first()
        if row is None:
            raise NotFound(f"no job {job_id[:80]!r}", code="job_not_found")
        return _to_view(row)

    def list(self, wanted: JobFilter) -> list[JobView]:
        """List jobs, newest first."""
        query = _views().where(JOBS.c.tenant == wanted.tenant).order_by(JOBS.c.id.desc()).limit(wanted.limit)
        for column, value in ((JOBS.c.kind, wanted.kind), (JOBS.c.state, wanted.state), (JOBS.c.actor, wanted.by)):
            query = query if value is None else query.where(column == value)
        if wanted.before:
            query = query.where(JOBS.c.id < wanted.before)
        with self._database.read() as connection:
            return [_to_view(row) for row in connection.execute(query).mappings()]

    def cancel(self, tenant: str, job_id: str, who: Who) -> None:
        """Ask a job to end; its next turn sees it.

        Raises:
            NotFound: the tenant has no such job.
            Conflict: it is over.
        """
        with self._database.write() as transaction:
            state = transaction.execute(select(JOBS.c.state).where(_is(tenant, job_id))).scalar()
            if state is None:
                raise NotFound(f"no job {job_id[:80]!r}", code="job_not_found")
            if state not in _LIVE:
                raise Conflict(f"the job is over: {state}", code="job_over")
            values = {"is_cancelled": True, "due_ns": transaction.now_ns}
            transaction.execute(update(JOBS).where(_is(tenant, job_id)).values(**values))
            transaction.audit([Deed(who, "job.cancel", job_id)])

    def due(self, now_ns: int) -> Sequence[Job]:
        """Give the jobs whose turn it is, those that wait longest first."""
        is_time = or_(JOBS.c.due_ns <= now_ns, JOBS.c.due_ns > now_ns + MAX_WAIT_NS)  # the latter: clock set back
        mine = and_(JOBS.c.state.in_(_LIVE), is_time)
        query = select(JOBS).where(mine).order_by(JOBS.c.due_ns, JOBS.c.id).limit(_DUE_AT_ONCE)
        with self._database.look() as connection:
            return [_to_job(row) for row in connection.execute(query).mappings()]

    def live(self, kind: str) -> Sequence[Job]:
        """Give all jobs of a kind that are not over, whichever tenant's."""
        query = select(JOBS).where(JOBS.c.kind == kind, JOBS.c.state.in_(_LIVE)).order_by(JOBS.c.id)
        with self._database.read() as connection:
            return [_to_job(row) for row in connection.execute(query).mappings()]

    def advance(self, job: Job, step: Step, ends_as: JobState | None) -> None:
        """Commit what a turn did together with its progress.

        Raises:
            TurnTaken: another host did this turn, or the job has ended.
            Conflict: the effect contradicts what has changed since.
        """
        with self._database.write() as transaction:
            values = _progress(job, step, transaction.now_ns) | _end(transaction, ends_as)
            fresh = and_(JOBS.c.id == job.id, JOBS.c.turn == job.turn, JOBS.c.state.in_(_LIVE))
            if not transaction.execute(update(JOBS).where(fresh).values(**values)).rowcount:
                raise TurnTaken
            if step.effect is not None:
                step.effect(transaction)
            _append(transaction, job.id, step.output)
            if ends_as is not None:
                _close(transaction, job, step, ends_as)

    def amend(self, job_id: str, kind: str, news: dict[str, Any], deed: tuple[Who, str] | None = None) -> None:
        """Put something into a running job's cursor, for its next turn.

        Raises:
            Conflict: it is over.
        """
        mine = and_(JOBS.c.id == job_id, JOBS.c.kind == kind, JOBS.c.state.in_(_LIVE))
        with self._database.write() as transaction:
            row = transaction.execute(select(JOBS.c.cursor, JOBS.c.turn).where(mine)).first()
            if row is None:
                raise Conflict("the job is over", code="job_over")
            cursor = orjson.dumps(orjson.loads(row.cursor) | news).decode()
            # The turn that is being done now would write over it: it counts as done elsewhere, and is done again.
            values = {"cursor": cursor, "turn": row.turn + 1, "due_ns": transaction.now_ns}
            transaction.execute(update(JOBS).where(mine).values(**values))
            if deed is not None:
                transaction.audit([Deed(*deed, job_id)])

    def fail(self, job: Job, why: str) -> None:
        """End a job that cannot go on."""
        with self._database.write() as transaction:
            live = and_(JOBS.c.id == job.id, JOBS.c.state.in_(_LIVE))
            transaction.execute(update(JOBS).where(live).values(error=why, **_end(transaction, "failed")))
            _close(transaction, job, Step(), "failed")

    def read_input(self, job_id: str, number: int) -> str | None:
        """Give a part of a job's input; None behind the last."""
        return self._read_part(job_id, "in", number)

    def read_output(self, job_id: str) -> Iterator[str]:
        """Give a job's output, part by part."""
        number = -1  # the first may be gone
        while (found := self._next_part(job_id, number)) is not None:
            number, part = found
            yield part

    def drop_output(self, tenant: str, job_id: str, who: Who) -> None:
        """Delete a job's output for good.

        Raises:
            NotFound: the tenant has no such job.
        """
        with self._database.write() as transaction:
            if transaction.execute(select(JOBS.c.id).where(_is(tenant, job_id))).first() is None:
                raise NotFound(f"no job {job_id[:80]!r}", code="job_not_found")
            transaction.execute(delete(JOB_PARTS).where(JOB_PARTS.c.job == job_id, JOB_PARTS.c.flow == "out"))
            transaction.audit([Deed(who, "job.result.delete", job_id)])

    def note(self, who: Who, action: str, job_id: str) -> None:
        """Write an audit entry about a job."""
        with self._database.write() as transaction:
            transaction.audit([Deed(who, action, job_id)])

    def drop_old(self, kept_ns: Mapping[str, int], secret: Sequence[str], jobs_before_ns: int, now_ns: int) -> None:
        """Delete outputs that were kept long enough (by kind), and jobs that ended before a time.

        Output counts from the end of its job; that of secret kinds from when it was written, also while the job lasts.
        """
        with self._database.write("presence") as transaction:
            for kind, each_ns in kept_ns.items():
                mine, before_ns = JOBS.c.kind == kind, now_ns - each_ns
                old = select(JOBS.c.id).where(mine, JOBS.c.finished_ns < before_ns)
                transaction.execute(delete(JOB_PARTS).where(JOB_PARTS.c.job.in_(old)))
                if kind in secret:
                    told = and_(JOB_PARTS.c.flow == "out", JOB_PARTS.c.created_ns < before_ns)
                    transaction.execute(
                        delete(JOB_PARTS).where(told, JOB_PARTS.c.job.in_(select(JOBS.c.id).where(mine)))
                    )
            transaction.execute(delete(JOBS).where(JOBS.c.finished_ns < jobs_before_ns))

    def _next_part(self, job_id: str, after: int) -> tuple[int, str] | None:
        with self._database.read() as connection:
            row = connection.execute(_next_output(job_id, after)).first()
        return None if row is None else (row.number, row.content)

    def _read_part(self, job_id: str, flow: str, number: int) -> str | None:
        which = and_(JOB_PARTS.c.job == job_id, JOB_PARTS.c.flow == flow, JOB_PARTS.c.number == number)
        with self._database.read() as connection:
            found: str | None = connection.execute(select(JOB_PARTS.c.content).where(which)).scalar()
        return found


def _next_output(job_id: str, after: int) -> Any:
    mine = and_(JOB_PARTS.c.job == job_id, JOB_PARTS.c.flow == "out", JOB_PARTS.c.number > after)
    return select(JOB_PARTS.c.number, JOB_PARTS.c.content).where(mine).order_by(JOB_PARTS.c.number).limit(1)


def _is(tenant: str, job_id: str) -> ColumnElement[bool]:
    return and_(JOBS.c.tenant == tenant, JOBS.c.id == job_id)


def _values(job: Job) -> dict[str, Any]:
    return {
        "id": job.id,
        "tenant": job.tenant,
        "kind": job.kind,
        "spec": orjson.dumps(job.spec).decode(),
        "state": "queued",
        "is_cancelled": False,
        "done": 0,
        "failed": 0,
        "total": job.total,
        "turn": 0,
        "due_ns": 0,
        "cursor": orjson.dumps(job.cursor).decode(),
        "result": "{}",
        "actor": job.who.actor,
        "remote_ip": job.who.remote_ip,
    }


def _progress(job: Job, step: Step, now_ns: int) -> dict[str, Any]:
    values: dict[str, Any] = {
        "state": "running",
        "turn": job.turn + 1,
        "done": job.done + step.done,
        "failed": job.failed + step.failed,
        "due_ns": now_ns + int(step.wait_s * NS_PER_S),
        "started_ns": func.coalesce(JOBS.c.started_ns, now_ns),
    }
    if step.total is not None:
        values["total"] = step.total
    if step.cursor is not None:
        values["cursor"] = orjson.dumps(step.cursor).decode()
    if step.result is not None:
        values["result"] = orjson.dumps(job.result | step.result).decode()
    return values


def _end(transaction: Write, ends_as: JobState | None) -> dict[str, Any]:
    return {} if ends_as is None else {"state": ends_as, "finished_ns": transaction.now_ns}


def _append(transaction: Write, job_id: str, output: str) -> None:
    if output:
        mine = and_(JOB_PARTS.c.job == job_id, JOB_PARTS.c.flow == "out")
        newest = transaction.execute(select(func.max(JOB_PARTS.c.number)).where(mine)).scalar()
        number = 0 if newest is None else newest + 1
        row = {"job": job_id, "flow": "out", "number": number, "content": output, "created_ns": transaction.now_ns}
        transaction.execute(insert(JOB_PARTS).values(**row))


def _close(transaction: Write, job: Job, step: Step, ends_as: JobState) -> None:
    """Drop the input of a job that is over, and say in the audit log how it ended."""
    transaction.execute(delete(JOB_PARTS).where(JOB_PARTS.c.job == job.id, JOB_PARTS.c.flow == "in"))
    detail = {"kind": job.kind, "done": job.done + step.done, "failed": job.failed + step.failed}
    transaction.audit([Deed(job.who, f"job.{ends_as}", job.id, detail)])


def _views() -> Any:
    its = and_(JOB_PARTS.c.job == JOBS.c.id, JOB_PARTS.c.flow == "out")
    return select(JOBS, select(func.min(JOB_PARTS.c.number)).where(its).scalar_subquery().label("has_output"))


def _to_job(row: Any) -> Job:
    return Job(
        id=row["id"],
        tenant=row["tenant"],
        kind=row["kind"],
        spec=orjson.loads(row["spec"]),
        who=Who(row["actor"], row["remote_ip"], row["tenant"]),
        turn=row["turn"],
        done=row["done"],
        failed=row["failed"],
        total=row["total"],
        cursor=orjson.loads(row["cursor"]),
        result=orjson.loads(row["result"]),
        is_cancelled=row["is_cancelled"],
        created_ns=row["created_ns"],
    )


def _to_view(row: Any) -> JobView:
    return JobView(
        id=row["id"],
        kind=row["kind"],
        state=row["state"],
        cancelling=row["is_cancelled"] and row["state"] in _LIVE,
        done=row["done"],
        failed=row["failed"],
        total=row["total"],
        spec=orjson.loads(row["spec"]),
        result=orjson.loads(row["result"]),
        error=row["error"],
        download=None if row["has_output"] is None else f"/v1/jobs/{row['id']}/result",
        by=row["actor"],
        created=row["created_ns"],
        started=row["started_ns"],
        finished=row["finished_ns"],
    )
