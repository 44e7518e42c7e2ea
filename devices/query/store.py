"""Which devices a query finds: ids and counts. Reads only."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Select, func, select

from devices.database.engine import Database
from devices.database.tables import DEVICES
from devices.groups.store import group_finder
from devices.query.sql import condition
from devices.query.tree import Node
from devices.statements import HOME


class Finder:
    """Finds devices by queries; thread-safe, each answer from one consistent view."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def ids(self, tenant: str, tree: Node, *, after: str = "", limit: int | None = None) -> list[str]:
        """Give the ids that follow `after`, in their order."""
        with self._database.read() as connection:
            query = found_by(connection, tenant, tree).where(DEVICES.c.id > after).order_by(DEVICES.c.id)
            return list(connection.execute(query.limit(limit)).scalars())

    def count(self, tenant: str, tree: Node, at_most: int | None = None) -> int:
        """Count what a query finds, as far as `at_most`."""
        with self._database.read() as connection:
            some = found_by(connection, tenant, tree).order_by(DEVICES.c.id).limit(at_most).subquery()
            return int(connection.execute(select(func.count()).select_from(some)).scalar_one())


def found_by(connection: Connection, tenant: str, tree: Node) -> Select[Any]:
    """Select the ids that a query finds."""
    found = condition(tree, tenant, group_finder(connection, tenant))
    return select(DEVICES.c.id).select_from(HOME).where(found)
