"""Presence of devices: the only SQL about it. Marks are changed by functions of `devices.presence.state`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import Any, NamedTuple

import orjson
from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    bindparam,
    false,
    func,
    insert,
    not_,
    or_,
    select,
    true,
    tuple_,
    update,
)

from devices.credentials import CERTIFICATE
from devices.database.engine import Database, Write
from devices.database.tables import COUNTERS, CREDENTIALS, DEVICE_TYPES, DEVICES, PRESENCE
from devices.presence import history, journal
from devices.presence.history import Gap
from devices.presence.state import Mark, silence
from devices.store import PARAMETERS
from wire.clock import NS_PER_S

MOST = 1_000  # marks written in one transaction: others wait for it
Limit = Callable[[float | None], float]  # expected interval of a type -> how long a device may be unheard, s
_HOME = PRESENCE.join(DEVICES, and_(PRESENCE.c.tenant == DEVICES.c.tenant, PRESENCE.c.device == DEVICES.c.id))
_NAMES = tuple(Mark.__dataclass_fields__)
_UPDATE = (
    update(PRESENCE)
    .where(PRESENCE.c.tenant == bindparam("whose"), PRESENCE.c.device == bindparam("key"))
    .values({name: bindparam(f"new_{name}") for name in _NAMES})
)


class PresenceStore:
    """Marks of presence; thread-safe. Each method is one transaction, one after the other among all processes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def change(self, ids: Sequence[str], judge: Callable[[str, Mark], Mark]) -> None:
        """Replace the marks of those ids that are registered; a device without a mark starts with an empty one."""
        with self._database.write("presence") as transaction:
            for start in range(0, len(ids), PARAMETERS):
                known = _read_marks(transaction, DEVICES.c.id.in_(ids[start : start + PARAMETERS]))
                _write_marks(transaction, known, {key: judge(key, old.mark or Mark()) for key, old in known.items()})

    def excuse(self, start_ns: int, return_ns: int) -> None:
        """Note that nothing could be heard from a time until now: silence is counted from now.

        Args:
            start_ns: since when.
            return_ns: how long devices may take to come back.
        """
        with self._database.write("presence") as transaction:
            journal.note_gap(transaction, Gap(start_ns, transaction.now_ns + return_ns))
            here = update(PRESENCE).where(PRESENCE.c.online.is_(True))
            transaction.execute(here.values(since_ns=transaction.now_ns))

    def unconfirm(self) -> None:
        """Forget who is connected: the broker's news were interrupted, silence decides from now.

        Those that were connected are taken at their word, so that commands are still tried on them.
        """
        with self._database.write("presence") as transaction:
            said = func.coalesce(PRESENCE.c.said, "online")
            values = {"connected": False, "since_ns": transaction.now_ns, "said": said}
            transaction.execute(update(PRESENCE).where(PRESENCE.c.connected).values(**values))

    def connected(self) -> frozenset[str]:
        """Give the devices that are connected to the broker."""
        with self._database.look() as connection:  # who is connected is online, and of those there is an index
            here = select(PRESENCE.c.device).where(PRESENCE.c.online.is_(True), PRESENCE.c.connected)
            return frozenset(connection.execute(here).scalars())

    def disconnect_all(self, judge: Callable[[str, Mark], Mark]) -> None:
        """Replace the marks of all connected devices: the broker was started anew."""
        with self._database.write("presence") as transaction:
            known = _read_marks(transaction, PRESENCE.c.connected)
            _write_marks(transaction, known, {key: judge(key, old.mark or Mark()) for key, old in known.items()})

    def silence(self, limit_s: Limit, now_ns: int) -> int:
        """Take unconnected online devices for gone that were not heard for their limit."""
        here = and_(PRESENCE.c.online.is_(True), PRESENCE.c.connected.is_(False))
        return self._change_where(lambda unheard: and_(here, unheard), (limit_s, now_ns), silence)

    def overdue(self, limit_s: Limit, now_ns: int) -> int:
        """Mark connected devices as stale that were not heard for their limit, and not as stale whose limit grew."""
        here = and_(PRESENCE.c.online.is_(True), PRESENCE.c.connected.is_(True))
        fresh, stale = and_(here, PRESENCE.c.stale.is_(False)), and_(here, PRESENCE.c.stale.is_(True))
        judged, typeless = (limit_s, now_ns), DEVICES.c.type.is_(None)
        marked = self._change_where(
            lambda unheard: and_(fresh, unheard), judged, lambda mark: replace(mark, stale=True)
        )
        return marked + self._change_where(
            lambda unheard: and_(stale, or_(typeless, not_(unheard))), judged, lambda mark: replace(mark, stale=False)
        )

    def _change_where(
        self,
        chosen: Callable[[ColumnElement[bool]], ColumnElement[bool]],
        judged: tuple[Limit, int],
        change: Callable[[Mark], Mark],
    ) -> int:
        """Change the marks of those chosen by whether they were unheard, MOST in a transaction: it may be a fleet."""
        with self._database.read() as connection:
            these = chosen(_unheard(_read_intervals(connection), *judged))
            ids = connection.execute(select(DEVICES.c.id).select_from(_HOME).where(these)).scalars().all()
        for start in range(0, len(ids), MOST):
            with self._database.write("presence") as transaction:  # as they are now: more may have been heard
                known = _read_marks(transaction, and_(DEVICES.c.id.in_(ids[start : start + MOST]), these))
                _write_marks(transaction, known, {key: change(old.mark) for key, old in known.items() if old.mark})
        return len(ids)

    def beat(self) -> None:
        """Note that the keeper of presence is alive and up to date."""
        with self._database.write("presence") as transaction:
            mine = COUNTERS.c.name == "presence"
            transaction.execute(update(COUNTERS).where(mine).values(value=transaction.now_ns))

    def last_beat_ns(self) -> int:
        """Give when the keeper was alive last."""
        with self._database.read() as connection:
            query = select(COUNTERS.c.value).where(COUNTERS.c.name == "presence")
            return int(connection.execute(query).scalar_one())

    def counts(self) -> tuple[int, int]:
        """Give the number of devices registered and online."""
        with self._database.read() as connection:
            registered = connection.execute(select(func.count()).select_from(DEVICES)).scalar_one()
            present = select(func.count()).select_from(PRESENCE).where(PRESENCE.c.online.is_(True))
            online = connection.execute(present).scalar_one()
        return registered, online

    def turn_broker_credentials(self, now_ns: int) -> list[str]:
        """Let the broker take another of a device's valid credentials, for each unconnected device with several.

        Returns:
            The devices that it concerns.
        """
        valid = and_(
            CREDENTIALS.c.broker_hash != CERTIFICATE,
            or_(CREDENTIALS.c.not_before_ns.is_(None), CREDENTIALS.c.not_before_ns <= now_ns),
            or_(CREDENTIALS.c.not_after_ns.is_(None), CREDENTIALS.c.not_after_ns > now_ns),
        )
        several = select(CREDENTIALS.c.device).where(valid)
        several = several.group_by(CREDENTIALS.c.device).having(func.count() > 1)
        connected = select(PRESENCE.c.device).where(PRESENCE.c.connected)
        columns = select(CREDENTIALS.c.device, CREDENTIALS.c.id, DEVICES.c.broker_credential)
        owns = and_(CREDENTIALS.c.tenant == DEVICES.c.tenant, CREDENTIALS.c.device == DEVICES.c.id)
        is_admitted = DEVICES.c.state.in_(("active", "held"))
        joined = columns.select_from(CREDENTIALS.join(DEVICES, owns)).where(valid, is_admitted)
        concerned = joined.where(CREDENTIALS.c.device.in_(several), CREDENTIALS.c.device.not_in(connected))
        with self._database.write() as transaction:
            held: dict[str, list[str]] = {}
            chosen: dict[str, str | None] = {}
            ordered = concerned.order_by(CREDENTIALS.c.device, CREDENTIALS.c.created_ns.desc(), CREDENTIALS.c.id)
            for device, key, choice in transaction.execute(ordered):
                held.setdefault(device, []).append(key)
                chosen[device] = choice
            turned = [{"key": device, "choice": _next(keys, chosen[device])} for device, keys in held.items()]
            transaction.execute(_TURN, turned)
        return list(held)


