"""Gateways' rules and their children: the only SQL about them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import orjson
from sqlalchemy import ColumnElement, and_, bindparam, delete, func, insert, select, update

from devices.database.engine import Database, Write
from devices.database.tables import DEVICES, PRESENCE
from devices.database.tables_enrolment import ORIGINS
from devices.database.tables_gateways import CHILDREN, GATEWAYS
from devices.gateways.adoption import adopt, read_rooms
from devices.gateways.names import add_names, find_named, find_verbatim, follow, make_ids, names_of
from devices.gateways.rules import Room, judge, speaks_for
from devices.rows import Deed, NewDevice, Who
from devices.store import add_devices
from wire.errors import Conflict, NotFound
from wire.gateways import ChildrenAdmitted, ChildView, GatewayRules


class GatewayStore:
    """Gateways and children; thread-safe. Each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def rules(self, tenant: str, gateway: str) -> GatewayRules:
        """Give a gateway's rules.

        Raises:
            NotFound: no such device.
            Conflict: it is no gateway.
        """
        with self._database.read() as connection:
            _demand_gateway(connection, tenant, gateway)
            return _read_rules(connection, tenant, gateway)

    def put_rules(self, tenant: str, gateway: str, rules: GatewayRules, who: Who) -> list[str]:
        """Replace a gateway's rules; the children it has stay. Give those that it does not speak for any more.

        Raises as `rules`.
        """
        with self._database.write() as transaction:
            _demand_gateway(transaction, tenant, gateway)
            transaction.execute(delete(GATEWAYS).where(_of(GATEWAYS, tenant, gateway)))
            row = {"tenant": tenant, "device": gateway, "rules": rules.model_dump_json()}
            transaction.execute(insert(GATEWAYS).values(**row))
            outside = _divide(transaction, tenant, gateway, rules)
            transaction.changed("device", [gateway])
            left_out = {"left_out": len(outside)} if outside else {}
            transaction.audit([Deed(who, "gateway.rules", gateway, rules.model_dump() | left_out)])
        return outside

    def children(self, tenant: str, gateway: str, after: str, limit: int) -> list[ChildView]:
        """List a gateway's children in order of their ids; none of a device that is no gateway.

        Raises:
            NotFound: no such device.
        """
        present = and_(PRESENCE.c.tenant == DEVICES.c.tenant, PRESENCE.c.device == DEVICES.c.id)
        owned = and_(CHILDREN.c.tenant == DEVICES.c.tenant, CHILDREN.c.device == DEVICES.c.id)
        columns = select(DEVICES, CHILDREN.c.since_ns, CHILDREN.c.outside, PRESENCE.c.online, PRESENCE.c.last_seen_ns)
        query = columns.select_from(CHILDREN.join(DEVICES, owned).outerjoin(PRESENCE, present))
        mine = and_(CHILDREN.c.tenant == tenant, CHILDREN.c.gateway == gateway, CHILDREN.c.device > after)
        with self._database.read() as connection:
            _demand_device(connection, tenant, gateway)
            rows = connection.execute(query.where(mine).order_by(CHILDREN.c.device).limit(limit)).mappings()
            views = [_to_view(row) for row in rows]
            named = names_of(connection, tenant, [view.id for view in views])
        return [view.model_copy(update={"names": named.get(view.id, [])}) for view in views]

    def parent(self, tenant: str, device: str) -> str | None:
        """Give the gateway that a device is seen through.

        Raises:
            NotFound: no such device.
        """
        with self._database.read() as connection:
            _demand_device(connection, tenant, device)
            query = select(CHILDREN.c.gateway).where(_of(CHILDREN, tenant, device))
            found: str | None = connection.execute(query).scalar()
            return found

    def rooms(self, tenant: str, ids: Iterable[str]) -> dict[str, Room | None]:
        """Give what devices of a tenant still take as gateways; see `devices.gateways.adoption.read_rooms`."""
        with self._database.read() as connection:
            return read_rooms(connection, tenant, ids)

    def set_parent(self, tenant: str, device: str, gateway: str | None, who: Who) -> None:
        """Let a device be seen through a gateway from now on, instead of another; None: through none.

        Raises:
            NotFound: no such device or gateway.
            Conflict: the parent is no gateway, the device is one, or its id or the number of children is beyond the
                gateway's rules; or the gateway means another device by one of its names.
        """
        with self._database.write() as transaction:
            if _demand_device(transaction, tenant, device)["gateway"] and gateway is not None:
                raise Conflict("a gateway is seen through no other", code="not_a_child")
            old = transaction.execute(select(CHILDREN.c.gateway).where(_of(CHILDREN, tenant, device))).scalar()
            if old == gateway:
                return
            transaction.execute(delete(CHILDREN).where(_of(CHILDREN, tenant, device)))
            if gateway is not None:
                _demand_gateway(transaction, tenant, gateway)
                adopt(transaction, tenant, {device: gateway})
            follow(transaction, tenant, device, gateway)
            transaction.changed("device", [device])
            transaction.audit([Deed(who, "child.move", device, {"from": old, "to": gateway})])

    def admit(self, gateway: str, ids: Sequence[str], names: Sequence[str] = ()) -> ChildrenAdmitted:
        """Register the children that a gateway's rules let in, those it holds as held; give the codes of the others.

        Ids that are taken are in neither: who asks looks them up and sees whose they are. Each name that is not
        refused stands for an id: that of the child it was given to before, or of one that is registered for it.
        """
        with self._database.write() as transaction:
            row = transaction.execute(select(DEVICES).where(DEVICES.c.id == gateway)).mappings().first()
            if row is None or row["state"] != "active" or not row["gateway"]:
                return ChildrenAdmitted(refused=dict.fromkeys([*ids, *names], "identity_mismatch"))
            tenant = row["tenant"]
            rules = _read_rules(transaction, tenant, gateway)
            taken = set(transaction.execute(select(DEVICES.c.id).where(DEVICES.c.id.in_(ids))).scalars())
            unknown = [child for child in dict.fromkeys(ids) if child not in taken]
            named, made = _look_up(transaction, (tenant, gateway), names, unknown)
            wanted = [*unknown, *made]
            fresh, refused = judge(rules, wanted, _count(transaction, tenant, gateway)) if wanted else ([], {})
            if fresh:
                _register(transaction, tenant, gateway, _described(rules, fresh, gateway))
            given = {made[child]: child for child in fresh if child in made}
            add_names(transaction, (tenant, gateway), given, _who(gateway, tenant))
        return ChildrenAdmitted(
            refused={made.get(child, child): code for child, code in refused.items()}, named=named | given
        )


