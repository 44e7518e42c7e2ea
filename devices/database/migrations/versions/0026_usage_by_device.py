"""What device types and devices used, by day."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    for table, of in (("usage_types", "type"), ("usage_devices", "device")):
        op.create_table(
            table,
            sa.Column("tenant", sa.String(length=64), nullable=False),
            sa.Column("day", sa.Integer(), nullable=False),
            sa.Column(of, sa.String(length=64), nullable=False),
            *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("messages", "points", "bytes")),
            sa.PrimaryKeyConstraint("tenant", "day", of),
            sqlite_with_rowid=False,
        )