_TURN = update(DEVICES).where(DEVICES.c.id == bindparam("key")).values(broker_credential=bindparam("choice"))


def _next(keys: list[str], choice: str | None) -> str:
    now = keys.index(choice) if choice in keys else 0  # unchosen: the broker takes the newest, which is the first
    return keys[(now + 1) % len(keys)]


class _Kept(NamedTuple):
    """The mark of a device as stored; None: it has none yet."""

    tenant: str
    mark: Mark | None


def _marks_query() -> Any:
    at_home = and_(PRESENCE.c.tenant == DEVICES.c.tenant, PRESENCE.c.device == DEVICES.c.id)
    columns = select(DEVICES.c.tenant, DEVICES.c.id, *(PRESENCE.c[name] for name in _NAMES))
    return columns.select_from(DEVICES.outerjoin(PRESENCE, at_home))


def _read_marks(transaction: Write, condition: Any) -> dict[str, _Kept]:
    rows = transaction.execute(_marks_query().where(condition)).mappings()
    return {row["id"]: _Kept(row["tenant"], _to_mark(row)) for row in rows}


def _to_mark(row: Any) -> Mark | None:
    return None if row["online"] is None else Mark(**{name: row[name] for name in _NAMES})


def _write_marks(transaction: Write, known: Mapping[str, _Kept], marks: Mapping[str, Mark]) -> None:
    noted = {key: history.note(known[key].mark or Mark(), mark, transaction.now_ns) for key, mark in marks.items()}
    pairs = [(key, known[key], mark) for key, (mark, _) in noted.items()]
    fresh = [{"tenant": old.tenant, "device": key} | _values(mark, "") for key, old, mark in pairs if old.mark is None]
    changed = [(key, old.tenant, mark) for key, old, mark in pairs if old.mark is not None and old.mark != mark]
    transaction.execute(insert(PRESENCE), fresh)
    transaction.execute(_UPDATE, [{"key": key, "whose": whose} | _values(mark, "new_") for key, whose, mark in changed])
    journal.write(transaction, ((known[key].tenant, key, news) for key, (_, news) in noted.items() if news is not None))