def _look_up(
    transaction: Write, at: tuple[str, str], names: Sequence[str], ids: Sequence[str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Give the ids of known names, and the names of those ids that are made for the others."""
    wanted = list(dict.fromkeys(names))
    named = find_named(transaction, *at, wanted)
    verbatim = find_verbatim(transaction, *at, [name for name in wanted if name not in named])
    add_names(transaction, at, verbatim, _who(at[1], at[0]))
    named |= verbatim
    made = make_ids(transaction, (name for name in wanted if name not in named), ids)
    return named, {id_: name for name, id_ in made.items()}


def _who(gateway: str, tenant: str) -> Who:
    return Who(f"device:{gateway}", tenant=tenant)


def _divide(transaction: Write, tenant: str, gateway: str, rules: GatewayRules) -> list[str]:
    """Note which children of a gateway are outside its prefixes; give them in order of their ids."""
    mine = and_(CHILDREN.c.tenant == tenant, CHILDREN.c.gateway == gateway)
    query = select(CHILDREN.c.device, CHILDREN.c.outside).where(mine).order_by(CHILDREN.c.device)
    found = [(child, was, not speaks_for(rules, child)) for child, was in transaction.execute(query)]
    turned = [{"t": tenant, "d": child, "now_outside": now} for child, was, now in found if was != now]
    transaction.execute(_TURN, turned)
    return [child for child, _, is_outside in found if is_outside]


_TURN = (
    update(CHILDREN)
    .where(CHILDREN.c.tenant == bindparam("t"), CHILDREN.c.device == bindparam("d"))
    .values(outside=bindparam("now_outside"))
)


def _register(transaction: Write, tenant: str, gateway: str, devices: list[NewDevice]) -> None:
    add_devices(transaction, devices, _who(gateway, tenant), "device.found")
    origin = {"tenant": tenant, "source": f"gateway:{gateway}", "nonce": None, "hardware": "{}"}
    rows = [origin | {"device": device.id, "time_ns": transaction.now_ns} for device in devices]
    transaction.execute(insert(ORIGINS), rows)


def _described(rules: GatewayRules, ids: Sequence[str], gateway: str) -> list[NewDevice]:
    state = "held" if rules.children == "hold" else "active"
    return [NewDevice(child, rules.child_type, rules.child_tags, False, None, state, parent=gateway) for child in ids]


def _count(connection: Any, tenant: str, gateway: str) -> int:
    mine = and_(CHILDREN.c.tenant == tenant, CHILDREN.c.gateway == gateway)
    return int(connection.execute(select(func.count()).select_from(CHILDREN).where(mine)).scalar_one())


def _demand_device(connection: Any, tenant: str, device: str) -> Any:
    query = select(DEVICES.c.gateway).where(DEVICES.c.tenant == tenant, DEVICES.c.id == device)
    row = connection.execute(query).mappings().first()
    if row is None:
        raise NotFound(f"no device {device[:80]!r}", code="device_not_found")
    return row


def _demand_gateway(connection: Any, tenant: str, device: str) -> None:
    if not _demand_device(connection, tenant, device)["gateway"]:
        raise Conflict(f"device {device} is no gateway", code="not_a_gateway")


def _read_rules(connection: Any, tenant: str, gateway: str) -> GatewayRules:
    found = connection.execute(select(GATEWAYS.c.rules).where(_of(GATEWAYS, tenant, gateway))).scalar()
    return GatewayRules() if found is None else GatewayRules.model_validate_json(found)


def _of(table: Any, tenant: str, device: str) -> ColumnElement[bool]:
    return and_(table.c.tenant == tenant, table.c.device == device)


def _to_view(row: Any) -> ChildView:
    is_new = row["state"] == "active" and not row["last_seen_ns"]
    return ChildView(
        id=row["id"],
        type=row["type"],
        state="registered" if is_new else row["state"],
        tags=orjson.loads(row["tags"]),
        online=bool(row["online"]),
        last_seen=row["last_seen_ns"] or None,
        since=row["since_ns"],
        outside=row["outside"],
    )
