"""Groups of devices: the only SQL about them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, func, insert, select, update

from devices.database.engine import Database, Write
from devices.database.tables import DEVICES, TOKENS
from devices.database.tables_finding import GROUP_MEMBERS, GROUPS
from devices.query.parser import parse
from devices.query.sql import FindGroup, condition
from devices.query.tree import BadQuery, Compare, Field, Node
from devices.rows import Deed, Who
from devices.statements import HOME
from wire import clock
from wire.errors import Conflict, NotFound
from wire.finding import GroupCreate, GroupView

MAX_GROUPS = 500  # of a tenant
_MANY = 10_000  # where the count of a listed group stops
_PART = 500


class GroupStore:
    """Groups; thread-safe. Each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(self, tenant: str) -> list[GroupView]:
        """Give all groups in order of their names, counted up to a bound."""
        query = select(GROUPS).where(GROUPS.c.tenant == tenant).order_by(GROUPS.c.name)
        with self._database.read() as connection:
            return [_to_view(connection, row, _MANY) for row in connection.execute(query).mappings().all()]

    def find(self, tenant: str, name: str) -> GroupView:
        """Give one group with its exact count.

        Raises:
            NotFound: no such group.
        """
        with self._database.read() as connection:
            return _to_view(connection, _demand(connection, tenant, name), None)

    def add(self, tenant: str, wanted: GroupCreate, who: Who) -> None:
        """Make a group.

        Raises:
            Conflict: the name is taken, or there are MAX_GROUPS.
            BadQuery: its query names a group that does not exist.
        """
        with self._database.write() as transaction:
            names = select(GROUPS.c.name).where(GROUPS.c.tenant == tenant)
            known = set(transaction.execute(names).scalars())
            if wanted.name in known:
                raise Conflict(f"group {wanted.name} exists already", code="group_exists", fields=["name"])
            if len(known) >= MAX_GROUPS:
                raise Conflict(f"there are {MAX_GROUPS} groups, the limit", code="too_many_groups")
            now_ns = transaction.now_ns
            values = {"description": wanted.description, "query": wanted.query, "created_ns": now_ns}
            transaction.execute(insert(GROUPS).values(tenant=tenant, name=wanted.name, updated_ns=now_ns, **values))
            _demand_sense(transaction.connection, tenant, wanted.name)
            transaction.audit([Deed(who, "group.create", wanted.name, {"query": wanted.query})])

    def change(self, tenant: str, name: str, given: dict[str, Any], who: Who) -> None:
        """Change description or query of a group.

        Raises:
            NotFound: no such group.
            Conflict: it would become one of the other sort.
            BadQuery: groups would go round in circles, or its query names one that does not exist.
        """
        with self._database.write() as transaction:
            row = _demand(transaction.connection, tenant, name)
            if "query" in given and (given["query"] is None) != (row["query"] is None):
                raise Conflict("a group stays listed or found by a query", code="group_kind", fields=["query"])
            values = given | {"updated_ns": transaction.now_ns}
            transaction.execute(update(GROUPS).where(_is(tenant, name)).values(**values))
            _demand_sense(transaction.connection, tenant, name)
            transaction.audit([Deed(who, "group.update", name, given)])

    def remove(self, tenant: str, name: str, who: Who) -> None:
        """Delete a group; its devices stay.

        Raises:
            NotFound: no such group.
            Conflict: the query of another group, or of a token, names it.
        """
        with self._database.write() as transaction:
            _demand(transaction.connection, tenant, name)
            transaction.execute(delete(GROUPS).where(_is(tenant, name)))
            _demand_unused(transaction.connection, tenant)
            transaction.audit([Deed(who, "group.delete", name)])

    def put_in(self, tenant: str, name: str, devices: Sequence[str], who: Who) -> tuple[int, Sequence[str]]:
        """Put devices into a group; give how many came in and which do not exist. Raises as `_demand_listed`."""
        with self._database.write() as transaction:
            _demand_listed(transaction.connection, tenant, name)
            known = _some(transaction, DEVICES.c.id, DEVICES.c.tenant == tenant, devices)
            mine = and_(GROUP_MEMBERS.c.tenant == tenant, GROUP_MEMBERS.c.name == name)
            fresh = sorted(known - _some(transaction, GROUP_MEMBERS.c.device, mine, devices))
            rows = [{"tenant": tenant, "name": name, "device": device} for device in fresh]
            transaction.execute(insert(GROUP_MEMBERS), rows)
            if fresh:
                transaction.audit([Deed(who, "group.add", name, {"devices": fresh})])
            return len(fresh), sorted(set(devices) - known)

    def take_out(self, tenant: str, name: str, devices: Sequence[str], who: Who) -> tuple[int, Sequence[str]]:
        """Take devices out of a group; give how many went and which were not in it. Raises as `_demand_listed`."""
        with self._database.write() as transaction:
            _demand_listed(transaction.connection, tenant, name)
            mine = and_(GROUP_MEMBERS.c.tenant == tenant, GROUP_MEMBERS.c.name == name)
            gone = sorted(_some(transaction, GROUP_MEMBERS.c.device, mine, devices))
            for start in range(0, len(gone), _PART):
                part = GROUP_MEMBERS.c.device.in_(gone[start : start + _PART])
                transaction.execute(delete(GROUP_MEMBERS).where(mine, part))
            if gone:
                transaction.audit([Deed(who, "group.remove", name, {"devices": gone})])
            return len(gone), sorted(set(devices) - set(gone))

    def of_device(self, tenant: str, device: str) -> Sequence[str]:
        """Name the groups that hold a device, listed or found.

        Raises:
            NotFound: no such device.
        """
        this = and_(DEVICES.c.tenant == tenant, DEVICES.c.id == device)
        query = select(GROUPS.c.name).where(GROUPS.c.tenant == tenant).order_by(GROUPS.c.name)
        with self._database.read() as connection:
            if connection.execute(select(DEVICES.c.id).where(this)).first() is None:
                raise NotFound(f"no device {device!r}", code="device_not_found")
            names = connection.execute(query).scalars().all()
            asked = select(DEVICES.c.id).select_from(HOME).where(this)
            here = {name: asked.where(_condition(connection, tenant, name)) for name in names}
            return [name for name, found in here.items() if connection.execute(found).first() is not None]


