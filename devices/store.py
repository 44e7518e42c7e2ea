"""Devices and their credentials: the only SQL about them. Other tables are in the packages beside this module."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, bindparam, delete, insert, or_, select, update

from chassis.gathering import Gathering
from devices.commands.withdrawal import withdraw
from devices.database.engine import Database, Write
from devices.database.tables import CREDENTIALS, DEVICE_TAGS, DEVICES
from devices.database.tables_finding import DEVICE_ATTRIBUTES
from devices.gateways.adoption import adopt
from devices.gateways.names import forget
from devices.pages import page
from devices.query.values import fw_values
from devices.rows import CredentialRow, Deed, DeviceFilter, NewDevice, Who
from devices.statements import CREDENTIALS_OF, DETAIL, ONE, drop_ended
from devices.tenants.store import demand_room
from devices.updates import Change, Update, update_devices
from devices.values import attribute_rows, device_values, tag_rows
from devices.views import to_credential_view, to_detail, to_view, unknown
from wire import clock
from wire.errors import Conflict, NotFound, Unavailable
from wire.registry import CredentialView, DeviceDetail, DeviceView

TOGETHER = 32  # changes that share a transaction: some 30 ms for whoever waits
PARAMETERS = 5_000  # bound values a statement: SQLite allows 32,766, PostgreSQL 65,535
MAX_CREDENTIALS = 16


class DeviceStore:
    """Devices; thread-safe. Each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._updates = Gathering(self._update, TOGETHER)

    def add(self, devices: Sequence[NewDevice], who: Who, action: str) -> None:
        """Register devices with their credentials, all or none.

        Raises:
            Conflict: an id is taken, or a gateway does not take a child.
            Forbidden: the tenant has as many devices as it may.
        """
        with self._database.write() as transaction:
            add_devices(transaction, devices, who, action)

    def adding(self, devices: Sequence[NewDevice], who: Who, action: str) -> Callable[[Write], None]:
        """Give what does the same as `add` inside another transaction."""
        return lambda transaction: add_devices(transaction, devices, who, action)

    def taken(self, ids: Sequence[str]) -> set[str]:
        """Give those of the ids that exist, in whichever tenant: an id is one user name at the broker."""
        with self._database.read() as connection:
            return _taken(connection, ids)

    def find(self, tenant: str, device_id: str) -> DeviceView:
        """Give one device.

        Raises:
            NotFound: no such device.
        """
        return self._database.ask(lambda connection: to_view(_demand(connection, tenant, device_id)))

    def detail(self, tenant: str, device_id: str) -> tuple[DeviceDetail, bool]:
        """Give one device with its credentials, names and gateway, and whether its fields may have been described.

        Raises:
            NotFound: no such device.
        """
        mine = {"of_tenant": tenant, "of_device": device_id}
        rows = self._database.ask(lambda connection: connection.execute(DETAIL, mine).mappings().all())
        if not rows:
            raise unknown(device_id)
        return to_detail(rows), bool(rows[0]["is_described"] or rows[0]["names"])

    def search(self, tenant: str, wanted: DeviceFilter) -> list[DeviceView]:
        """List devices of a tenant in order of their ids."""
        return self._database.ask(lambda connection: [to_view(row) for row in page(connection, tenant, wanted)])

    def update(self, device_id: str, change: Change, deed: Deed) -> DeviceView:
        """Replace type, tags, attributes, gateway mark and state of a device by what `change` makes of them.

        Raises:
            NotFound: no such device.
            Conflict: it would be no gateway any more and speaks for children, or become one and is a child.
        """
        return self._updates.ask((device_id, change, deed))

    def _update(self, asked: Sequence[Update]) -> list[DeviceView | Exception]:
        """Do what came while others were done in one transaction, each as if alone."""
        try:
            with self._database.write() as transaction:
                return update_devices(transaction, asked)
        except Exception as error:
            if len(asked) == 1:
                return [error]
            if isinstance(error, Unavailable):
                raise
            return [told for each in asked for told in self._update([each])]  # what one of them failed with undid all

    def retire(self, device_id: str, who: Who) -> DeviceView:
        """Mark a device retired, delete its credentials and cancel its commands; done before, it changes nothing.

        Raises:
            NotFound: no such device.
        """
        with self._database.write() as transaction:
            row = _demand(transaction.connection, who.tenant, device_id)
            if row["state"] == "retired":
                return to_view(row)
            cancelled = withdraw(transaction, who, device_id, "device_retired")
            values = {"state": "retired", "broker_credential": None, "updated_ns": transaction.now_ns}
            transaction.execute(update(DEVICES).where(_is(who.tenant, device_id)).values(**values))
            gone = transaction.execute(delete(CREDENTIALS).where(_owned(CREDENTIALS, who.tenant, device_id))).rowcount
            transaction.changed("device", [device_id])
            transaction.audit([*cancelled, Deed(who, "device.retire", device_id, {"credentials": gone})])
            return to_view(dict(row) | values)

    def remove(self, device_id: str, who: Who) -> None:
        """Delete a device with its credentials, commands and presence. Raises NotFound: no such device."""
        with self._database.write() as transaction:
            cancelled = withdraw(transaction, who, device_id, "device_gone")
            forget(transaction, who.tenant, device_id)
            if not transaction.execute(delete(DEVICES).where(_is(who.tenant, device_id))).rowcount:
                raise unknown(device_id)
            transaction.changed("device", [device_id])
            transaction.audit([*cancelled, Deed(who, "device.delete", device_id)])


