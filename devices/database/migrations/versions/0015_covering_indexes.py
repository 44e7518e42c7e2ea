"""Indexes that answer which devices have a type, tag or attribute, or are online, without a look at the rows."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

WIDENED = (
    ("devices_by_type", "devices", ["tenant", "type", "id"]),
    ("device_tags_by_value", "device_tags", ["tenant", "key", "value", "device"]),
    ("device_attributes_by_value", "device_attributes", ["tenant", "key", "value", "device"]),
)


def upgrade() -> None:
    """Put the wider indexes in the place of the old ones."""
    for name, table, columns in WIDENED:
        op.drop_index(name, table)
        op.create_index(name, table, columns)
    is_online = sa.column("online").is_(sa.true())
    op.create_index(
        "presence_online", "presence", ["tenant", "device"], sqlite_where=is_online, postgresql_where=is_online
    )
