"""Which children the prefixes of their gateways leave out."""

from __future__ import annotations

import orjson
import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column, and find them."""
    op.add_column("children", sa.Column("outside", sa.Boolean(), nullable=False, server_default=sa.false()))
    gateways = sa.table("gateways", *map(sa.column, ("tenant", "device", "rules")))
    children = sa.table("children", *map(sa.column, ("tenant", "device", "gateway", "outside")))
    mine = sa.and_(gateways.c.tenant == children.c.tenant, gateways.c.device == children.c.gateway)
    connection = op.get_bind()
    query = sa.select(children.c.tenant, children.c.device, gateways.c.rules).join_from(children, gateways, mine)
    rows = [
        {"t": tenant, "d": device}
        for tenant, device, rules in connection.execute(query)
        if (prefixes := orjson.loads(rules)["prefixes"]) and not device.startswith(tuple(prefixes))
    ]
    if rows:
        these = sa.and_(children.c.tenant == sa.bindparam("t"), children.c.device == sa.bindparam("d"))
        connection.execute(sa.update(children).where(these).values(outside=sa.true()), rows)