def group_finder(connection: Connection, tenant: str) -> FindGroup:
    """Give what resolves the groups that a query names, as they are now."""

    def find(name: str) -> Node | None:
        row = connection.execute(select(GROUPS.c.query).where(_is(tenant, name))).first()
        if row is None:
            raise KeyError(name)
        return None if row.query is None else parse(row.query, clock.now_ns())

    return find


def _condition(connection: Connection, tenant: str, name: str) -> ColumnElement[bool]:
    named = Compare(Field("group", "group"), "=", name)
    return condition(named, tenant, group_finder(connection, tenant))


_demand_sense: Callable[[Connection, str, str], Any] = _condition  # a query that cannot be made into SQL raises


def _demand_unused(connection: Connection, tenant: str) -> None:
    """Refuse when a query names a group that is gone."""
    groups = select(GROUPS.c.name, GROUPS.c.query).where(GROUPS.c.tenant == tenant, GROUPS.c.query.is_not(None))
    tokens = select(TOKENS.c.name, TOKENS.c.devices).where(TOKENS.c.tenant == tenant, TOKENS.c.devices != "")
    for kind, queries in (("group", groups), ("token", tokens)):
        for name, query in connection.execute(queries).all():
            try:
                demand_sense(connection, tenant, query)
            except BadQuery:
                raise Conflict(f"the query of {kind} {name} names this group", code="group_in_use") from None


def demand_sense(connection: Connection, tenant: str, query: str) -> None:
    """Refuse a query that cannot be asked.

    Raises:
        BadQuery: it cannot be read, names a group that does not exist, or groups go round in circles.
    """
    condition(parse(query, clock.now_ns()), tenant, group_finder(connection, tenant))


def _to_view(connection: Connection, row: Any, at_most: int | None) -> GroupView:
    found = _condition(connection, row["tenant"], row["name"])
    bound = None if at_most is None else at_most + 1
    some = select(DEVICES.c.id).select_from(HOME).where(found).order_by(DEVICES.c.id).limit(bound).subquery()
    count = int(connection.execute(select(func.count()).select_from(some)).scalar_one())
    return GroupView(
        name=row["name"],
        description=row["description"],
        query=row["query"],
        count=count if at_most is None else min(count, at_most),
        is_exact=at_most is None or count <= at_most,
        created=row["created_ns"],
        updated=row["updated_ns"],
    )


def _demand(connection: Connection, tenant: str, name: str) -> Any:
    row = connection.execute(select(GROUPS).where(_is(tenant, name))).mappings().first()
    if row is None:
        raise NotFound(f"no group {name[:80]!r}", code="group_not_found")
    return row


def _demand_listed(connection: Connection, tenant: str, name: str) -> None:
    """Demand a group whose members are listed.

    Raises:
        NotFound: no such group.
        Conflict: its members are found by a query.
    """
    if _demand(connection, tenant, name)["query"] is not None:
        raise Conflict(f"the members of group {name} are found by its query", code="group_kind")


def _some(transaction: Write, column: Any, mine: ColumnElement[bool], devices: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for start in range(0, len(devices), _PART):
        part = column.in_(devices[start : start + _PART])
        found.update(transaction.execute(select(column).where(mine, part)).scalars())
    return found


def _is(tenant: str, name: str) -> ColumnElement[bool]:
    return and_(GROUPS.c.tenant == tenant, GROUPS.c.name == name)
