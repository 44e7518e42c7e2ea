"""Groups of devices: the only SQL about them."""

from __future__ import annotations

from sqlalchemy import Connection, select

from devices.database.tables_finding import GROUPS
from devices.query.parser import parse
from devices.query.sql import FindGroup
from devices.query.tree import Node
from wire import clock


def group_finder(connection: Connection, tenant: str) -> FindGroup:
    """Give what resolves the groups that a query names, as they are now."""

    def find(name: str) -> Node | None:
        named = select(GROUPS.c.query).where(GROUPS.c.tenant == tenant, GROUPS.c.name == name)
        row = connection.execute(named).first()
        if row is None:
            raise KeyError(name)
        return None if row.query is None else parse(row.query, clock.now_ns())

    return find
