"""Presence of devices: the only SQL about it. Marks are changed by functions of `devices.presence.state`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Connection, and_, bindparam, func, insert, or_, select, update

from devices.credentials import CERTIFICATE
from devices.database.engine import Database, Write
from devices.database.tables import COUNTERS, CREDENTIALS, DEVICE_TYPES, DEVICES, PRESENCE
from devices.presence import history, journal
from devices.presence.state import Mark
from devices.store import PARAMETERS

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

    def unconfirm(self) -> None:
        """Forget who is connected: the broker's news were interrupted, silence decides from now."""
        with self._database.write("presence") as transaction:
            values = {"connected": False, "since_ns": transaction.now_ns}
            transaction.execute(update(PRESENCE).where(PRESENCE.c.connected).values(**values))

    def disconnect_all(self, judge: Callable[[str, Mark], Mark]) -> None:
        """Replace the marks of all connected devices: the broker was started anew."""
        with self._database.write("presence") as transaction:
            known = _read_marks(transaction, PRESENCE.c.connected)
            _write_marks(transaction, known, {key: judge(key, old.mark or Mark()) for key, old in known.items()})

    def silence(self, is_silent: Callable[[Mark, float | None], bool], silence: Callable[[Mark], Mark]) -> int:
        """Replace the marks of unconnected online devices that are silent, given their type's expected interval."""
        quiet = and_(PRESENCE.c.online, PRESENCE.c.connected.is_(False))
        with self._database.read() as connection:
            if connection.execute(select(PRESENCE.c.device).where(quiet).limit(1)).first() is None:
                return 0
        with self._database.write("presence") as transaction:
            intervals = _read_intervals(transaction)
            query = _marks_query().add_columns(DEVICES.c.type).where(quiet)
            known: dict[str, _Kept] = {}
            for row in transaction.execute(query).mappings():
                mark = _to_mark(row)
                if mark is not None and is_silent(mark, intervals.get((row["tenant"], row["type"]))):
                    known[row["id"]] = _Kept(row["tenant"], mark)
            _write_marks(transaction, known, {key: silence(old.mark) for key, old in known.items() if old.mark})
        return len(known)

    def overdue(self, is_overdue: Callable[[Mark, float], bool]) -> int:
        """Mark connected devices as stale of which less is heard than their types expect."""
        here = and_(PRESENCE.c.connected, PRESENCE.c.online, PRESENCE.c.stale.is_(False))
        with self._database.read() as connection:
            intervals = {key: each for key, each in _read_intervals(connection).items() if each is not None}
        if not intervals:
            return 0
        query = _marks_query().add_columns(DEVICES.c.type)
        named = DEVICES.c.type.in_({name for _, name in intervals})
        known: dict[str, _Kept] = {}
        with self._database.write("presence") as transaction:
            for row in transaction.execute(query.where(here, named)).mappings():
                mark, interval_s = _to_mark(row), intervals.get((row["tenant"], row["type"]))
                if mark is not None and interval_s is not None and is_overdue(mark, interval_s):
                    known[row["id"]] = _Kept(row["tenant"], mark)
            stale = {key: replace(old.mark, stale=True) for key, old in known.items() if old.mark}
            _write_marks(transaction, known, stale)
        return len(known)

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
            present = select(func.count()).select_from(PRESENCE).where(PRESENCE.c.online)
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


def _read_intervals(transaction: Write | Connection) -> dict[tuple[str, str], float | None]:
    query = select(DEVICE_TYPES.c.tenant, DEVICE_TYPES.c.name, DEVICE_TYPES.c.spec)
    specs: Iterable[tuple[str, str, str]] = transaction.execute(query)
    return {(tenant, name): orjson.loads(spec).get("expected_interval_s") for tenant, name, spec in specs}
