"""Topics that belong to single devices."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "topic_claims",
        sa.Column("filter", sa.String(length=256), nullable=False),
        sa.Column("root", sa.String(length=256), nullable=False),
        sa.Column("branch", sa.String(length=256), nullable=True),
        sa.Column("protocol", sa.String(length=64), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("device", sa.String(length=64), nullable=False),
        sa.Column("since_ns", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant", "device"], ["devices.tenant", "devices.id"], onupdate="CASCADE", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("filter"),
    )
    op.create_index("topic_claims_by_device", "topic_claims", ["tenant", "device", "filter"])
    op.create_index("topic_claims_by_levels", "topic_claims", ["root", "branch"])
