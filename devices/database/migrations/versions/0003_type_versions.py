"""Versions of device types: all that were ever written, not only those in force."""

from __future__ import annotations

import time

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table; what is in force becomes its first rows."""
    versions = op.create_table("type_versions",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("note", sa.String(length=256), nullable=False),
        sa.Column("origin", sa.String(length=64), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("created_ns", sa.BigInteger(), nullable=False),
        sa.Column("due_ns", sa.BigInteger(), nullable=True),
        sa.Column("activated_ns", sa.BigInteger(), nullable=True),
        sa.Column("retired_ns", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("tenant", "name", "version"),
        sa.UniqueConstraint("id")
    )
    op.create_index("type_versions_by_state", "type_versions", ["state", "due_ns"])
    present = sa.table("device_types", *(sa.column(name) for name in ("tenant", "name", "version", "spec")))
    found = op.get_bind().execute(sa.select(present).order_by(present.c.tenant, present.c.name)).mappings()
    same = {"state": "active", "note": "in force before versions were kept", "origin": "upgrade", "actor": "system"}
    now_ns = time.time_ns()
    rows = [
        dict(row) | same | {"id": number, "created_ns": now_ns, "activated_ns": now_ns}
        for number, row in enumerate(found, 1)
    ]
    op.bulk_insert(versions, rows)
