"""Which credential a rotation issued to which device, and who uses it: the only SQL about rotations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import and_, delete, func, insert, or_, select, update

from devices.database.engine import Database, Write
from devices.database.tables import CREDENTIALS, DEVICES, PRESENCE
from devices.database.tables_rotations import ROTATIONS
from devices.jobs.kinds import Job
from devices.rows import CredentialRow, Deed
from devices.store import MAX_CREDENTIALS, insert_credential
from wire import clock
from wire.rotations import WaitingView

Effect = Callable[[Write], None]
_ISSUED = and_(CREDENTIALS.c.id == ROTATIONS.c.credential, CREDENTIALS.c.tenant == ROTATIONS.c.tenant)


class RotationStore:
    """Rotations; thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def fit(self, tenant: str, ids: Sequence[str]) -> dict[str, str | None]:
        """Tell of each device whether it can get a credential: None, or the code of why not."""
        lasting = or_(CREDENTIALS.c.not_after_ns.is_(None), CREDENTIALS.c.not_after_ns > clock.now_ns())
        mine = and_(CREDENTIALS.c.tenant == DEVICES.c.tenant, CREDENTIALS.c.device == DEVICES.c.id, lasting)
        query = select(DEVICES.c.id, DEVICES.c.state, func.count(CREDENTIALS.c.id))
        query = query.select_from(DEVICES.outerjoin(CREDENTIALS, mine)).group_by(DEVICES.c.id, DEVICES.c.state)
        with self._database.read() as connection:
            found = connection.execute(query.where(DEVICES.c.tenant == tenant, DEVICES.c.id.in_(ids))).all()
        verdicts: dict[str, str | None] = dict.fromkeys(ids, "device_not_found")
        for device, state, count in found:
            verdicts[device] = _bar(state, count)
        return verdicts

    def issuing(self, job: Job, rows: Sequence[CredentialRow]) -> Effect:
        """Give what adds the credentials beside those there are, inside another transaction."""

        def issue(transaction: Write) -> None:
            mine = and_(CREDENTIALS.c.tenant == job.tenant, CREDENTIALS.c.device.in_([row.device for row in rows]))
            ahead = CREDENTIALS.c.created_ns > transaction.now_ns  # the clock was set back: they are older all the same
            transaction.execute(update(CREDENTIALS).where(mine, ahead).values(created_ns=transaction.now_ns))
            for row in rows:
                insert_credential(transaction, job.tenant, row)
            since = {"job": job.id, "tenant": job.tenant, "since_ns": transaction.now_ns}
            transaction.execute(insert(ROTATIONS), [since | {"device": r.device, "credential": r.id} for r in rows])
            named = [(row.device, {"credential": row.id, "job": job.id}) for row in rows]
            transaction.audit(Deed(job.who, "credential.rotate", device, detail) for device, detail in named)

        return issue

    def ending(self, job: Job, ids: Sequence[str]) -> Effect:
        """Give what ends the credentials that these devices had before the rotation."""

        def end(transaction: Write) -> None:
            for device, new, since_ns in self._issued(transaction, job, ids):
                older = and_(CREDENTIALS.c.id != new, CREDENTIALS.c.created_ns <= since_ns)
                self._drop(transaction, job, device, older)

        return end

    def withdrawing(self, job: Job, ids: Sequence[str]) -> Effect:
        """Give what revokes the new credentials of these devices that nobody used."""

        def withdraw(transaction: Write) -> None:
            for device, new, _ in self._issued(transaction, job, ids):
                self._drop(
                    transaction, job, device, and_(CREDENTIALS.c.id == new, CREDENTIALS.c.last_used_ns.is_(None))
                )

        return withdraw

    def page(self, job: Job, after: str, limit: int) -> list[str]:
        """Give devices of a rotation in order of their ids."""
        mine = and_(ROTATIONS.c.job == job.id, ROTATIONS.c.device > after)
        query = select(ROTATIONS.c.device).where(mine).order_by(ROTATIONS.c.device).limit(limit)
        with self._database.read() as connection:
            return list(connection.execute(query).scalars())

    def count_waiting(self, job_id: str) -> int:
        """Give how many devices have not used their new credential yet."""
        query = select(func.count()).select_from(ROTATIONS.join(CREDENTIALS, _ISSUED))
        waiting = and_(ROTATIONS.c.job == job_id, CREDENTIALS.c.last_used_ns.is_(None))
        with self._database.read() as connection:
            return int(connection.execute(query.where(waiting)).scalar_one())

    def waiting(self, tenant: str, job_id: str, after: str, limit: int) -> list[WaitingView]:
        """List the devices that have not used their new credential yet, in order of their ids."""
        seen = and_(PRESENCE.c.tenant == ROTATIONS.c.tenant, PRESENCE.c.device == ROTATIONS.c.device)
        columns = select(ROTATIONS.c.device, ROTATIONS.c.credential, PRESENCE.c.online, PRESENCE.c.last_seen_ns)
        query = columns.select_from(ROTATIONS.join(CREDENTIALS, _ISSUED).outerjoin(PRESENCE, seen))
        mine = and_(ROTATIONS.c.job == job_id, ROTATIONS.c.tenant == tenant, ROTATIONS.c.device > after)
        query = query.where(mine, CREDENTIALS.c.last_used_ns.is_(None)).order_by(ROTATIONS.c.device).limit(limit)
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        return [WaitingView(device=d, credential=c, online=bool(o), last_seen=s or None) for d, c, o, s in rows]

    def _issued(self, transaction: Write, job: Job, ids: Sequence[str]) -> Sequence[Any]:
        """Give device, new credential and time of those whose new credential is still there."""
        query = select(ROTATIONS.c.device, ROTATIONS.c.credential, ROTATIONS.c.since_ns)
        mine = and_(ROTATIONS.c.job == job.id, ROTATIONS.c.tenant == job.tenant, ROTATIONS.c.device.in_(ids))
        rows: Sequence[Any] = transaction.execute(
            query.select_from(ROTATIONS.join(CREDENTIALS, _ISSUED)).where(mine)
        ).all()
        return rows

    def _drop(self, transaction: Write, job: Job, device: str, which: Any) -> None:
        mine = and_(CREDENTIALS.c.tenant == job.tenant, CREDENTIALS.c.device == device)
        gone = transaction.execute(delete(CREDENTIALS).where(mine, which)).rowcount
        if gone:
            transaction.changed("device", [device])
            transaction.audit([Deed(job.who, "credential.end", device, {"credentials": gone, "job": job.id})])


def _bar(state: str, count: int) -> str | None:
    if state == "retired":
        return "device_retired"
    return "too_many_credentials" if count >= MAX_CREDENTIALS else None
