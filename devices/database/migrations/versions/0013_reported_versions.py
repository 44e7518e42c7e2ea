"""Firmware versions that devices reported before queries knew of them."""

from __future__ import annotations

import orjson
import sqlalchemy as sa
from alembic import op

from devices.query.values import fw_of, fw_values

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Fill `fw` from the twins; the schema stays as it is."""
    twins = sa.table("twins", sa.column("tenant"), sa.column("device"), sa.column("reported"))
    devices = sa.table("devices", *(sa.column(name) for name in ("tenant", "id", "attributes", "fw", "fw_order")))
    owns = sa.and_(twins.c.tenant == devices.c.tenant, twins.c.device == devices.c.id)
    query = sa.select(devices.c.id, devices.c.attributes, twins.c.reported).join_from(twins, devices, owns)
    connection = op.get_bind()
    rows = []
    for device, attributes, reported in connection.execute(query):
        version = fw_of(orjson.loads(reported), orjson.loads(attributes).get("fw"))
        if version is not None:
            values = fw_values(version)
            rows.append({"key": device, "new_fw": values["fw"], "new_order": values["fw_order"]})
    if rows:
        fill = sa.update(devices).where(devices.c.id == sa.bindparam("key"))
        connection.execute(fill.values(fw=sa.bindparam("new_fw"), fw_order=sa.bindparam("new_order")), rows)
