"""Operators who log in by an OpenID Connect provider."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make room for what the provider calls somebody."""
    op.add_column("operators", sa.Column("subject", sa.Text(), nullable=True))
    op.create_index("operators_subject", "operators", ["subject"], unique=True)
