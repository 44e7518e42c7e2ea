"""Device types and all their versions: the only SQL about them.

DEVICE_TYPES holds what is in force, as gates ask for it; TYPE_VERSIONS everything that was ever written down. A deleted
type leaves its versions behind, because points and quarantined messages go on naming them; of a version too many only
its number stays, for the same reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, func, insert, select, update

from devices.database.engine import Database, Write
from devices.database.tables import DEVICE_TYPES, DEVICES, TYPE_VERSIONS
from devices.rows import SYSTEM, Deed, Who
from wire.devices import DeviceType, DeviceTypeSpec, type_key
from wire.errors import Conflict, NotFound
from wire.retention import DeviceTerm, TermPage
from wire.schemas import TypeSummary, TypeVersion, TypeVersionDetail

MAX_VERSIONS = 1_000  # of one type: a page and a diff must stay small
_V = TYPE_VERSIONS.c
_OPEN = ("draft", "scheduled")
_GONE = "forgotten"  # its number names points, its content is not kept


@dataclass(slots=True, frozen=True)
class NewVersion:
    """A version to write down."""

    spec: DeviceTypeSpec
    origin: str
    note: str = ""


class TypeStore:
    """Device types; thread-safe. Each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(self, tenant: str) -> list[DeviceType]:
        """Give all types in force in order of their names."""
        query = select_types().where(DEVICE_TYPES.c.tenant == tenant).order_by(DEVICE_TYPES.c.name)
        with self._database.read() as connection:
            return [to_type(row) for row in connection.execute(query).mappings()]

    def summaries(self, tenant: str) -> Sequence[TypeSummary]:
        """Give all types briefly, those of which there are only drafts too."""
        counted = select(DEVICES.c.type, func.count()).where(DEVICES.c.tenant == tenant).group_by(DEVICES.c.type)
        mine = and_(_V.tenant == tenant, _V.state != _GONE)
        listed = select(_V.name, _V.version, _V.state).where(mine).order_by(_V.name, _V.version)
        current = {kind.name: kind for kind in self.list(tenant)}
        found: dict[str, TypeSummary] = {}
        with self._database.read() as connection:
            devices: dict[Any, int] = {name: count for name, count in connection.execute(counted)}  # noqa: C416
            for name, version, state in connection.execute(listed):
                each = found.setdefault(name, _summary(name, current.get(name), devices.get(name, 0)))
                each.versions += 1
                if state == "draft":
                    each.drafts.append(version)
                elif state == "scheduled":
                    each.scheduled = version
        return [each for each in found.values() if each.version is not None or each.drafts or each.scheduled]

    def find(self, tenant: str, name: str) -> DeviceType:
        """Give the version of a type that is in force.

        Raises:
            NotFound: no such type, or only drafts of it.
        """
        with self._database.read() as connection:
            row = connection.execute(select_types().where(_is(tenant, name))).mappings().first()
        if row is None:
            raise _no_type(name)
        return to_type(row)

    def versions(self, tenant: str, name: str) -> Sequence[TypeVersion]:
        """Give all versions that are kept, newest first.

        Raises:
            NotFound: there never was such a type.
        """
        query = select(TYPE_VERSIONS).where(_of(tenant, name), _V.state != _GONE).order_by(_V.version.desc())
        with self._database.read() as connection:
            found = [TypeVersion(**_members(row)) for row in connection.execute(query).mappings()]
        if not found:
            raise _no_type(name)
        return found

    def version(self, tenant: str, name: str, number: int) -> TypeVersionDetail:
        """Give one version with what it says.

        Raises:
            NotFound: there is none of this number.
        """
        with self._database.read() as connection:
            row = connection.execute(select(TYPE_VERSIONS).where(_of(tenant, name, number))).mappings().first()
        return _detail(row, name, number)

    def terms(self, after: str, limit: int) -> TermPage:
        """Tell how long the next devices behind `after` are kept; those whose type does not say are left out."""
        typed = and_(DEVICE_TYPES.c.tenant == DEVICES.c.tenant, DEVICE_TYPES.c.name == DEVICES.c.type)
        columns = select(DEVICES.c.tenant, DEVICES.c.id, DEVICES.c.type).select_from(DEVICES.join(DEVICE_TYPES, typed))
        page = columns.where(DEVICES.c.id > after).order_by(DEVICES.c.id).limit(limit)
        with self._database.read() as connection:
            kinds = {(row["tenant"], row["name"]): row for row in connection.execute(select_types()).mappings()}
            days = {key: to_type(row).retention_days for key, row in kinds.items()}
            rows = connection.execute(page).all()
        listed = [(tenant, device, days.get((tenant, name))) for tenant, device, name in rows]
        items = [DeviceTerm(tenant=tenant, device=device, days=kept) for tenant, device, kept in listed if kept]
        return TermPage(items=items, next=rows[-1][1] if len(rows) == limit else None)

    def name_versions(self, ids: Sequence[int]) -> dict[int, tuple[str, int]]:
        """Give type and version of the ids that points carry, of whatever tenant."""
        query = select(_V.id, _V.name, _V.version).where(_V.id.in_(ids))
        with self._database.read() as connection:
            return {id_: (name, version) for id_, name, version in connection.execute(query)}

    def put(self, tenant: str, name: str, new: NewVersion, who: Who, *, is_new: bool) -> tuple[DeviceType, bool]:
        """Write a version down and put it in force; tell whether there was no such type before.

        What says the same as the version in force changes nothing.

        Raises:
            Conflict: it exists, and `is_new` says it must not.
        """
        with self._database.write() as transaction:
            row = transaction.execute(select_types().where(_is(tenant, name))).mappings().first()
            if row is not None and is_new:
                raise Conflict(f"device type {name} exists already", code="type_exists", fields=["name"])
            if row is not None and DeviceTypeSpec.model_validate_json(row["spec"]) == new.spec:
                return to_type(row), False
            made = _write_down(transaction, tenant, name, new, who)
            _put_in_force(transaction, tenant, made, who, "type.create" if row is None else "type.update")
            found = transaction.execute(select_types().where(_is(tenant, name))).mappings().one()
        return to_type(found), row is None

    def draft(self, tenant: str, name: str, new: NewVersion, who: Who) -> TypeVersionDetail:
        """Write a version down without putting it in force."""
        with self._database.write() as transaction:
            made = _write_down(transaction, tenant, name, new, who)
            detail = {"version": made.version, "origin": new.origin}
            transaction.audit([Deed(who, "type.draft", name, detail)])
        return made

    def activate(self, tenant: str, name: str, number: int, who: Who) -> DeviceType:
        """Put a draft or scheduled version in force.

        Raises:
            NotFound: there is none of this number.
            Conflict: it is in force, or was before.
        """
        with self._database.write() as transaction:
            chosen = _demand_open(transaction, tenant, name, number)
            _put_in_force(transaction, tenant, chosen, who, "type.activate")
            row = transaction.execute(select_types().where(_is(tenant, name))).mappings().one()
        return to_type(row)

    def schedule(self, tenant: str, name: str, number: int, due_ns: int | None, who: Who) -> TypeVersionDetail:
        """Let a draft come into force at a time; None: it stays a draft. At most one of a type is scheduled.

        Raises:
            NotFound: there is none of this number.
            Conflict: it is in force, or was before.
        """
        with self._database.write() as transaction:
            _demand_open(transaction, tenant, name, number)
            others = and_(_of(tenant, name), _V.state == "scheduled")
            transaction.execute(update(TYPE_VERSIONS).where(others).values(state="draft", due_ns=None))
            values = {"state": "draft" if due_ns is None else "scheduled", "due_ns": due_ns}
            transaction.execute(update(TYPE_VERSIONS).where(_of(tenant, name, number)).values(**values))
            detail = {"version": number} | ({} if due_ns is None else {"due_ns": due_ns})
            action = "type.unschedule" if due_ns is None else "type.schedule"
            transaction.audit([Deed(who, action, name, detail)])
            row = transaction.execute(select(TYPE_VERSIONS).where(_of(tenant, name, number))).mappings().one()
        return _detail(row, name, number)

    def activate_due(self, now_ns: int) -> Sequence[tuple[str, int]]:
        """Put in force what was scheduled for a time that has come; give type and version of each."""
        due = and_(_V.state == "scheduled", _V.due_ns <= now_ns)
        with self._database.look() as connection:  # twice a second: no write lock while there is nothing to do
            if connection.execute(select(_V.id).where(due).limit(1)).first() is None:
                return []
        done = []
        with self._database.write() as transaction:
            for row in transaction.execute(select(TYPE_VERSIONS).where(due).order_by(_V.due_ns)).mappings().all():
                chosen = TypeVersionDetail(**_members(row), spec=DeviceTypeSpec.model_validate_json(row["spec"]))
                _put_in_force(transaction, row["tenant"], chosen, Who(SYSTEM, tenant=row["tenant"]), "type.activate")
                done.append((chosen.name, chosen.version))
        return done

    def remove(self, tenant: str, name: str, who: Who) -> None:
        """Delete a type that no device has; its versions stay to be looked up.

        Raises:
            NotFound: no such type, nor a draft of it.
            Conflict: a device has it.
        """
        with self._database.write() as transaction:
            wearer = select(DEVICES.c.id).where(DEVICES.c.tenant == tenant, DEVICES.c.type == name).limit(1)
            device_id = transaction.execute(wearer).scalar()
            was_in_force = transaction.execute(delete(DEVICE_TYPES).where(_is(tenant, name))).rowcount
            still_open = and_(_of(tenant, name), _V.state.not_in(("retired", _GONE)))
            values = {"state": "retired", "due_ns": None, "retired_ns": transaction.now_ns}
            ended = transaction.execute(update(TYPE_VERSIONS).where(still_open).values(**values)).rowcount
            if not was_in_force and not ended:
                raise _no_type(name)
            if device_id is not None and was_in_force:
                raise Conflict(f"device type {name} is in use, for one by {device_id}", code="type_in_use")
            transaction.changed("type", [type_key(tenant, name)])
            transaction.audit([Deed(who, "type.delete", name)])

    def devices_of(self, tenant: str, name: str, limit: int, after: str = "") -> Sequence[str]:
        """Give ids of devices of a type in order, at most so many, from behind one on."""
        mine = and_(DEVICES.c.tenant == tenant, DEVICES.c.type == name, DEVICES.c.id > after)
        with self._database.read() as connection:
            return list(
                connection.execute(select(DEVICES.c.id).where(mine).order_by(DEVICES.c.id).limit(limit)).scalars()
            )


