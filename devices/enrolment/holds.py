"""Devices that proved who they are and wait to be accepted: the only SQL about them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Literal

import orjson
from sqlalchemy import and_, select, update

from chassis import logs
from devices.database.engine import Database, Write
from devices.database.tables import DEVICES, PRESENCE
from devices.database.tables_enrolment import ORIGINS
from devices.rows import SYSTEM, Deed, Who
from wire import clock
from wire.clock import NS_PER_S
from wire.enrolment import HoldView
from wire.errors import Unavailable

KEPT_S = 30 * 86_400  # a device nobody decides about is refused then
log = logs.get(__name__)
EXPIRY_S = 600.0
EXPIRED_AT_ONCE = 1_000
_DONE = {"active": "hold.accept", "disabled": "hold.refuse"}


class HoldStore:
    """Held devices; thread-safe. Each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def page(self, tenant: str, after: str, limit: int) -> list[HoldView]:
        """List held devices in order of their ids."""
        came = and_(ORIGINS.c.tenant == DEVICES.c.tenant, ORIGINS.c.device == DEVICES.c.id)
        seen = and_(PRESENCE.c.tenant == DEVICES.c.tenant, PRESENCE.c.device == DEVICES.c.id)
        columns = select(DEVICES, ORIGINS.c.source, ORIGINS.c.hardware, PRESENCE.c.last_seen_ns)
        query = columns.select_from(DEVICES.outerjoin(ORIGINS, came).outerjoin(PRESENCE, seen))
        held = and_(DEVICES.c.tenant == tenant, DEVICES.c.state == "held", DEVICES.c.id > after)
        with self._database.read() as connection:
            rows = connection.execute(query.where(held).order_by(DEVICES.c.id).limit(limit)).mappings()
            return [_to_view(row) for row in rows]

    def decide(self, tenant: str, ids: Sequence[str], state: Literal["active", "disabled"], who: Who) -> list[str]:
        """Let devices in or keep them out; give those that were held, in order."""
        mine = and_(DEVICES.c.tenant == tenant, DEVICES.c.state == "held", DEVICES.c.id.in_(ids))
        with self._database.write() as transaction:
            held = sorted(transaction.execute(select(DEVICES.c.id).where(mine)).scalars())
            _set_state(transaction, tenant, held, state)
            transaction.audit(Deed(who, _DONE[state], device_id) for device_id in held)
        return held

    def expire(self, now_ns: int) -> int:
        """Disable devices nobody decided about in KEPT_S; give how many."""
        old = and_(DEVICES.c.state == "held", DEVICES.c.created_ns < now_ns - KEPT_S * NS_PER_S)
        columns = select(DEVICES.c.tenant, DEVICES.c.id).where(old).limit(EXPIRED_AT_ONCE)
        with self._database.read() as connection:
            rows = connection.execute(columns).all()
        for tenant in {row.tenant for row in rows}:
            mine = [row.id for row in rows if row.tenant == tenant]
            self.decide(tenant, mine, "disabled", Who(SYSTEM, tenant=tenant))
        return len(rows)


def expire_until_stopped(holds: HoldStore, stopping: threading.Event) -> None:
    """Refuse what waited too long, now and every EXPIRY_S; run by the one process that hosts the registry's threads."""
    while True:
        try:
            expired = holds.expire(clock.now_ns())
        except Unavailable:
            expired = 0
        if expired:
            log.warning("holds_expired", devices=expired)
        if stopping.wait(EXPIRY_S):
            return


def _set_state(transaction: Write, tenant: str, ids: Sequence[str], state: str) -> None:
    if not ids:
        return
    these = and_(DEVICES.c.tenant == tenant, DEVICES.c.id.in_(ids))
    transaction.execute(update(DEVICES).where(these).values(state=state, updated_ns=transaction.now_ns))
    transaction.changed("device", ids)


def _to_view(row: Any) -> HoldView:
    return HoldView(
        id=row["id"],
        source=row["source"],
        since=row["created_ns"],
        last_seen=row["last_seen_ns"] or None,
        type=row["type"],
        tags=orjson.loads(row["tags"]),
        hardware=orjson.loads(row["hardware"] or "{}"),
    )
