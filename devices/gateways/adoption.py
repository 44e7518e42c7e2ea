"""Children that are registered or moved: which gateways take them. SQL inside the transactions of others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import and_, func, insert, select

from devices.database.engine import Write
from devices.database.tables import DEVICES
from devices.database.tables_gateways import CHILDREN, GATEWAYS
from devices.gateways.rules import Room, take
from devices.statements import PARENT_OF
from wire.errors import Conflict
from wire.gateways import GatewayRules

IDS = 5_000  # bound values a statement


def read_rooms(connection: Any, tenant: str, ids: Iterable[str]) -> dict[str, Room | None]:
    """Give what these devices of a tenant still take as gateways: None if one is none; unknown ones are absent."""
    wanted, found = sorted(set(ids)), dict[str, Room | None]()
    rules = and_(GATEWAYS.c.tenant == DEVICES.c.tenant, GATEWAYS.c.device == DEVICES.c.id)
    mine = and_(CHILDREN.c.tenant == DEVICES.c.tenant, CHILDREN.c.gateway == DEVICES.c.id)
    count = select(func.count()).select_from(CHILDREN).where(mine).scalar_subquery()
    columns = select(DEVICES.c.id, DEVICES.c.gateway, GATEWAYS.c.rules, count)
    query = columns.select_from(DEVICES.outerjoin(GATEWAYS, rules)).where(DEVICES.c.tenant == tenant)
    for start in range(0, len(wanted), IDS):
        for key, is_gateway, text, number in connection.execute(
            query.where(DEVICES.c.id.in_(wanted[start : start + IDS]))
        ):
            known = GatewayRules() if text is None else GatewayRules.model_validate_json(text)
            found[key] = Room(key, known, number) if is_gateway else None
    return found


def adopt(transaction: Write, tenant: str, parents: Mapping[str, str]) -> None:
    """Let devices that were just registered be seen through gateways.

    Args:
        transaction: an open one.
        tenant: of all of them.
        parents: child -> gateway.

    Raises:
        Conflict: a gateway does not take one of them; see `devices.gateways.rules.take`.
    """
    if not parents:
        return
    rooms = read_rooms(transaction, tenant, parents.values())
    for child, gateway in parents.items():
        take(rooms, gateway, child)
    row = {"tenant": tenant, "since_ns": transaction.now_ns}
    rows = [row | {"device": child, "gateway": gateway} for child, gateway in parents.items()]
    transaction.execute(insert(CHILDREN), rows)


def demand_childless(connection: Any, tenant: str, device: str) -> None:
    """Refuse what a gateway with children may not do. Raises Conflict."""
    speaks_for = and_(CHILDREN.c.tenant == tenant, CHILDREN.c.gateway == device)
    child = connection.execute(select(CHILDREN.c.device).where(speaks_for).limit(1)).scalar()
    if child is not None:
        raise Conflict(f"device {device} speaks for children, for one {child}", code="gateway_has_children")


def demand_parentless(connection: Any, tenant: str, device: str) -> None:
    """Refuse what a child may not do. Raises Conflict."""
    parent = connection.execute(PARENT_OF, {"of_tenant": tenant, "of_device": device}).scalar()
    if parent is not None:
        raise Conflict(f"device {device} is seen through {parent}, and no gateway is", code="not_a_child")
