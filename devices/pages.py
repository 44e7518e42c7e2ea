"""Pages of the device list: the only SQL about them.

Building a statement takes longer than running it, so pages whose queries differ in their values only share one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Integer, Select, and_, bindparam, func, select

from devices.database.tables import DEVICE_TAGS, DEVICES, PRESENCE
from devices.groups.store import group_finder
from devices.query.shape import lift, names_group
from devices.query.sql import FindGroup, condition, is_broad, no_groups
from devices.rows import DeviceFilter
from devices.statements import OF_TENANT, VIEW

LOOKED_AT = 2_000  # devices, one by one, before a set is made whole
SHAPES = 256  # remembered
_AFTER, _BEFORE = DEVICES.c.id > bindparam("after"), DEVICES.c.id < bindparam("before")
_FOLLOWING = select(DEVICES.c.id).where(DEVICES.c.tenant == OF_TENANT, _AFTER).order_by(DEVICES.c.id)
_END = _FOLLOWING.offset(bindparam("looked_at", type_=Integer)).limit(1)


class _Statements(NamedTuple):
    """What finds a page: among all devices, and where the query is broad, first among the next few."""

    all: Select[Any]
    few: Select[Any] | None


def page(connection: Connection, tenant: str, wanted: DeviceFilter) -> Sequence[Any]:
    """Give a page's rows. One of a set that holds most devices is soon full: the next few devices are asked first."""
    tree, values = lift(wanted.tree)
    shape = replace(wanted, tree=tree, after="after" if wanted.after else "", limit=0)
    # What a group holds is not in the query: it is looked up each time.
    statements = _build(shape, group_finder(connection, tenant)) if names_group(tree) else _remembered(shape)
    given = values | {"of_tenant": tenant, "after": wanted.after, "most": wanted.limit, "looked_at": LOOKED_AT}
    if statements.few is not None:
        end = connection.execute(_END, given).scalar()
        rows = connection.execute(statements.few, given | {"before": end}).mappings().all() if end is not None else ()
        if len(rows) == wanted.limit:
            return rows
    return connection.execute(statements.all, given).mappings().all()


def _build(shape: DeviceFilter, find_group: FindGroup) -> _Statements:
    ordered = VIEW.where(*_conditions(shape)).order_by(DEVICES.c.id).limit(bindparam("most", type_=Integer))
    few = None
    if is_broad(shape.tree):
        few = ordered.where(condition(shape.tree, OF_TENANT, find_group, is_narrowed=True), _BEFORE)
    return _Statements(ordered.where(condition(shape.tree, OF_TENANT, find_group)), few)


@lru_cache(SHAPES)
def _remembered(shape: DeviceFilter) -> _Statements:
    return _build(shape, no_groups)


def _conditions(shape: DeviceFilter) -> Iterable[ColumnElement[bool]]:
    if shape.after:
        yield _AFTER
    if shape.type is not None:
        yield DEVICES.c.type == shape.type
    if shape.state is not None:
        yield _is_in_state(shape.state)
    if shape.is_online is not None:
        yield func.coalesce(PRESENCE.c.online, False).is_(shape.is_online)
    for key, value in shape.tags:
        named = and_(DEVICE_TAGS.c.tenant == OF_TENANT, DEVICE_TAGS.c.key == key, DEVICE_TAGS.c.value == value)
        yield DEVICES.c.id.in_(select(DEVICE_TAGS.c.device).where(named))


def _is_in_state(state: str) -> ColumnElement[bool]:
    if state not in ("active", "registered"):
        return DEVICES.c.state == state
    has_been_seen = func.coalesce(PRESENCE.c.last_seen_ns, 0) > 0
    return and_(DEVICES.c.state == "active", has_been_seen if state == "active" else ~has_been_seen)
