"""Events of presence: the only SQL about them. Which there are is the word of `devices.presence.history`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import and_, bindparam, delete, func, insert, select, update

from devices.database.engine import Database, Write
from devices.database.tables import DEVICES, PRESENCE
from devices.database.tables_presence import PRESENCE_EVENTS, PRESENCE_GAPS
from devices.presence.history import Event, Fold, Gap
from devices.presence.state import Mark
from wire.errors import NotFound

KEPT = 1_000  # events of a device
_E = PRESENCE_EVENTS.c
_G = PRESENCE_GAPS.c
_MARK = tuple(Mark.__dataclass_fields__)


class PresenceJournal:
    """Reads the history of presence; thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def mark(self, tenant: str, device: str) -> Mark | None:
        """Give what is known of a device now; None when it was never heard.

        Raises:
            NotFound: no such device.
        """
        at_home = and_(PRESENCE.c.tenant == DEVICES.c.tenant, PRESENCE.c.device == DEVICES.c.id)
        columns = select(DEVICES.c.id, *(PRESENCE.c[name] for name in _MARK))
        mine = and_(DEVICES.c.tenant == tenant, DEVICES.c.id == device)
        with self._database.read() as connection:
            query = columns.select_from(DEVICES.outerjoin(PRESENCE, at_home)).where(mine)
            row = connection.execute(query).mappings().first()
        if row is None:
            raise NotFound(f"no device {device[:80]!r}", code="device_not_found")
        return None if row["online"] is None else Mark(**{name: row[name] for name in _MARK})

    def events(self, tenant: str, device: str, start_ns: int, end_ns: int, limit: int | None = None) -> list[Event]:
        """Give a device's events of a time, oldest first."""
        mine = and_(_E.tenant == tenant, _E.device == device, _E.time_ns >= start_ns, _E.time_ns < end_ns)
        with self._database.read() as connection:
            query = select(PRESENCE_EVENTS).where(mine).order_by(_E.time_ns).limit(limit)
            return [_to_event(row) for row in connection.execute(query).mappings()]

    def before(self, tenant: str, device: str, time_ns: int) -> Event | None:
        """Give a device's last event before a time."""
        mine = and_(_E.tenant == tenant, _E.device == device, _E.time_ns < time_ns)
        with self._database.read() as connection:
            query = select(PRESENCE_EVENTS).where(mine).order_by(_E.time_ns.desc()).limit(1)
            row = connection.execute(query).mappings().first()
        return _to_event(row) if row else None

    def gaps(self, start_ns: int, end_ns: int) -> list[Gap]:
        """Give when the platform itself could not hear, of a time, oldest first."""
        with self._database.read() as connection:
            query = select(_G.start_ns, _G.end_ns).where(_G.end_ns > start_ns, _G.start_ns < end_ns)
            return [Gap(start, end) for start, end in connection.execute(query.order_by(_G.start_ns))]

    def forget(self, before_ns: int) -> None:
        """Delete events and gaps before a time, and of each device those beyond the newest KEPT."""
        crowded = select(_E.tenant, _E.device).group_by(_E.tenant, _E.device).having(func.count() > KEPT)
        with self._database.read() as connection:
            over = connection.execute(crowded).all()
        with self._database.write("presence") as transaction:
            transaction.execute(delete(PRESENCE_EVENTS).where(_E.time_ns < before_ns))
            transaction.execute(delete(PRESENCE_GAPS).where(_G.end_ns < before_ns))
            for tenant, device in over:
                mine = and_(_E.tenant == tenant, _E.device == device)
                newest = select(_E.time_ns).where(mine).order_by(_E.time_ns.desc()).offset(KEPT).limit(1)
                oldest_ns = transaction.execute(newest).scalar()
                if oldest_ns is not None:
                    transaction.execute(delete(PRESENCE_EVENTS).where(mine, _E.time_ns <= oldest_ns))


def note_gap(transaction: Write, gap: Gap) -> None:
    """Note a time in which the platform itself could not hear."""
    transaction.execute(delete(PRESENCE_GAPS).where(_G.start_ns == gap.start_ns))
    transaction.execute(insert(PRESENCE_GAPS).values(start_ns=gap.start_ns, end_ns=gap.end_ns))


def begin_anew(transaction: Write, tenant: str, device: str) -> None:
    """Let the history of a device begin now, with the state it has: it is moved to somebody else."""
    mine = and_(PRESENCE.c.tenant == tenant, PRESENCE.c.device == device)
    newest = transaction.execute(select(PRESENCE.c.event, PRESENCE.c.event_ns).where(mine)).first()
    transaction.execute(delete(PRESENCE_EVENTS).where(_E.tenant == tenant, _E.device == device))
    if newest is None or newest.event == "never":
        return
    at_ns = max(transaction.now_ns, newest.event_ns + 1)
    transaction.execute(update(PRESENCE).where(mine).values(event_ns=at_ns, before_ns=0))
    write(transaction, [(tenant, device, Event(at_ns, newest.event, "moved"))])


def write(transaction: Write, news: Iterable[tuple[str, str, Event | Fold]]) -> None:
    """Write what happened to devices (tenant, device, what)."""
    found = list(news)
    events = [
        {"tenant": tenant, "device": device} | {name: getattr(event, name) for name in Event.__dataclass_fields__}
        for tenant, device, event in found
        if isinstance(event, Event)
    ]
    folds: list[dict[str, Any]] = [
        {"t": tenant, "d": device, "gone": fold.gone_ns, "into": fold.into_ns, "lost": fold.lost_ns}
        for tenant, device, fold in found
        if isinstance(fold, Fold)
    ]
    transaction.execute(insert(PRESENCE_EVENTS), events)
    if folds:
        newest = transaction.execute(select(func.max(_G.end_ns))).scalar() or 0
        folds = [fold | {"lost": 0} if fold["gone"] < newest else fold for fold in folds]  # not its own fault
    transaction.execute(_DROP, [{name: fold[name] for name in ("t", "d", "gone")} for fold in folds])
    transaction.execute(_COUNT, [{name: fold[name] for name in ("t", "d", "into", "lost")} for fold in folds])


_DROP = delete(PRESENCE_EVENTS).where(
    _E.tenant == bindparam("t"), _E.device == bindparam("d"), _E.time_ns == bindparam("gone")
)
_COUNT = (
    update(PRESENCE_EVENTS)
    .where(_E.tenant == bindparam("t"), _E.device == bindparam("d"), _E.time_ns == bindparam("into"))
    .values(flaps=_E.flaps + 1, lost_ns=_E.lost_ns + bindparam("lost"))
)


def _to_event(row: Any) -> Event:
    return Event(**{name: row[name] for name in Event.__dataclass_fields__})
