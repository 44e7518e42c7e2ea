"""The audit log: append, read, verify its chain. Entries are never changed or deleted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from sqlalchemy import Connection, select

from devices.database.engine import Database, chain
from devices.database.tables import AUDIT, COUNTERS
from devices.rows import AuditFilter, Deed
from wire.registry import AuditVerdict, AuditView

_PART = 2_000  # entries held in memory while verifying


class AuditStore:
    """The audit log; thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(self, deeds: Sequence[Deed]) -> None:
        """Append entries of their own, beside no other change."""
        with self._database.write() as transaction:
            transaction.audit(deeds)

    def list(self, tenant: str, wanted: AuditFilter) -> list[AuditView]:
        """List entries of a tenant, newest first."""
        query = select(AUDIT).where(AUDIT.c.tenant == tenant).order_by(AUDIT.c.seq.desc()).limit(wanted.limit)
        if wanted.object is not None:
            query = query.where(AUDIT.c.object == wanted.object)
        if wanted.actor is not None:
            query = query.where(AUDIT.c.actor == wanted.actor)
        if wanted.before_seq is not None:
            query = query.where(AUDIT.c.seq < wanted.before_seq)
        with self._database.read() as connection:
            return [_to_view(row) for row in connection.execute(query).mappings()]

    def verify(self) -> AuditVerdict:
        """Walk the chain from its first entry; edited, missing or added entries break it."""
        last = (0, "")
        with self._database.read() as connection:
            head = connection.execute(select(COUNTERS.c.value, COUNTERS.c.text).where(COUNTERS.c.name == "audit")).one()
            while rows := _read_after(connection, last[0]):
                last, is_whole = _walk(last, rows)
                if not is_whole:
                    break
        if last == tuple(head):
            return AuditVerdict(ok=True, entries=head[0], broken_seq=None)
        return AuditVerdict(ok=False, entries=head[0], broken_seq=last[0] + 1)


def _read_after(connection: Connection, seq: int) -> Sequence[Any]:
    query = select(AUDIT).where(AUDIT.c.seq > seq).order_by(AUDIT.c.seq).limit(_PART)
    return connection.execute(query).mappings().all()


def _walk(last: tuple[int, str], rows: Sequence[Any]) -> tuple[tuple[int, str], bool]:
    """Follow the chain through some rows; give its last good link, and whether that is the last of them."""
    for row in rows:
        expected = (last[0] + 1, chain(last[1], dict(row)))
        if (row["seq"], row["hash"]) != expected:
            return last, False
        last = expected
    return last, True


def _to_view(row: Any) -> AuditView:
    return AuditView(
        seq=row["seq"],
        time=row["time_ns"],
        actor=row["actor"],
        action=row["action"],
        object=row["object"],
        detail=orjson.loads(row["detail"]),
        remote_ip=row["remote_ip"],
        hash=row["hash"],
    )