class CredentialStore:
    """Credentials of devices; thread-safe. Each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(self, tenant: str, device_id: str) -> list[CredentialView]:
        """Give a device's credentials, oldest first."""
        mine = {"of_tenant": tenant, "of_device": device_id}
        return self._database.ask(
            lambda connection: [to_credential_view(row) for row in connection.execute(CREDENTIALS_OF, mine).mappings()]
        )

    def add(self, new: CredentialRow, who: Who) -> None:
        """Add a credential beside those there are; the broker goes on taking the one it takes.

        Raises:
            NotFound: no such device.
            Conflict: it has MAX_CREDENTIALS already.
        """
        with self._database.write() as transaction:
            insert_credential(transaction, who.tenant, new)
            transaction.audit([Deed(who, "credential.add", new.device, {"credential": new.id})])

    def rotate(self, new: CredentialRow, old_until_ns: int, who: Who) -> None:
        """Add a credential and let the others end at a time; those already over are deleted.

        Raises:
            NotFound: no such device.
        """
        until = CREDENTIALS.c.not_after_ns
        with self._database.write() as transaction:
            mine = _owned(CREDENTIALS, who.tenant, new.device)
            longer = or_(until.is_(None), until > old_until_ns)
            transaction.execute(update(CREDENTIALS).where(mine, longer).values(not_after_ns=old_until_ns))
            over = and_(until.is_not(None), until <= transaction.now_ns)  # among them those that end just now
            transaction.execute(delete(CREDENTIALS).where(mine, over))
            insert_credential(transaction, who.tenant, new)
            detail = {"credential": new.id, "others_until_ns": old_until_ns}
            transaction.audit([Deed(who, "credential.rotate", new.device, detail)])

    def remove(self, device_id: str, credential_id: str, who: Who) -> None:
        """Revoke a credential.

        Raises:
            NotFound: the device has no such credential.
        """
        with self._database.write() as transaction:
            which = and_(_owned(CREDENTIALS, who.tenant, device_id), CREDENTIALS.c.id == credential_id)
            if not transaction.execute(delete(CREDENTIALS).where(which)).rowcount:
                raise NotFound(f"device {device_id!r} has no credential {credential_id!r}", code="credential_not_found")
            transaction.changed("device", [device_id])
            transaction.audit([Deed(who, "credential.revoke", device_id, {"credential": credential_id})])

    def mark_connected(self, connected_ns: Mapping[str, int]) -> None:
        """Note that devices connected to the broker: they used the credential that it takes of them now."""
        ids, now_ns = list(connected_ns), clock.now_ns()
        valid = and_(
            or_(CREDENTIALS.c.not_before_ns.is_(None), CREDENTIALS.c.not_before_ns <= now_ns),
            or_(CREDENTIALS.c.not_after_ns.is_(None), CREDENTIALS.c.not_after_ns > now_ns),
        )
        owns = and_(CREDENTIALS.c.tenant == DEVICES.c.tenant, CREDENTIALS.c.device == DEVICES.c.id)
        query = select(CREDENTIALS.c.device, CREDENTIALS.c.id, DEVICES.c.broker_credential)
        query = query.select_from(CREDENTIALS.join(DEVICES, owns)).order_by(CREDENTIALS.c.created_ns, CREDENTIALS.c.id)
        taken: dict[str, str] = {}
        with self._database.read() as connection:
            for start in range(0, len(ids), PARAMETERS):
                part = CREDENTIALS.c.device.in_(ids[start : start + PARAMETERS])
                _choose(connection.execute(query.where(part, valid)), taken)
        self.mark_used({key: connected_ns[device] for device, key in taken.items()})

    def mark_used(self, used_ns: dict[str, int]) -> None:
        """Note when credentials were used last; older news than what is known changes nothing."""
        ids = list(used_ns)
        with self._database.write("presence") as transaction:
            for start in range(0, len(ids), PARAMETERS):
                part = ids[start : start + PARAMETERS]
                query = select(CREDENTIALS.c.id, CREDENTIALS.c.last_used_ns).where(CREDENTIALS.c.id.in_(part))
                rows = transaction.execute(query).all()
                newer = [{"key": key, "ns": used_ns[key]} for key, last in rows if last is None or last < used_ns[key]]
                transaction.execute(_MARK_USED, newer)


