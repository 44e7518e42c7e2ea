"""The audit log: append, read, verify its chain. Entries are never changed or deleted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Connection, select

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
        query = query.where(*_conditions(wanted))
        with self._database.read() as connection:
            return [_to_view(row) for row in connection.execute(query).mappings()]

    def verify(self, anchor: tuple[int, str] | None = None) -> AuditVerdict:
        """Walk the chain from its first entry; edited, missing or added entries break it.

        Args:
            anchor: number and hash of an entry known from before. Without one, somebody who can write the whole
                database could cut off the end, or write the chain anew.
        """
        last = (0, "")
        with self._database.read() as connection:
            head = connection.execute(select(COUNTERS.c.value, COUNTERS.c.text).where(COUNTERS.c.name == "audit")).one()
            while rows := _read_after(connection, last[0]):
                last, is_whole = _walk(last, rows)
                if not is_whole:
                    break
            is_anchored = anchor is None or _hash_of(connection, anchor[0]) == anchor[1]
        broken_seq = None if last == tuple(head) else last[0] + 1
        if anchor is not None and not is_anchored:
            broken_seq = min(broken_seq or anchor[0], anchor[0])
        return AuditVerdict(ok=broken_seq is None, entries=head[0], broken_seq=broken_seq, newest_hash=head[1])


def _conditions(wanted: AuditFilter) -> Iterator[ColumnElement[bool]]:
    columns = AUDIT.c
    if wanted.object is not None:
        yield columns.object == wanted.object
    if wanted.actor is not None:
        yield columns.actor == wanted.actor
    if wanted.before_seq is not None:
        yield columns.seq < wanted.before_seq
    if wanted.action is not None:
        is_kind = wanted.action.endswith(".")
        yield columns.action.startswith(wanted.action, autoescape=True) if is_kind else columns.action == wanted.action
    if wanted.start_ns is not None:
        yield columns.time_ns >= wanted.start_ns
    if wanted.end_ns is not None:
        yield columns.time_ns < wanted.end_ns


def _hash_of(connection: Connection, seq: int) -> str | None:
    found: str | None = connection.execute(select(AUDIT.c.hash).where(AUDIT.c.seq == seq)).scalar()
    return found


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