def select_types() -> Any:
    """Select what `to_type` reads."""
    same = and_(_V.tenant == DEVICE_TYPES.c.tenant, _V.name == DEVICE_TYPES.c.name)
    joined = DEVICE_TYPES.join(TYPE_VERSIONS, and_(same, _V.version == DEVICE_TYPES.c.version))
    return select(DEVICE_TYPES, _V.id).select_from(joined)


def to_type(row: Any) -> DeviceType:
    """Read a row of `select_types`."""
    spec = DeviceTypeSpec.model_validate_json(row["spec"])
    return DeviceType(name=row["name"], version=row["version"], version_id=row["id"], **spec.model_dump())


def _write_down(transaction: Write, tenant: str, name: str, new: NewVersion, who: Who) -> TypeVersionDetail:
    newest = transaction.execute(select(func.max(_V.version)).where(_of(tenant, name))).scalar() or 0
    _forget(transaction, tenant, name)
    row = {
        "tenant": tenant, "name": name, "version": newest + 1,
        "id": (transaction.execute(select(func.max(_V.id))).scalar() or 0) + 1,
        "state": "draft", "spec": new.spec.model_dump_json(), "note": new.note, "origin": new.origin,
        "actor": who.actor, "created_ns": transaction.now_ns,
        "due_ns": None, "activated_ns": None, "retired_ns": None,
    }  # fmt: skip
    transaction.execute(insert(TYPE_VERSIONS).values(**row))
    return TypeVersionDetail(**_members(row), spec=new.spec)