def _choose(rows: Iterable[Any], taken: dict[str, str]) -> None:
    """Note which credential the broker takes of each device, as `devices.broker.access.choose` does; newest last."""
    for device, key, chosen in rows:
        if chosen is None or taken.get(device) != chosen:
            taken[device] = key


def add_devices(transaction: Write, devices: Sequence[NewDevice], who: Who, action: str) -> None:
    """Register devices with their credentials inside a transaction; see `DeviceStore.add`."""
    taken = _taken(transaction, [device.id for device in devices])
    if taken:
        raise Conflict(f"device {min(taken)} exists already", code="device_exists", fields=["id"])
    tenant, now_ns = who.tenant, transaction.now_ns
    demand_room(transaction, tenant, len(devices))
    transaction.execute(insert(DEVICES), [_new_values(tenant, device, now_ns) for device in devices])
    transaction.execute(insert(DEVICE_TAGS), [row for device in devices for row in tag_rows(tenant, device)])
    attributes = [row for device in devices for row in attribute_rows(tenant, device)]
    transaction.execute(insert(DEVICE_ATTRIBUTES), attributes)
    issued = [credential_values(transaction, tenant, device.credential) for device in devices if device.credential]
    transaction.execute(insert(CREDENTIALS), issued)
    adopt(transaction, tenant, {device.id: device.parent for device in devices if device.parent})
    transaction.changed("device", [device.id for device in devices])
    transaction.audit(Deed(who, action, device.id, _shown(device)) for device in devices)


def insert_credential(transaction: Write, tenant: str, new: CredentialRow) -> None:
    """Add a credential inside a transaction; see `CredentialStore.add`."""
    state = transaction.execute(select(DEVICES.c.state).where(_is(tenant, new.device))).scalar()
    if state is None:
        raise unknown(new.device)
    if state == "retired":
        raise Conflict(f"device {new.device} is retired, which is for good", code="device_retired")
    mine = select(CREDENTIALS.c.id).where(_owned(CREDENTIALS, tenant, new.device))
    held = transaction.execute(mine.order_by(CREDENTIALS.c.created_ns.desc())).scalars().all()
    if len(held) >= MAX_CREDENTIALS and not drop_ended(transaction, tenant, new.device):
        raise Conflict(f"a device has at most {MAX_CREDENTIALS} credentials", code="too_many_credentials")
    transaction.execute(insert(CREDENTIALS).values(**credential_values(transaction, tenant, new)))
    # The broker takes one credential at a time: while the choice is not made, it stays with the newest of before.
    unchosen = and_(_is(tenant, new.device), DEVICES.c.broker_credential.is_(None))
    transaction.execute(update(DEVICES).where(unchosen).values(broker_credential=held[0] if held else None))
    transaction.changed("device", [new.device])


def _taken(connection: Any, ids: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for start in range(0, len(ids), PARAMETERS):
        part = DEVICES.c.id.in_(ids[start : start + PARAMETERS])
        query = select(DEVICES.c.id).where(part)
        found.update(connection.execute(query).scalars())
    return found


def _demand(connection: Connection, tenant: str, device_id: str) -> Any:
    """Give the row of a device. Raises NotFound: no such device."""
    row = connection.execute(ONE, {"of_tenant": tenant, "of_device": device_id}).mappings().first()
    if row is None:
        raise unknown(device_id)
    return row


def _new_values(tenant: str, device: NewDevice, now_ns: int) -> dict[str, Any]:
    return device_values(tenant, device, now_ns) | fw_values(device.attributes.get("fw"))


def credential_values(transaction: Write, tenant: str, row: CredentialRow) -> dict[str, Any]:
    """Give a credential as a row of CREDENTIALS: hashes, and what the broker needs."""
    kept = {name: getattr(row, name) for name in CredentialRow.__dataclass_fields__ if name != "plain"}
    return kept | {"tenant": tenant, "broker_hash": transaction.for_broker(row)}


def _shown(device: NewDevice) -> dict[str, Any]:
    shown = {name: getattr(device, name) for name in ("type", "tags", "attributes", "gateway")}
    shown |= {"parent": device.parent} if device.parent else {}
    return shown | ({"credential": device.credential.id} if device.credential else {})


def _is(tenant: str, device_id: str) -> ColumnElement[bool]:
    return and_(DEVICES.c.tenant == tenant, DEVICES.c.id == device_id)


def _owned(table: Any, tenant: str, device_id: str) -> ColumnElement[bool]:
    return and_(table.c.tenant == tenant, table.c.device == device_id)


_MARK_USED = update(CREDENTIALS).where(CREDENTIALS.c.id == bindparam("key")).values(last_used_ns=bindparam("ns"))
