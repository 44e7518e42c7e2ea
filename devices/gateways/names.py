"""External names of devices: what a gateway's protocol calls them. The only SQL about them.

A name belongs to a gateway: two gateways may mean different devices by it. A device that is seen through none has its
names for itself; moved, it takes them along.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from sqlalchemy import ColumnElement, and_, delete, func, insert, or_, select, update

from devices.database.engine import Database, Write
from devices.database.tables import COUNTERS, DEVICES
from devices.database.tables_control import COMMAND_ROUTES
from devices.database.tables_gateways import CHILDREN, NAMES
from devices.rows import Deed, Who
from wire.errors import Conflict, NotFound
from wire.external import DIGITS, WORDED_BY, plain_name, scheme_of, to_device_id
from wire.gateways import MAX_NAMES, NAMES_PAGE, NamesTold

PART = 1_000  # bound values a statement


class NameStore:
    """External names; thread-safe. Each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, tenant: str, device: str, name: str, who: Who) -> list[str]:
        """Let a device be known by a name, too; give all it has. Done before, it changes nothing.

        Raises:
            NotFound: no such device.
            Conflict: at its gateway another device has this name, or it has MAX_NAMES already.
        """
        with self._database.write() as transaction:
            gateway = _demand_gateway_of(transaction, tenant, device)
            _demand_free(transaction, (tenant, gateway), device, [name])
            names = names_of(transaction, tenant, [device]).get(device, [])
            if name in names:
                return names
            if len(names) >= MAX_NAMES:
                raise Conflict(f"a device has at most {MAX_NAMES} names", code="too_many_names")
            add_names(transaction, (tenant, gateway), {name: device}, who)
            return sorted([*names, name])

    def remove(self, tenant: str, device: str, name: str, who: Who) -> None:
        """Take a name away from a device.

        Raises:
            NotFound: no such device, or it has no such name.
        """
        with self._database.write() as transaction:
            gateway = _demand_gateway_of(transaction, tenant, device)
            mine = and_(NAMES.c.tenant == tenant, NAMES.c.device == device, NAMES.c.name == name)
            if not transaction.execute(delete(NAMES).where(mine)).rowcount:
                raise NotFound(f"device {device} has no name {name!r}", code="name_not_found")
            _unroute_commands(transaction, tenant, device, name)
            transaction.changed("device", {device, gateway})
            transaction.audit([Deed(who, "name.remove", device, {"name": name, "gateway": gateway})])

    def list(self, tenant: str, device: str) -> list[str]:
        """Give a device's names in order."""
        return self._database.ask(lambda connection: names_of(connection, tenant, [device])).get(device, [])

    def tell(self, device: str, after: str) -> NamesTold:
        """Give what a sender may call devices, in order of the names: its children and itself, or itself only."""
        at_home = and_(NAMES.c.tenant == DEVICES.c.tenant, or_(NAMES.c.gateway == device, NAMES.c.device == device))
        query = select(NAMES.c.name, NAMES.c.device).select_from(DEVICES.join(NAMES, at_home))
        query = query.where(DEVICES.c.id == device, NAMES.c.name > after).order_by(NAMES.c.name).limit(NAMES_PAGE)
        with self._database.read() as connection:
            rows = connection.execute(query).all()
            revision = connection.execute(select(COUNTERS.c.value).where(COUNTERS.c.name == "revision")).scalar_one()
        is_full = len(rows) == NAMES_PAGE
        names = {name: named for name, named in rows}  # noqa: C416 - rows are no tuples to the type checker
        return NamesTold(names=names, revision=revision, next=rows[-1][0] if is_full else None)


def names_of(connection: Any, tenant: str, devices: Sequence[str]) -> dict[str, list[str]]:
    """Give the names of devices in order; one without any is absent."""
    found: dict[str, list[str]] = {}
    for start in range(0, len(devices), PART):
        mine = and_(NAMES.c.tenant == tenant, NAMES.c.device.in_(devices[start : start + PART]))
        for device, name in connection.execute(select(NAMES.c.device, NAMES.c.name).where(mine)):
            found.setdefault(device, []).append(name)
    return {device: sorted(names) for device, names in found.items()}


