"""Attributes, firmware versions and groups of devices."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add what devices are found by."""
    order = sa.String(length=512).with_variant(sa.String(length=512, collation="C"), "postgresql")
    op.add_column("devices", sa.Column("attributes", sa.Text(), nullable=False, server_default="{}"))
    op.add_column("devices", sa.Column("fw", sa.String(length=256), nullable=True))
    op.add_column("devices", sa.Column("fw_order", order, nullable=True))
    op.create_table("device_attributes",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("device", sa.String(length=64), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("value", sa.String(length=256), nullable=False),
        sa.Column("number", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["tenant", "device"], ["devices.tenant", "devices.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("tenant", "device", "key")
    )
    op.create_index("device_attributes_by_value", "device_attributes", ["tenant", "key", "value"], unique=False)
    op.create_table("device_groups",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("query", sa.Text(), nullable=True),
        sa.Column("created_ns", sa.BigInteger(), nullable=False),
        sa.Column("updated_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "name")
    )
    op.create_table("group_members",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("device", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["tenant", "name"], ["device_groups.tenant", "device_groups.name"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["tenant", "device"], ["devices.tenant", "devices.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("tenant", "name", "device")
    )
    op.create_index("group_members_by_device", "group_members", ["tenant", "device"], unique=False)
