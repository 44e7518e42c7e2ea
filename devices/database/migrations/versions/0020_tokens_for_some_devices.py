"""Tokens for some devices only: the query that finds them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the query; tokens of before are for all devices."""
    op.add_column("tokens", sa.Column("devices", sa.Text(), nullable=False, server_default=""))