class OfDevice(Protocol):
    """Something that is of a device of a tenant."""

    @property
    def tenant(self) -> str: ...
    @property
    def device(self) -> str: ...


def known_to_gateways(
    connection: Any, wanted: Iterable[OfDevice]
) -> dict[tuple[str, str], tuple[str | None, list[str]]]:
    """Give by tenant and device the gateway that it is seen through, and its names."""
    by_tenant: dict[str, set[str]] = {}
    for each in wanted:
        by_tenant.setdefault(each.tenant, set()).add(each.device)
    found: dict[tuple[str, str], tuple[str | None, list[str]]] = {}
    for tenant, devices in by_tenant.items():
        ids = sorted(devices)
        names = names_of(connection, tenant, ids)
        mine = and_(CHILDREN.c.tenant == tenant, CHILDREN.c.device.in_(ids))
        rows = connection.execute(select(CHILDREN.c.device, CHILDREN.c.gateway).where(mine))
        gateways = {row.device: row.gateway for row in rows}
        found |= {(tenant, device): (gateways.get(device), names.get(device, [])) for device in ids}
    return found


def find_named(connection: Any, tenant: str, gateway: str, names: Sequence[str]) -> dict[str, str]:
    """Give the devices that a gateway means by names; unknown ones are absent."""
    return dict(_select(connection, (tenant, gateway), names, NAMES.c.name, NAMES.c.device))


def make_ids(connection: Any, names: Iterable[str], taken: Iterable[str]) -> dict[str, str]:
    """Make an id for each name, one that no device has and none of `taken`; see `wire.external.to_device_id`."""
    wanted = {name: [to_device_id(name, digits) for digits in DIGITS] for name in names}
    ids = sorted({id_ for tried in wanted.values() for id_ in tried})
    used = set(taken)
    for start in range(0, len(ids), PART):
        part = DEVICES.c.id.in_(ids[start : start + PART])
        used.update(connection.execute(select(DEVICES.c.id).where(part)).scalars())
    made: dict[str, str] = {}
    for name, tried in wanted.items():
        made[name] = next((id_ for id_ in tried if id_ not in used), tried[-1])
        used.add(made[name])
    return made


def find_verbatim(connection: Any, tenant: str, gateway: str, names: Sequence[str]) -> dict[str, str]:
    """Give those children of a gateway whose id is what the name says, letter for letter: it speaks for them already.

    One that has MAX_NAMES is left out.
    """
    ids, found = sorted({plain_name(name) for name in names}), set[str]()
    of_it = and_(NAMES.c.tenant == CHILDREN.c.tenant, NAMES.c.device == CHILDREN.c.device)
    number = select(func.count()).select_from(NAMES).where(of_it).scalar_subquery()
    for start in range(0, len(ids), PART):
        mine = and_(CHILDREN.c.tenant == tenant, CHILDREN.c.gateway == gateway)
        query = select(CHILDREN.c.device).where(mine, CHILDREN.c.device.in_(ids[start : start + PART]))
        found.update(connection.execute(query.where(number < MAX_NAMES)).scalars())
    return {name: plain_name(name) for name in names if plain_name(name) in found}


def add_names(transaction: Write, at: tuple[str, str], named: Mapping[str, str], who: Who) -> None:
    """Note free names, name -> device, at a tenant's gateway."""
    if not named:
        return
    row = {"tenant": at[0], "gateway": at[1], "since_ns": transaction.now_ns}
    rows = [row | {"name": name, "search": name.lower(), "device": device} for name, device in named.items()]
    transaction.execute(insert(NAMES), rows)
    transaction.changed("device", dict.fromkeys([*named.values(), at[1]]))
    transaction.audit(Deed(who, "name.add", device, {"name": name, "gateway": at[1]}) for name, device in named.items())
    _route_commands(transaction, at[0], named)