def _forget(transaction: Write, tenant: str, name: str) -> None:
    """Make room for one version: the oldest goes that is neither in force, nor due, nor what a rollback returns to."""
    count = select(func.count()).where(_of(tenant, name), _V.state != _GONE)
    over = transaction.execute(count).scalar_one() - MAX_VERSIONS + 1
    if over <= 0:
        return
    retired = select(_V.version).where(_of(tenant, name), _V.state == "retired", _V.activated_ns.is_not(None))
    before = transaction.execute(retired.order_by(_V.retired_ns.desc()).limit(1)).scalar()
    spare = select(_V.version).where(_of(tenant, name), _V.state.in_(("draft", "retired")), _V.version != (before or 0))
    numbers = transaction.execute(spare.order_by(_V.version).limit(over)).scalars().all()
    forgotten = update(TYPE_VERSIONS).where(_of(tenant, name), _V.version.in_(numbers))
    transaction.execute(forgotten.values(state=_GONE, spec="", note=""))


def _put_in_force(transaction: Write, tenant: str, chosen: TypeVersionDetail, who: Who, action: str) -> None:
    name, now_ns = chosen.name, transaction.now_ns
    in_force = and_(_of(tenant, name), _V.state == "active")
    before = transaction.execute(select(_V.version).where(in_force)).scalar()
    transaction.execute(update(TYPE_VERSIONS).where(in_force).values(state="retired", retired_ns=now_ns))
    values = {"state": "active", "due_ns": None, "activated_ns": now_ns}
    transaction.execute(update(TYPE_VERSIONS).where(_of(tenant, name, chosen.version)).values(**values))
    content = {"version": chosen.version, "spec": chosen.spec.model_dump_json()}
    if not transaction.execute(update(DEVICE_TYPES).where(_is(tenant, name)).values(**content)).rowcount:
        transaction.execute(insert(DEVICE_TYPES).values(tenant=tenant, name=name, **content))
    transaction.changed("type", [type_key(tenant, name)])
    detail = {"before": {"version": before}, "after": {"version": chosen.version}, "origin": chosen.origin}
    transaction.audit([Deed(who, action, name, detail)])


