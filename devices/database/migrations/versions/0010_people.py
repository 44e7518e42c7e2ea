"""People: sessions with a place, invitations, passwords that must be changed; tokens with scope and last use."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go from 0009 to 0010."""
    op.add_column("tokens", sa.Column("scope", sa.Text(), nullable=False, server_default=""))
    op.add_column("tokens", sa.Column("last_used_ns", sa.BigInteger(), nullable=True))
    op.add_column("operators", sa.Column("must_change", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("operators", sa.Column("last_login_ns", sa.BigInteger(), nullable=True))
    op.add_column("sessions", sa.Column("created_ns", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("sessions", sa.Column("remote_ip", sa.Text(), nullable=False, server_default=""))
    op.create_table(
        "invitations",
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("created_ns", sa.BigInteger(), nullable=False),
        sa.Column("expires_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("sha256"),
        sa.UniqueConstraint("tenant", "name"),
    )
