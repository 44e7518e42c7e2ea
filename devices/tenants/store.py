"""Tenants, and the move of a device from one to another: the only SQL about them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, and_, delete, func, insert, select, update

from devices.commands.withdrawal import withdraw
from devices.database.engine import Database, Write
from devices.database.tables import DEVICES, OPERATORS, TENANTS, TOKENS
from devices.database.tables_control import COMMANDS, TWIN_HISTORY
from devices.database.tables_finding import GROUP_MEMBERS
from devices.database.tables_gateways import CHILDREN
from devices.gateways.adoption import demand_childless
from devices.gateways.names import follow
from devices.presence import journal
from devices.rows import Deed, Who
from wire.devices import TENANT
from wire.errors import Conflict, Forbidden, NotFound
from wire.tenants import Limits, TenantCreate, TenantPatch, TenantView

_HELD = (DEVICES, OPERATORS)


class TenantStore:
    """Tenants; thread-safe. Each method is one transaction, and is audited in the platform's own tenant."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(self) -> list[TenantView]:
        """Give all tenants in order of their ids."""
        with self._database.read() as connection:
            held = [_counts(connection, table) for table in _HELD]
            rows = connection.execute(_existing().order_by(TENANTS.c.id)).mappings().all()
        return [_to_view(row, *(counts.get(row["id"], 0) for counts in held)) for row in rows]

    def find(self, tenant: str) -> TenantView:
        """Give one tenant.

        Raises:
            NotFound: no such tenant.
        """
        with self._database.read() as connection:
            row = _demand(connection, tenant)
            return _to_view(row, *(_counts(connection, table, tenant).get(tenant, 0) for table in _HELD))

    def add(self, wanted: TenantCreate, who: Who) -> None:
        """Make a tenant.

        Raises:
            Conflict: the id is taken, or was.
        """
        values = {"id": wanted.id, "title": wanted.title, "limits": wanted.limits.model_dump_json()}
        with self._database.write() as transaction:
            if transaction.execute(select(TENANTS.c.id).where(TENANTS.c.id == wanted.id)).first():
                taken = f"tenant {wanted.id} exists already, or did: its audit and data would show to the new one"
                raise Conflict(taken, code="tenant_exists", fields=["id"])
            transaction.execute(insert(TENANTS).values(**values, state="active", created_ns=transaction.now_ns))
            transaction.audit([_deed(who, "tenant.create", wanted.id, wanted.model_dump(exclude={"id"}))])

    def update(self, tenant: str, patch: TenantPatch, who: Who) -> None:
        """Change title, limits or both; a limit that is not given stays.

        Raises:
            NotFound: no such tenant.
        """
        given = patch.model_dump(exclude_none=True)
        with self._database.write() as transaction:
            old = _demand(transaction.connection, tenant)
            values = given | ({} if patch.limits is None else {"limits": _merged(old["limits"], patch.limits)})
            if "limits" in values:
                transaction.changed("tenant", [tenant])
            if values:
                transaction.execute(update(TENANTS).where(TENANTS.c.id == tenant).values(**values))
            before = {name: old[name] for name in values}
            transaction.audit([_deed(who, "tenant.update", tenant, {"before": before, "after": values})])

    def set_state(self, tenant: str, state: str, action: str, who: Who) -> None:
        """Suspend a tenant or let it go on; its devices and people are told at once.

        Raises:
            NotFound: no such tenant.
        """
        with self._database.write() as transaction:
            if _demand(transaction.connection, tenant)["state"] == state:
                return
            transaction.execute(update(TENANTS).where(TENANTS.c.id == tenant).values(state=state))
            ids = transaction.execute(select(DEVICES.c.id).where(DEVICES.c.tenant == tenant)).scalars()
            transaction.changed("device", ids)
            transaction.changed("token", [tenant])
            transaction.audit([_deed(who, action, tenant)])

    def remove(self, tenant: str, who: Who) -> None:
        """Delete a tenant without devices, with its people and tokens; its id is not given out again.

        Raises:
            NotFound: no such tenant.
            Conflict: it has devices.
        """
        with self._database.write() as transaction:
            _demand(transaction.connection, tenant)
            left = _counts(transaction.connection, DEVICES, tenant).get(tenant, 0)
            if left:
                raise Conflict(f"tenant {tenant} has {left} devices; move or delete them first", code="tenant_in_use")
            for table in (OPERATORS, TOKENS):
                transaction.execute(delete(table).where(table.c.tenant == tenant))
            transaction.execute(update(TENANTS).where(TENANTS.c.id == tenant).values(state="deleted"))
            transaction.changed("token", [tenant])
            transaction.audit([_deed(who, "tenant.delete", tenant)])

    def move(self, device_id: str, target: str, who: Who) -> None:
        """Give a device, with all that belongs to it, to another tenant.

        Neither tenant's audit names the other; that of the platform names both. What the old owner's people ordered
        does not go along: open commands are cancelled, and the history of commands, desired state and presence ends.

        Raises:
            NotFound: no such device or tenant.
            Conflict: it speaks for children, which would stay behind without it.
            Forbidden: the other tenant has as many devices as it may.
        """
        mine = and_(DEVICES.c.tenant == who.tenant, DEVICES.c.id == device_id)
        with self._database.write() as transaction:
            if transaction.execute(select(DEVICES.c.id).where(mine)).first() is None:
                raise NotFound(f"no device {device_id[:80]!r}", code="device_not_found")
            demand_room(transaction, target, 1)
            _part(transaction, who.tenant, device_id)
            cancelled = _forget_orders(transaction, who, device_id)
            journal.begin_anew(transaction, who.tenant, device_id)
            transaction.execute(update(DEVICES).where(mine).values(tenant=target, updated_ns=transaction.now_ns))
            transaction.changed("device", [device_id])
            detail = {"from": who.tenant, "to": target}
            arrives = Deed(replace(who, tenant=target), "device.arrive", device_id)
            moves = _deed(who, "device.move", device_id, detail)
            transaction.audit([*cancelled, Deed(who, "device.leave", device_id), arrives, moves])


