"""History of presence."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table, and to each mark what of it is the newest."""
    op.create_table(
        "presence_events",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("device", sa.String(length=64), nullable=False),
        sa.Column("time_ns", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=16), nullable=False),
        sa.Column("flaps", sa.Integer(), nullable=False),
        sa.Column("lost_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "device", "time_ns"),
        sa.ForeignKeyConstraint(["tenant", "device"], ["devices.tenant", "devices.id"], ondelete="CASCADE", onupdate="CASCADE"),
    )
    op.add_column("presence", sa.Column("stale", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("presence", sa.Column("event", sa.String(length=16), nullable=False, server_default="never"))
    op.add_column("presence", sa.Column("event_ns", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("presence", sa.Column("before_ns", sa.BigInteger(), nullable=False, server_default="0"))
