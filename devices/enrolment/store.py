"""Ways in and the devices that came by them: the only SQL about them."""

from __future__ import annotations

from typing import Any

import orjson
from sqlalchemy import ColumnElement, and_, delete, func, insert, or_, select, update

from devices.database.engine import Database, Write
from devices.database.tables import CREDENTIALS, DEVICES, TENANTS
from devices.database.tables_enrolment import ENROLMENTS, ORIGINS
from devices.database.tables_finding import GROUP_MEMBERS, GROUPS
from devices.enrolment.rows import GROUP, TOKEN, Arrival, EnrolmentRow
from devices.rows import CredentialRow, Deed, Who
from devices.store import add_devices, credential_values
from wire.enrolment import Terms
from wire.errors import Conflict, Forbidden, NotFound

MAX_HELD = 10_000  # of one tenant
MAX_ENROLMENTS = 1_000  # of one tenant: a group's key is tried for every device that nobody knows


class EnrolmentStore:
    """Ways in; thread-safe. Each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of_tenant(self, tenant: str) -> list[EnrolmentRow]:
        """Give a tenant's ways in, in order of their names."""
        return self._read(ENROLMENTS.c.tenant == tenant)

    def find_token(self, sha256: str) -> EnrolmentRow | None:
        """Give the token of a hash, whoever's it is."""
        found = self._read(and_(ENROLMENTS.c.kind == TOKEN, ENROLMENTS.c.secret == sha256))
        return found[0] if found else None

    def groups(self) -> list[EnrolmentRow]:
        """Give the groups of all tenants."""
        return self._read(ENROLMENTS.c.kind == GROUP)

    def add(self, new: EnrolmentRow, who: Who) -> None:
        """Add a way in.

        Raises:
            Conflict: the name is taken, or there are MAX_ENROLMENTS.
            NotFound: no such group with listed members.
        """
        with self._database.write() as transaction:
            mine = select(ENROLMENTS.c.name).where(ENROLMENTS.c.tenant == new.tenant)
            names = transaction.execute(mine).scalars().all()
            if new.name in names:
                raise Conflict(f"enrolment {new.name} exists already", code="enrolment_exists", fields=["name"])
            if len(names) >= MAX_ENROLMENTS:
                raise Conflict(f"a tenant has at most {MAX_ENROLMENTS} enrolments", code="too_many_enrolments")
            transaction.execute(insert(ENROLMENTS).values(**_values(new)))
            demand_group(transaction, new.tenant, new.terms.group)
            detail = new.terms.model_dump() | {"kind": new.kind, "max_devices": new.max_devices}
            transaction.audit([Deed(who, "enrolment.create", new.name, detail)])

    def remove(self, tenant: str, id_or_name: str, who: Who) -> None:
        """Close a way in; the devices that came by it stay.

        Raises:
            NotFound: no such way in.
        """
        named = or_(ENROLMENTS.c.id == id_or_name, ENROLMENTS.c.name == id_or_name)
        with self._database.write() as transaction:
            if not transaction.execute(delete(ENROLMENTS).where(ENROLMENTS.c.tenant == tenant, named)).rowcount:
                raise NotFound(f"no enrolment {id_or_name!r}", code="enrolment_not_found")
            transaction.audit([Deed(who, "enrolment.revoke", id_or_name)])

    def enrol(self, enrolment_id: str, arrival: Arrival) -> None:
        """Register a device by a way in that is open, and count it.

        Raises:
            NotFound: the way in was closed meanwhile.
            Forbidden: it is over or used up.
            Conflict: the id is taken.
        """
        with self._database.write() as transaction:
            row = _demand_open(transaction, enrolment_id)
            register(transaction, arrival)
            count = update(ENROLMENTS).where(ENROLMENTS.c.id == row.id).values(enrolled=row.enrolled + 1)
            transaction.execute(count)

    def enrolled_before(self, tenant: str, source: str, nonce: str, since_ns: int) -> str | None:
        """Give the device that came this way with this nonce (hashed) not long ago."""
        mine = and_(ORIGINS.c.tenant == tenant, ORIGINS.c.source == source, ORIGINS.c.nonce == nonce)
        query = select(ORIGINS.c.device).where(mine, ORIGINS.c.time_ns >= since_ns)
        with self._database.read() as connection:
            return connection.execute(query).scalar()

    def renew(self, tenant: str, new: CredentialRow, who: Who) -> None:
        """Put a fresh credential in the place of those of a device whose answer was lost.

        Raises:
            NotFound: it was deleted, disabled or retired meanwhile.
            Forbidden: the tenant is suspended.
        """
        mine = and_(CREDENTIALS.c.tenant == tenant, CREDENTIALS.c.device == new.device)
        its = and_(DEVICES.c.tenant == tenant, DEVICES.c.id == new.device)
        with self._database.write() as transaction:
            demand_active(transaction, tenant)
            if transaction.execute(select(DEVICES.c.state).where(its)).scalar() not in ("active", "held"):
                raise NotFound(f"no device {new.device!r} in service", code="device_not_found")
            transaction.execute(delete(CREDENTIALS).where(mine))
            transaction.execute(insert(CREDENTIALS).values(credential_values(transaction, tenant, new)))
            transaction.execute(update(DEVICES).where(its).values(broker_credential=None))
            transaction.changed("device", [new.device])
            transaction.audit([Deed(who, "device.enrol_again", new.device, {"credential": new.id})])

    def _read(self, condition: ColumnElement[bool]) -> list[EnrolmentRow]:
        query = select(ENROLMENTS).where(condition).order_by(ENROLMENTS.c.name)
        with self._database.read() as connection:
            return [_to_row(row) for row in connection.execute(query).mappings()]