def _route_commands(transaction: Write, tenant: str, named: Mapping[str, str]) -> None:
    """Let the service of the protocol that knows devices by these names word their commands, if none does yet."""
    wanted = {device: WORDED_BY[scheme_of(name)] for name, device in named.items() if scheme_of(name) in WORDED_BY}
    ids = list(wanted)
    for start in range(0, len(ids), PART):
        mine = and_(COMMAND_ROUTES.c.tenant == tenant, COMMAND_ROUTES.c.device.in_(ids[start : start + PART]))
        for device in transaction.execute(select(COMMAND_ROUTES.c.device).where(mine)).scalars():
            del wanted[device]
    rows = [{"tenant": tenant, "device": device, "protocol": protocol} for device, protocol in wanted.items()]
    if rows:
        transaction.execute(insert(COMMAND_ROUTES), rows)


def _unroute_commands(transaction: Write, tenant: str, device: str, name: str) -> None:
    """Undo `_route_commands` with a device's last name of a scheme."""
    scheme = scheme_of(name)
    left = names_of(transaction, tenant, [device]).get(device, [])
    if scheme in WORDED_BY and not any(scheme_of(each) == scheme for each in left):
        mine = and_(COMMAND_ROUTES.c.tenant == tenant, COMMAND_ROUTES.c.device == device)
        transaction.execute(delete(COMMAND_ROUTES).where(mine, COMMAND_ROUTES.c.protocol == WORDED_BY[scheme]))


def follow(transaction: Write, tenant: str, device: str, gateway: str | None) -> None:
    """Let a device's names go with it to a gateway; None: for itself.

    Raises:
        Conflict: the gateway means another device by one of them.
    """
    old = transaction.execute(select(NAMES.c.gateway, NAMES.c.name).where(_of(tenant, device))).all()
    if not old:
        return
    new = gateway or device
    _demand_free(transaction, (tenant, new), device, [name for _, name in old])
    transaction.execute(update(NAMES).where(_of(tenant, device)).values(gateway=new))
    transaction.changed("device", {new, *(before for before, _ in old)})


def forget(transaction: Write, tenant: str, device: str) -> None:
    """Before a device is deleted: its children keep their names, its gateway hears that its own go."""
    through = and_(NAMES.c.tenant == tenant, NAMES.c.gateway == device, NAMES.c.device != device)
    transaction.execute(update(NAMES).where(through).values(gateway=NAMES.c.device))
    gateways = transaction.execute(select(NAMES.c.gateway).where(_of(tenant, device)).distinct()).scalars().all()
    transaction.changed("device", [gateway for gateway in gateways if gateway != device])


def _demand_gateway_of(connection: Any, tenant: str, device: str) -> str:
    """Give what a device's names belong to: its gateway, or itself."""
    owned = and_(CHILDREN.c.tenant == DEVICES.c.tenant, CHILDREN.c.device == DEVICES.c.id)
    query = select(DEVICES.c.id, CHILDREN.c.gateway).select_from(DEVICES.outerjoin(CHILDREN, owned))
    row = connection.execute(query.where(DEVICES.c.tenant == tenant, DEVICES.c.id == device)).first()
    if row is None:
        raise NotFound(f"no device {device[:80]!r}", code="device_not_found")
    return str(row[1] or device)


def _demand_free(connection: Any, at: tuple[str, str], device: str, names: Sequence[str]) -> None:
    for name, owner in _select(connection, at, names, NAMES.c.name, NAMES.c.device):
        if owner != device:
            raise Conflict(f"{at[1]} means {owner} by {name!r}", code="name_taken", fields=["name"])


def _select(connection: Any, at: tuple[str, str], names: Sequence[str], *columns: Any) -> list[Any]:
    found: list[Any] = []
    here = and_(NAMES.c.tenant == at[0], NAMES.c.gateway == at[1])
    for start in range(0, len(names), PART):
        part = NAMES.c.name.in_(names[start : start + PART])
        found += [tuple(row) for row in connection.execute(select(*columns).where(here, part))]
    return found


def _of(tenant: str, device: str) -> ColumnElement[bool]:
    return and_(NAMES.c.tenant == tenant, NAMES.c.device == device)
