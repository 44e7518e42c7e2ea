"""Twins and their history: the only SQL about them. What an edit makes of a twin is `devices.twins.edit`'s word."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import orjson
from sqlalchemy import ColumnElement, and_, bindparam, delete, false, func, insert, select, tuple_, update

from devices.control.news import COUNTED, COUNTER, next_revision
from devices.control.traffic import Way
from devices.database.engine import Database, Write
from devices.database.tables import DEVICES
from devices.database.tables_control import TWIN_HISTORY, TWIN_RETAINED, TWINS
from devices.database.tables_gateways import CHILDREN
from devices.query.values import fw_of, fw_values
from devices.rows import Deed, Who
from devices.twins import merge
from devices.twins.edit import Edit, Since, Twin
from wire.control import Part, TwinChange
from wire.errors import HeadwaterError, NotFound

IDS = 5_000  # bound values a statement
SHOWN_PATCH_BYTES = 2_000  # of a patch in the audit log; of a larger one only the names
_PARTS: tuple[Part, ...] = ("desired", "reported")
_HELD = ("desired_version", "desired_ns", "reported_version", "reported_ns")
_PLACE = (TWIN_HISTORY.c.time_ns, TWIN_HISTORY.c.version, TWIN_HISTORY.c.part)
Place = tuple[int, int, str]  # time, version, part: where a change stands in the history
Judge = Callable[[Twin, Edit, int], Twin]


class _Connection(Protocol):
    def execute(self, statement: Any, parameters: Any = None) -> Any: ...


class TwinStore:
    """Twins; thread-safe. Each method is one transaction."""

    def __init__(self, database: Database, kept: int) -> None:
        """Use a database; `kept` changes of each part are remembered."""
        self._database = database
        self._kept = kept

    def find(self, tenant: str, device: str) -> Twin:
        """Give a device's twin, an empty one where nothing was written yet.

        Raises:
            NotFound: no such device.
        """
        with self._database.read() as connection:
            found = _read(connection, [device], tenant)
        if device not in found:
            raise _unknown(device)
        return found[device]

    def edit(
        self, edits: Sequence[Edit], judge: Judge, *, tenant: str | None = None, who: Who | None = None
    ) -> list[Twin | HeadwaterError]:
        """Apply edits in their order; a refused one changes nothing and stops no other.

        Args:
            edits: what is wanted.
            judge: gives the twin after an edit, or raises why not.
            tenant: whose devices; None: of any (a device's own edits, whose ids are unique).
            who: is audited for each change; None: nobody, as for what devices report.

        Returns:
            For each edit the twin after it, or what it was refused with.
        """
        with self._database.write(COUNTER) as transaction:
            known = _read(transaction, list(dict.fromkeys(edit.device for edit in edits)), tenant)
            before = dict(known)
            outcomes, changes = _judge_all(edits, known, judge, transaction.now_ns)
            touched = {edit.device for edit, _, _ in changes}
            if touched:
                revision = next_revision(transaction)
                fresh = [known[key] for key in touched if not _is_stored(before[key])]
                transaction.execute(insert(TWINS), [_values(twin, revision, "") for twin in fresh])
                older = [known[key] for key in touched if _is_stored(before[key])]
                transaction.execute(_UPDATE, [_values(twin, revision, "new_") for twin in older])
                self._remember(transaction, changes)
                _note_versions(transaction, changes)
                _mark_pending(transaction, {edit.device for edit, _, _ in changes if edit.part == "desired"})
            if who is not None:
                transaction.audit(_deed(who, edit, version) for edit, version, _ in changes)
        return outcomes

    def history(
        self, tenant: str, device: str, part: Part | None, before: Place | None, limit: int
    ) -> list[TwinChange]:
        """Give changes of a device's twin, newest first; `before` is the place of the last one of the page before."""
        mine = [TWIN_HISTORY.c.tenant == tenant, TWIN_HISTORY.c.device == device]
        if part is not None:
            mine.append(TWIN_HISTORY.c.part == part)
        if before is not None:
            mine.append(tuple_(*_PLACE) < tuple_(*before))
        query = select(TWIN_HISTORY).where(*mine)
        ordered = query.order_by(*(column.desc() for column in _PLACE)).limit(limit)
        with self._database.read() as connection:
            return [_to_change(row) for row in connection.execute(ordered).mappings()]

    def forget(self, before_ns: int) -> int:
        """Delete history older than a time; give how much."""
        with self._database.write(COUNTER) as transaction:
            return int(transaction.execute(delete(TWIN_HISTORY).where(TWIN_HISTORY.c.time_ns < before_ns)).rowcount)

    def _remember(self, transaction: Write, changes: Sequence[tuple[Edit, int, Twin]]) -> None:
        rows: list[dict[str, Any]] = [
            {
                "tenant": twin.tenant,
                "device": twin.device,
                "part": edit.part,
                "version": version,
                "time_ns": transaction.now_ns,
                "actor": edit.actor,
                "replaced": edit.is_whole,
                "patch": orjson.dumps(edit.patch).decode(),
            }
            for edit, version, twin in changes
        ]
        transaction.execute(insert(TWIN_HISTORY), rows)
        over = [
            {"t": row["tenant"], "d": row["device"], "p": row["part"], "v": row["version"] - self._kept}
            for row in rows
            if row["version"] > self._kept
        ]
        transaction.execute(_FORGET_OVER, over)


class DesiredStore:
    """What of the desired parts the broker must hold, and what it holds; thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def pending(self, limit: int) -> list[tuple[Way, Twin]]:
        """Give twins whose newest desired part the broker does not hold yet, and where it is to be."""
        query = _twins(_SEEN_THROUGH, _GATEWAY).where(TWINS.c.pending.is_(True), *_HAS_PLACE)
        with self._database.read() as connection:
            rows = connection.execute(query.limit(limit)).mappings()
            return [(Way(row["id"], row["gateway"]), _to_twin(row)) for row in rows]

    def now(self) -> Since:
        """Give the place behind all that changed so far."""
        with self._database.read() as connection:
            return Since(int(connection.execute(COUNTED).scalar_one()) + 1, "")

    def changed(self, since: Since, limit: int) -> list[tuple[Since, Twin]]:
        """Give the twins that changed after a place, each with its own, in their order."""
        query = _twins(None, TWINS.c.revision).where(tuple_(TWINS.c.revision, TWINS.c.device) > tuple_(*since))
        ordered = query.order_by(TWINS.c.revision, TWINS.c.device).limit(limit)
        with self._database.read() as connection:
            rows = connection.execute(ordered).mappings()
            return [(Since(row["revision"], row["id"]), _to_twin(row)) for row in rows]

    def of(self, devices: list[str]) -> list[Twin]:
        """Give the twins of these devices, empty ones where nothing was written yet."""
        with self._database.read() as connection:
            return list(_read(connection, devices, None).values())

    def orphans(self, limit: int) -> list[Way]:
        """Give places where the broker holds what is not to be there: the device is gone, retired, or has moved.

        Or the prefixes of its gateway leave it out now: then there is no place for it.
        """
        mine = and_(TWINS.c.tenant == DEVICES.c.tenant, TWINS.c.device == DEVICES.c.id, TWINS.c.desired_version > 0)
        homes = DEVICES.join(TWINS, mine).outerjoin(CHILDREN, _SEEN_THROUGH)
        there = and_(DEVICES.c.id == _R.device, _R.gateway == _GATEWAY, *_HAS_PLACE)
        alive = select(DEVICES.c.id).select_from(homes).where(there).exists()
        query = select(_R.device, _R.gateway).where(~alive).limit(limit)
        with self._database.read() as connection:
            return [Way(*row) for row in connection.execute(query)]

    def retained(self, held: Mapping[Way, int]) -> None:
        """Note that the broker acknowledged these versions; 0 = it was cleared.

        Where a twin was cleared that is still wanted, at another place, it has to be told there.
        """
        with self._database.write(COUNTER) as transaction:
            transaction.execute(_CLEAR, [{"key": way.device, "at": way.gateway} for way in held])
            rows = [_held(way, version) for way, version in held.items() if version]
            transaction.execute(insert(TWIN_RETAINED), rows)
            transaction.execute(
                _SETTLE, [{"key": row["device"], "at": row["gateway"], "held": row["version"]} for row in rows]
            )
            transaction.execute(_TELL_AGAIN, [{"key": way.device} for way, version in held.items() if not version])

    def reconcile(self, held: Mapping[Way, int]) -> int:
        """Take over what the broker was found to hold; give how many devices must be told again.

        A version at the broker that is higher than ours (ours comes from a backup) is passed over: devices ignore
        what is not newer than what they have.
        """
        newest: dict[str, int] = {}
        for way, version in held.items():
            newest[way.device] = max(version, newest.get(way.device, 0))
        seen_through = and_(CHILDREN.c.tenant == TWINS.c.tenant, CHILDREN.c.device == TWINS.c.device)
        columns = select(TWINS.c.device, _GATEWAY, TWINS.c.desired_version, TWINS.c.pending)
        query = columns.select_from(TWINS.outerjoin(CHILDREN, seen_through)).where(TWINS.c.desired_version > 0)
        with self._database.write(COUNTER) as transaction:
            transaction.execute(delete(TWIN_RETAINED))
            transaction.execute(insert(TWIN_RETAINED), [_held(way, version) for way, version in held.items()])
            wrong, passed = [], []
            for device, gateway, version, is_pending in transaction.execute(query):
                if newest.get(device, 0) > version:
                    passed.append({"key": device, "next": newest[device] + 1})
                elif held.get(Way(device, gateway)) != version and not is_pending:
                    wrong.append({"key": device})
            transaction.execute(_PASS_OVER, passed)
            transaction.execute(_PEND, wrong)
        return len(wrong) + len(passed)


_R = TWIN_RETAINED.c
_GATEWAY = func.coalesce(CHILDREN.c.gateway, "").label("gateway")
_HAS_PLACE = (DEVICES.c.state != "retired", func.coalesce(CHILDREN.c.outside, false()).is_(False))
_SEEN_THROUGH = and_(CHILDREN.c.tenant == DEVICES.c.tenant, CHILDREN.c.device == DEVICES.c.id)
_CLEAR = delete(TWIN_RETAINED).where(_R.device == bindparam("key"), _R.gateway == bindparam("at"))
_PEND = update(TWINS).where(TWINS.c.device == bindparam("key")).values(pending=True)
_IN_USE = select(DEVICES.c.id).where(DEVICES.c.id == bindparam("key"), DEVICES.c.state != "retired").exists()
_TELL_AGAIN = _PEND.where(TWINS.c.desired_version > 0, _IN_USE)
_PASS_OVER = (
    update(TWINS).where(TWINS.c.device == bindparam("key")).values(pending=True, desired_version=bindparam("next"))
)
_PARENT = select(CHILDREN.c.gateway).where(CHILDREN.c.device == bindparam("key")).scalar_subquery()
_SETTLE = (
    update(TWINS)
    .where(TWINS.c.device == bindparam("key"), TWINS.c.desired_version == bindparam("held"))
    .where(func.coalesce(_PARENT, "") == bindparam("at"))  # else it moved meanwhile
    .values(pending=False)
)
_SET_FW = (
    update(DEVICES)
    .where(DEVICES.c.id == bindparam("key"))
    .values(fw=bindparam("new_fw"), fw_order=bindparam("new_order"))
)
_FORGET_OVER = delete(TWIN_HISTORY).where(
    TWIN_HISTORY.c.tenant == bindparam("t"),
    TWIN_HISTORY.c.device == bindparam("d"),
    TWIN_HISTORY.c.part == bindparam("p"),
    TWIN_HISTORY.c.version <= bindparam("v"),
)
_UPDATE = (
    update(TWINS)
    .where(TWINS.c.tenant == bindparam("new_tenant"), TWINS.c.device == bindparam("new_device"))
    .values({name: bindparam(f"new_{name}") for name in (*_PARTS, *_HELD, "revision")})
)


def _judge_all(
    edits: Sequence[Edit], known: dict[str, Twin], judge: Judge, now_ns: int
) -> tuple[list[Twin | HeadwaterError], list[tuple[Edit, int, Twin]]]:
    outcomes: list[Twin | HeadwaterError] = []
    changes = []
    for edit in edits:
        old = known.get(edit.device)
        try:
            new = judge(_demand(old, edit.device), edit, now_ns)
        except HeadwaterError as error:
            outcomes.append(error)
            continue
        outcomes.append(new)
        if new is not old:
            known[edit.device] = new
            changes.append((edit, new.version(edit.part), new))
    return outcomes, changes


def _demand(twin: Twin | None, device: str) -> Twin:
    if twin is None:
        raise _unknown(device)
    return twin


def _unknown(device: str) -> NotFound:
    return NotFound(f"no device {device!r}", code="device_not_found")


def _is_stored(twin: Twin) -> bool:
    return bool(twin.desired_version or twin.reported_version)


def _note_versions(transaction: Write, changes: Sequence[tuple[Edit, int, Twin]]) -> None:
    """Keep the firmware versions that devices report where queries find them."""
    telling = {
        twin.device: twin
        for edit, _, twin in changes
        if edit.part == "reported" and (edit.is_whole or not edit.patch.keys().isdisjoint(("fw", "firmware")))
    }
    ids = sorted(telling)  # in one order always, so that transactions do not wait for each other in a circle
    for start in range(0, len(ids), IDS):
        query = select(DEVICES.c.id, DEVICES.c.attributes, DEVICES.c.fw).where(
            DEVICES.c.id.in_(ids[start : start + IDS])
        )
        rows = []
        for device, attributes, known in transaction.execute(query.order_by(DEVICES.c.id)):
            values = fw_values(fw_of(telling[device].reported, orjson.loads(attributes).get("fw")))
            if values["fw"] != known:
                rows.append({"key": device, "new_fw": values["fw"], "new_order": values["fw_order"]})
        transaction.execute(_SET_FW, rows)


def _mark_pending(transaction: Write, devices: Iterable[str]) -> None:
    transaction.execute(_PEND, [{"key": device} for device in devices])


def _held(way: Way, version: int) -> dict[str, Any]:
    return {"device": way.device, "gateway": way.gateway, "version": version}


def _twins(seen_through: Any = None, *more: Any) -> Any:
    """Select twins; with the gateways that their devices are seen through, and columns about these."""
    at_home = and_(TWINS.c.tenant == DEVICES.c.tenant, TWINS.c.device == DEVICES.c.id)
    columns = select(DEVICES.c.tenant, DEVICES.c.id, *(TWINS.c[name] for name in (*_PARTS, *_HELD)), *more)
    rows = DEVICES.outerjoin(TWINS, at_home)
    return columns.select_from(rows if seen_through is None else rows.outerjoin(CHILDREN, seen_through))


def _read(connection: _Connection, ids: Sequence[str], tenant: str | None) -> dict[str, Twin]:
    mine: list[ColumnElement[bool]] = [] if tenant is None else [DEVICES.c.tenant == tenant]
    found: dict[str, Twin] = {}
    for start in range(0, len(ids), IDS):
        query = _twins().where(DEVICES.c.id.in_(ids[start : start + IDS]), *mine)
        found |= {row["id"]: _to_twin(row) for row in connection.execute(query).mappings()}
    return found


def _to_twin(row: Any) -> Twin:
    if row["desired_version"] is None:
        return Twin(row["tenant"], row["id"])
    documents = {part: orjson.loads(row[part]) for part in _PARTS}
    return Twin(row["tenant"], row["id"], **documents, **{name: row[name] for name in _HELD})


def _values(twin: Twin, revision: int, prefix: str) -> dict[str, Any]:
    values: dict[str, Any] = {name: getattr(twin, name) for name in ("tenant", "device", *_HELD)}
    values |= {part: merge.dump(twin.state(part), part) for part in _PARTS} | {"revision": revision}
    if not prefix:
        values["pending"] = False
    return {prefix + name: value for name, value in values.items()}


def _to_change(row: Any) -> TwinChange:
    return TwinChange(
        part=row["part"],
        version=row["version"],
        time=row["time_ns"],
        actor=row["actor"],
        replaced=row["replaced"],
        patch=orjson.loads(row["patch"]),
    )


def _deed(who: Who, edit: Edit, version: int) -> Deed:
    patch = dict(edit.patch)
    is_short = len(orjson.dumps(patch)) <= SHOWN_PATCH_BYTES
    shown = {"patch": patch} if is_short else {"names": sorted(patch)[:100]}
    action = "twin.replace" if edit.is_whole else "twin.update"
    return Deed(who, action, edit.device, {"version": version} | shown)