def _values(mark: Mark, prefix: str) -> dict[str, Any]:
    return {prefix + name: getattr(mark, name) for name in _NAMES}


def _unheard(intervals: Mapping[tuple[str, str], float | None], limit_s: Limit, now_ns: int) -> ColumnElement[bool]:
    """Give the condition of devices that were not heard for the limit of their type."""
    limits: dict[float, list[tuple[str, str]]] = {}
    for key, interval_s in intervals.items():
        limits.setdefault(limit_s(interval_s), []).append(key)
    worn, usual_s = tuple_(DEVICES.c.tenant, DEVICES.c.type), limit_s(None)
    unheard = [and_(worn.in_(keys), _before(each_s, now_ns)) for each_s, keys in limits.items() if each_s < inf]
    if usual_s < inf:
        named = [key for keys in limits.values() for key in keys]
        is_usual = or_(DEVICES.c.type.is_(None), worn.not_in(named)) if named else true()
        unheard.append(and_(is_usual, _before(usual_s, now_ns)))
    # The shortest limit once more: it needs no look at the device.
    return and_(_before(min((usual_s, *limits)), now_ns), or_(*unheard)) if unheard else false()


def _before(limit_s: float, now_ns: int) -> ColumnElement[bool]:
    before_ns = now_ns - int(limit_s * NS_PER_S)
    return and_(PRESENCE.c.last_seen_ns < before_ns, PRESENCE.c.since_ns < before_ns)


def _read_intervals(transaction: Write | Connection) -> dict[tuple[str, str], float | None]:
    query = select(DEVICE_TYPES.c.tenant, DEVICE_TYPES.c.name, DEVICE_TYPES.c.spec)
    specs: Iterable[tuple[str, str, str]] = transaction.execute(query)
    return {(tenant, name): orjson.loads(spec).get("expected_interval_s") for tenant, name, spec in specs}
