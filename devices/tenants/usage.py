"""What tenants used, by day: the only SQL about it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

from sqlalchemy import Connection, and_, case, delete, func, insert, select, true, update

from devices.database.engine import Database, Write
from devices.database.tables import PRESENCE
from devices.database.tables_usage import USAGE
from wire.clock import NS_PER_S
from wire.tenants import Spent, UsageDay, Used

DAY_NS = 86_400 * NS_PER_S
MONTH_DAYS = 30
KEPT_DAYS = 400
EPOCH = date(1970, 1, 1)
_SUMS = ("messages", "points", "bytes")


class UsageStore:
    """Usage; thread-safe. Each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, spent: Mapping[str, Spent]) -> None:
        """Add what tenants have used; of `feed_readers` the highest of a day is kept."""
        with self._database.write("presence") as transaction:
            today = transaction.now_ns // DAY_NS
            for tenant, more in spent.items():
                _add(transaction, tenant, today, more)

    def used(self, now_ns: int, tenant: str | None = None) -> defaultdict[str, Used]:
        """Give what one tenant, or each, uses; who used nothing is there with nothing."""
        found: defaultdict[str, Used] = defaultdict(Used)
        today = now_ns // DAY_NS
        with self._database.read() as connection:
            for name, since in (("today", today), ("month", today - MONTH_DAYS + 1)):
                for id_, spent in _spent(connection, since, tenant):
                    setattr(found[id_], name, spent)
            connected = select(PRESENCE.c.tenant, func.count()).where(PRESENCE.c.connected, _of(PRESENCE, tenant))
            for id_, count in connection.execute(connected.group_by(PRESENCE.c.tenant)):
                found[id_].connections = count
        return found

    def days(self, now_ns: int, tenant: str, count: int) -> list[UsageDay]:
        """Give what a tenant used on each of the last days, today first."""
        today = now_ns // DAY_NS
        columns = [USAGE.c.day, *(USAGE.c[name] for name in (*_SUMS, "feed_readers"))]
        mine = and_(USAGE.c.tenant == tenant, USAGE.c.day > today - count)
        with self._database.read() as connection:
            known = {row["day"]: dict(row) for row in connection.execute(select(*columns).where(mine)).mappings()}
        return [
            UsageDay.model_validate(known.get(day, {}) | {"day": EPOCH + timedelta(days=day)})
            for day in range(today, today - count, -1)
        ]


def _of(table: Any, tenant: str | None) -> Any:
    return true() if tenant is None else table.c.tenant == tenant


def _spent(connection: Connection, since: int, tenant: str | None) -> list[tuple[str, Spent]]:
    sums = [func.sum(USAGE.c[name]).label(name) for name in _SUMS]
    columns = select(USAGE.c.tenant, *sums, func.max(USAGE.c.feed_readers).label("feed_readers"))
    query = columns.where(USAGE.c.day >= since, _of(USAGE, tenant)).group_by(USAGE.c.tenant)
    rows = [dict(row) for row in connection.execute(query).mappings()]
    return [
        (row.pop("tenant"), Spent.model_validate({name: int(value) for name, value in row.items()})) for row in rows
    ]


def _add(transaction: Write, tenant: str, today: int, more: Spent) -> None:
    mine, given = and_(USAGE.c.tenant == tenant, USAGE.c.day == today), more.model_dump()
    values: dict[str, Any] = {name: USAGE.c[name] + given[name] for name in _SUMS}
    readers = given["feed_readers"]
    values["feed_readers"] = case((USAGE.c.feed_readers < readers, readers), else_=USAGE.c.feed_readers)
    if not transaction.execute(update(USAGE).where(mine).values(**values)).rowcount:
        transaction.execute(insert(USAGE).values(tenant=tenant, day=today, **given))
        transaction.execute(delete(USAGE).where(USAGE.c.tenant == tenant, USAGE.c.day < today - KEPT_DAYS))
