"""What tenants, their types and their devices used, by day: the only SQL about it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from typing import Any

from sqlalchemy import Connection, and_, case, delete, desc, func, insert, select, text, true, tuple_, update

from devices.database.engine import Database, Write
from devices.database.tables import PRESENCE
from devices.database.tables_usage import USAGE, USAGE_DEVICES, USAGE_TYPES
from wire.clock import NS_PER_S
from wire.usage import DeviceDay, DeviceUsage, Spent, TypeUsage, UsageDay, UsageReport, Used

DAY_NS = 86_400 * NS_PER_S
MONTH_DAYS = 30
KEPT_DAYS = 400
TYPE_DAYS = 30
DEVICE_DAYS = 8  # a row of each device and day, some 40 bytes
FORGOTTEN = 4_000  # old rows of devices, at most, with each report: others wait for it
EPOCH = date(1970, 1, 1)
_SENT = ("messages", "points", "bytes")
Rows = list[dict[str, Any]]


# The same words to SQLite and PostgreSQL, which SQLAlchemy has no common statement for.
_ADD_TYPE = text(
    "INSERT INTO usage_types (tenant, day, type, messages, points, bytes)"
    " VALUES (:tenant, :day, :name, :messages, :points, :bytes) ON CONFLICT (tenant, day, type) DO UPDATE SET"
    " messages = usage_types.messages + excluded.messages,"
    " points = usage_types.points + excluded.points, bytes = usage_types.bytes + excluded.bytes"
)
_ADD_DEVICE = text(
    "INSERT INTO usage_devices (tenant, day, device, messages, points, bytes)"
    " VALUES (:tenant, :day, :name, :messages, :points, :bytes) ON CONFLICT (tenant, day, device) DO UPDATE SET"
    " messages = usage_devices.messages + excluded.messages,"
    " points = usage_devices.points + excluded.points, bytes = usage_devices.bytes + excluded.bytes"
)


class UsageStore:
    """Usage; thread-safe. Each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, report: UsageReport) -> None:
        """Add what was used; of `feed_readers` the highest of a day is kept."""
        with self._database.write("presence") as transaction:
            today = transaction.now_ns // DAY_NS
            for tenant, more in _by_tenant(report).items():
                _add(transaction, tenant, today, more)
            transaction.execute(_ADD_TYPE, _rows(report.types, today))
            transaction.execute(_ADD_DEVICE, _rows(report.devices, today))
            for table, tenants, days in (
                (USAGE_TYPES, report.types, TYPE_DAYS),
                (USAGE_DEVICES, report.devices, DEVICE_DAYS),
            ):
                _forget(transaction, table, tenants, today - days)

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
        columns = [USAGE.c.day, *(USAGE.c[name] for name in (*_SENT, "feed_readers"))]
        query = select(*columns).where(USAGE.c.tenant == tenant, USAGE.c.day > today - count)
        return [UsageDay.model_validate(each) for each in self._by_day(query, today, count)]

    def of_device(self, now_ns: int, tenant: str, device: str) -> list[DeviceDay]:
        """Give what a device sent on each of the last DEVICE_DAYS days, today first."""
        today, columns = now_ns // DAY_NS, USAGE_DEVICES.c
        days = columns.day.in_(list(range(today - DEVICE_DAYS + 1, today + 1)))  # each is one look into the table
        mine = and_(columns.tenant == tenant, days, columns.device == device)
        query = select(columns.day, *(columns[name] for name in _SENT)).where(mine)
        return [DeviceDay.model_validate(each) for each in self._by_day(query, today, DEVICE_DAYS)]

    def types(self, now_ns: int, tenant: str, count: int, order: str) -> list[TypeUsage]:
        """Give what the devices of each type sent in the last days, most first."""
        rows = self._most(USAGE_TYPES, USAGE_TYPES.c.type, (tenant, now_ns // DAY_NS - count), order, None)
        return [TypeUsage.model_validate(row | {"type": row["type"] or None}) for row in rows]

    def devices(self, now_ns: int, tenant: str, count: int, order: str, limit: int) -> list[DeviceUsage]:
        """Give the devices that sent most in the last days."""
        rows = self._most(USAGE_DEVICES, USAGE_DEVICES.c.device, (tenant, now_ns // DAY_NS - count), order, limit)
        return [DeviceUsage.model_validate(row) for row in rows]

    def _most(self, table: Any, of: Any, since: tuple[str, int], order: str, limit: int | None) -> Rows:
        sums = {name: func.sum(table.c[name]).label(name) for name in _SENT}
        mine = and_(table.c.tenant == since[0], table.c.day > since[1])
        query = select(of, *sums.values()).where(mine).group_by(of).order_by(desc(sums[order]), of).limit(limit)
        with self._database.read() as connection:
            rows = connection.execute(query).mappings()
            return [{name: value if name == of.name else int(value) for name, value in row.items()} for row in rows]

    def _by_day(self, query: Any, today: int, count: int) -> Iterable[dict[str, Any]]:
        with self._database.read() as connection:
            known = {row["day"]: dict(row) for row in connection.execute(query).mappings()}
        for day in range(today, today - count, -1):
            yield known.get(day, {}) | {"day": EPOCH + timedelta(days=day)}


def _by_tenant(report: UsageReport) -> dict[str, Spent]:
    """Give what each tenant used: as told of it, and what its types sent."""
    found = dict(report.tenants)
    for tenant, types in report.types.items():
        sums = Counter(found.get(tenant, Spent()).model_dump())
        for sent in types.values():
            sums.update(dict(zip(_SENT, sent, strict=True)))
        found[tenant] = Spent.model_validate(sums)
    return found


def _rows(told: Mapping[str, Mapping[str, tuple[int, int, int]]], today: int) -> Rows:
    return [
        {"tenant": tenant, "day": today, "name": name} | dict(zip(_SENT, sent, strict=True))
        for tenant, named in told.items()
        for name, sent in sorted(named.items())  # the order of the key: neighbours are written together
    ]


def _forget(transaction: Write, table: Any, tenants: Iterable[str], until: int) -> None:
    """Delete what is of that day or older, a part at a time."""
    keys = tuple_(*table.primary_key.columns)
    for tenant in tenants:
        old = select(*table.primary_key.columns).where(table.c.tenant == tenant, table.c.day <= until).limit(FORGOTTEN)
        transaction.execute(delete(table).where(keys.in_(old)))


def _of(table: Any, tenant: str | None) -> Any:
    return true() if tenant is None else table.c.tenant == tenant


def _spent(connection: Connection, since: int, tenant: str | None) -> list[tuple[str, Spent]]:
    sums = [func.sum(USAGE.c[name]).label(name) for name in _SENT]
    columns = select(USAGE.c.tenant, *sums, func.max(USAGE.c.feed_readers).label("feed_readers"))
    query = columns.where(USAGE.c.day >= since, _of(USAGE, tenant)).group_by(USAGE.c.tenant)
    rows = [dict(row) for row in connection.execute(query).mappings()]
    return [
        (row.pop("tenant"), Spent.model_validate({name: int(value) for name, value in row.items()})) for row in rows
    ]


def _add(transaction: Write, tenant: str, today: int, more: Spent) -> None:
    mine, given = and_(USAGE.c.tenant == tenant, USAGE.c.day == today), more.model_dump()
    values: dict[str, Any] = {name: USAGE.c[name] + given[name] for name in _SENT}
    readers = given["feed_readers"]
    values["feed_readers"] = case((USAGE.c.feed_readers < readers, readers), else_=USAGE.c.feed_readers)
    if not transaction.execute(update(USAGE).where(mine).values(**values)).rowcount:
        transaction.execute(insert(USAGE).values(tenant=tenant, day=today, **given))
        transaction.execute(delete(USAGE).where(USAGE.c.tenant == tenant, USAGE.c.day < today - KEPT_DAYS))
