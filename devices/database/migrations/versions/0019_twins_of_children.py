"""What the broker holds of twins, also on the topics of gateways."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table anew, empty: it is filled with what the broker holds at each connect."""
    op.drop_table("twin_retained")
    op.create_table(
        "twin_retained",
        sa.Column("device", sa.String(length=64), nullable=False),
        sa.Column("gateway", sa.String(length=64), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("device", "gateway"),
    )
