"""Statements about single devices, made once: SQLAlchemy takes longer to build one than the database to run it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson
from sqlalchemy import BindParameter, Select, String, and_, bindparam, delete, exists, func, insert, select, update

from devices.database.engine import Write
from devices.database.tables import CREDENTIALS, DEVICE_TAGS, DEVICES, PRESENCE
from devices.database.tables_control import TWINS
from devices.database.tables_descriptions import DESCRIPTIONS
from devices.database.tables_finding import DEVICE_ATTRIBUTES
from devices.database.tables_gateways import CHILDREN, NAMES
from devices.query.values import fw_of, fw_values

Rows = list[dict[str, Any]]
OF_TENANT: BindParameter[str] = bindparam("of_tenant", type_=String)
_OF_DEVICE: BindParameter[str] = bindparam("of_device")
_OF_KEY: BindParameter[str] = bindparam("of_key")
_AT_HOME = and_(PRESENCE.c.tenant == DEVICES.c.tenant, PRESENCE.c.device == DEVICES.c.id)
HOME = DEVICES.outerjoin(PRESENCE, _AT_HOME)
_SHOWN = ("tenant", "id", "type", "gateway", "state", "tags", "attributes", "fw", "created_ns", "updated_ns")
VIEW: Select[Any] = select(
    *(DEVICES.c[name] for name in _SHOWN), PRESENCE.c.online, PRESENCE.c.last_seen_ns, PRESENCE.c.stale
).select_from(HOME)
_IS_ONE = and_(DEVICES.c.tenant == OF_TENANT, DEVICES.c.id == _OF_DEVICE)
ONE = VIEW.where(_IS_ONE)
# To be changed, of any tenant. Held in the order of their ids, as by who notes what twins report: that takes another
# lock than changes do (`devices.twins.store`), and in different orders the two could wait for each other.
SOME = VIEW.where(DEVICES.c.id.in_(bindparam("ids", expanding=True))).order_by(DEVICES.c.id)
SOME = SOME.with_for_update(of=DEVICES, key_share=True)
CHANGE = update(DEVICES).where(_IS_ONE)  # what is given beside them
CREDENTIALS_OF = (
    select(CREDENTIALS)
    .where(CREDENTIALS.c.tenant == OF_TENANT, CREDENTIALS.c.device == _OF_DEVICE)
    .order_by(CREDENTIALS.c.created_ns, CREDENTIALS.c.id)
)
PARENT_OF = select(CHILDREN.c.gateway).where(CHILDREN.c.tenant == OF_TENANT, CHILDREN.c.device == _OF_DEVICE)
_PARENT = select(CHILDREN.c.gateway).where(CHILDREN.c.tenant == DEVICES.c.tenant, CHILDREN.c.device == DEVICES.c.id)
_NAMES = select(func.aggregate_strings(NAMES.c.name, "\n"))  # none of them holds control characters
_NAMES = _NAMES.where(NAMES.c.tenant == DEVICES.c.tenant, NAMES.c.device == DEVICES.c.id)
_TOLD = and_(DESCRIPTIONS.c.tenant == DEVICES.c.tenant, DESCRIPTIONS.c.device == DEVICES.c.id)
_HELD = ("id", "label", "created_ns", "not_before_ns", "not_after_ns", "last_used_ns")
# All that is shown of a device in one question; a row for each of its credentials, or one without.
DETAIL = (
    VIEW.add_columns(
        _PARENT.scalar_subquery().label("parent"), _NAMES.scalar_subquery().label("names"),
        exists().where(_TOLD).label("is_described"),
        *(CREDENTIALS.c[name].label(f"credential_{name}") for name in _HELD),
    )
    .outerjoin(CREDENTIALS, and_(CREDENTIALS.c.tenant == DEVICES.c.tenant, CREDENTIALS.c.device == DEVICES.c.id))
    .where(_IS_ONE)
    .order_by(CREDENTIALS.c.created_ns, CREDENTIALS.c.id)
)  # fmt: skip
_REPORTED = select(TWINS.c.reported).where(TWINS.c.tenant == OF_TENANT, TWINS.c.device == _OF_DEVICE)
_DELETE_KEY = {
    table: delete(table).where(table.c.tenant == OF_TENANT, table.c.device == _OF_DEVICE, table.c.key == _OF_KEY)
    for table in (DEVICE_TAGS, DEVICE_ATTRIBUTES)
}


def replace_rows(transaction: Write, table: Any, pairs: Iterable[tuple[Rows, Rows]]) -> None:
    """Put rows of devices into the place of those there were; pairs: the old ones of a device, the new ones."""
    gone, fresh = Rows(), Rows()
    for old, new in pairs:
        gone += [
            {"of_tenant": row["tenant"], "of_device": row["device"], "of_key": row["key"]}
            for row in old if row not in new
        ]  # fmt: skip
        fresh += [row for row in new if row not in old]
    transaction.execute(_DELETE_KEY[table], gone)
    transaction.execute(insert(table), fresh)


def read_fw(transaction: Write, tenant: str, device_id: str, attribute: float | str | None) -> dict[str, Any]:
    """Give the columns of a device's firmware version: what its twin reports, else its attribute."""
    text = transaction.execute(_REPORTED, {"of_tenant": tenant, "of_device": device_id}).scalar()
    return fw_values(fw_of(orjson.loads(text or "{}"), attribute))


def drop_ended(transaction: Write, tenant: str, device: str) -> bool:
    """Make room for a credential by the one that ended first, if any has: devices renew theirs by themselves."""
    mine = and_(CREDENTIALS.c.tenant == tenant, CREDENTIALS.c.device == device)
    ended = select(CREDENTIALS.c.id).where(mine, CREDENTIALS.c.not_after_ns <= transaction.now_ns)
    found = transaction.execute(ended.order_by(CREDENTIALS.c.not_after_ns, CREDENTIALS.c.id).limit(1)).scalar()
    transaction.execute(delete(CREDENTIALS).where(mine, CREDENTIALS.c.id == found))
    return found is not None