def register(transaction: Write, arrival: Arrival) -> None:
    """Register a device that came by itself, and note how, inside a transaction.

    Raises:
        Conflict: the id is taken, or MAX_HELD devices wait already.
        Forbidden: the tenant is suspended.
    """
    demand_active(transaction, arrival.tenant)
    if arrival.device.state == "held":
        _demand_room(transaction, arrival.tenant)
    add_devices(transaction, [arrival.device], arrival.who, "device.enrol")
    origin = {
        "tenant": arrival.tenant,
        "device": arrival.device.id,
        "source": arrival.source,
        "nonce": arrival.nonce,
        "hardware": orjson.dumps(arrival.hardware).decode(),
        "time_ns": transaction.now_ns,
    }
    transaction.execute(insert(ORIGINS).values(**origin))
    if arrival.group is not None and _has_group(transaction, arrival.tenant, arrival.group):
        member = {"tenant": arrival.tenant, "name": arrival.group, "device": arrival.device.id}
        transaction.execute(insert(GROUP_MEMBERS).values(**member))


def demand_active(transaction: Write, tenant: str) -> None:
    """Demand that a tenant is in service.

    Raises:
        Forbidden: it is suspended.
    """
    if transaction.execute(select(TENANTS.c.state).where(TENANTS.c.id == tenant)).scalar() != "active":
        raise Forbidden("the tenant is suspended", code="tenant_suspended")


def demand_group(transaction: Write, tenant: str, name: str | None) -> None:
    """Demand that devices can be put into a group, where one is named.

    Raises:
        NotFound: no such group, or it is found by a query.
    """
    if name is not None and not _has_group(transaction, tenant, name):
        raise NotFound(f"no group {name!r} with listed members", code="group_not_found", fields=["group"])


def _has_group(transaction: Write, tenant: str, name: str) -> bool:
    listed = and_(GROUPS.c.tenant == tenant, GROUPS.c.name == name, GROUPS.c.query.is_(None))
    return transaction.execute(select(GROUPS.c.name).where(listed)).first() is not None


def _demand_room(transaction: Write, tenant: str) -> None:
    held = select(func.count()).where(DEVICES.c.tenant == tenant, DEVICES.c.state == "held")
    if transaction.execute(held).scalar_one() >= MAX_HELD:
        raise Conflict(f"{MAX_HELD} devices wait to be accepted already", code="too_many_held")


def _demand_open(transaction: Write, enrolment_id: str) -> EnrolmentRow:
    row = transaction.execute(select(ENROLMENTS).where(ENROLMENTS.c.id == enrolment_id)).mappings().first()
    if row is None:
        raise NotFound("the enrolment was revoked", code="enrolment_not_found")
    found = _to_row(row)
    state = found.state(transaction.now_ns)
    if state == "expired":
        raise Forbidden(f"enrolment {found.name} has expired", code="enrolment_expired")
    if state == "used_up":
        raise Forbidden(f"enrolment {found.name} has registered all its devices", code="enrolment_used_up")
    return found


def _values(row: EnrolmentRow) -> dict[str, Any]:
    names = ("id", "tenant", "name", "kind", "secret", "max_devices", "enrolled", "created_ns", "expires_ns")
    return {name: getattr(row, name) for name in names} | {"terms": row.terms.model_dump_json()}


def _to_row(row: Any) -> EnrolmentRow:
    values = dict(row)
    terms = Terms.model_validate_json(values.pop("terms"))
    return EnrolmentRow(terms=terms, **values)