def _part(transaction: Write, tenant: str, device_id: str) -> None:
    """Take a device out of what stays with its tenant: static groups, and the gateway that spoke for it."""
    demand_childless(transaction, tenant, device_id)
    follow(transaction, tenant, device_id, None)
    for table in (GROUP_MEMBERS, CHILDREN):
        mine = and_(table.c.tenant == tenant, table.c.device == device_id)
        transaction.execute(delete(table).where(mine))


def _forget_orders(transaction: Write, who: Who, device_id: str) -> list[Deed]:
    """Delete commands and the twin's history, which name people of the old tenant; give what to audit there."""
    cancelled = withdraw(transaction, who, device_id, "device_gone")
    for table in (COMMANDS, TWIN_HISTORY):
        transaction.execute(delete(table).where(table.c.tenant == who.tenant, table.c.device == device_id))
    return cancelled


def demand_room(transaction: Write, tenant: str, devices: int) -> None:
    """Refuse devices beyond what a tenant may have.

    Raises:
        NotFound: no such tenant.
        Forbidden: no room.
    """
    most = Limits.model_validate_json(_demand(transaction.connection, tenant)["limits"]).devices
    if most is None:
        return
    held = _counts(transaction.connection, DEVICES, tenant).get(tenant, 0)
    if held + devices > most:
        raise Forbidden(
            f"{held} devices are registered and {devices} more asked for, limit {most}", code="device_quota"
        )


def _merged(old: str, given: Limits) -> str:
    changed = given.model_dump(exclude_unset=True)
    return Limits.model_validate_json(old).model_copy(update=changed).model_dump_json()


def _demand(connection: Connection, tenant: str) -> Any:
    row = connection.execute(_existing().where(TENANTS.c.id == tenant)).mappings().first()
    if row is None:
        raise NotFound(f"no tenant {tenant[:80]!r}", code="tenant_not_found")
    return row


def _existing() -> Any:
    return select(TENANTS).where(TENANTS.c.state != "deleted")


def _counts(connection: Connection, table: Any, tenant: str | None = None) -> dict[str, int]:
    query = select(table.c.tenant, func.count()).group_by(table.c.tenant)
    if tenant is not None:
        query = query.where(table.c.tenant == tenant)
    return {row[0]: row[1] for row in connection.execute(query)}


def _deed(who: Who, action: str, object_: str, detail: dict[str, Any] | None = None) -> Deed:
    return Deed(replace(who, tenant=TENANT), action, object_, detail or {})


def _to_view(row: Any, devices: int, operators: int) -> TenantView:
    return TenantView(
        id=row["id"],
        title=row["title"],
        state=row["state"],
        limits=Limits.model_validate_json(row["limits"]),
        created=row["created_ns"],
        devices=devices,
        operators=operators,
    )