def _demand_open(transaction: Write, tenant: str, name: str, number: int) -> TypeVersionDetail:
    found = _detail(
        transaction.execute(select(TYPE_VERSIONS).where(_of(tenant, name, number))).mappings().first(), name, number
    )
    if found.state not in _OPEN:
        hint = "is in force" if found.state == "active" else "was in force before: roll back to it"
        raise Conflict(f"version {number} of {name} {hint}", code=f"version_{found.state}", fields=["version"])
    return found


def _detail(row: Any, name: str, number: int) -> TypeVersionDetail:
    if row is None or row["state"] == _GONE:
        raise NotFound(f"device type {name} has no version {number}", code="version_not_found", fields=["version"])
    return TypeVersionDetail(**_members(row), spec=DeviceTypeSpec.model_validate_json(row["spec"]))


def _members(row: Any) -> dict[str, Any]:
    same = {name: row[name] for name in ("name", "version", "id", "state", "note", "origin")}
    times = {name: row[f"{name}_ns"] for name in ("created", "due", "activated", "retired")}
    return same | times | {"by": row["actor"]}


def _summary(name: str, current: DeviceType | None, devices: int) -> TypeSummary:
    version, fields = (current.version, len(current.fields)) if current else (None, 0)
    return TypeSummary(
        name=name, version=version, description=current.description if current else "", fields=fields,
        devices=devices, versions=0, drafts=[], scheduled=None,
    )  # fmt: skip


def _no_type(name: str) -> NotFound:
    return NotFound(f"no device type {name!r}", code="type_not_found")


def _is(tenant: str, name: str) -> ColumnElement[bool]:
    return and_(DEVICE_TYPES.c.tenant == tenant, DEVICE_TYPES.c.name == name)


def _of(tenant: str, name: str, number: int | None = None) -> ColumnElement[bool]:
    found = and_(_V.tenant == tenant, _V.name == name)
    return found if number is None else and_(found, _V.version == number)
