"""Tenants as rows; ids of devices unique in the installation; what belongs to a device moves with it.

Whoever was an admin so far was one of the whole installation, and is of the platform now.
"""

from __future__ import annotations

import time

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

OWNED = (
    "device_tags", "device_attributes", "group_members", "credentials", "presence", "origins", "twins", "twin_history",
    "commands", "command_routes",
)  # fmt: skip


def upgrade() -> None:
    """Go from 0006 to 0007."""
    tenants = op.create_table(
        "tenants",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("limits", sa.Text(), nullable=False),
        sa.Column("created_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    home = {"id": "default", "title": "", "state": "active", "limits": "{}", "created_ns": time.time_ns()}
    op.bulk_insert(tenants, [home])
    op.create_index("devices_by_id", "devices", ["id"], unique=True)
    for table in ("operators", "tokens"):
        op.execute(f"UPDATE {table} SET role = 'platform' WHERE role = 'admin'")  # noqa: S608 - two fixed names
    with op.batch_alter_table("changes") as changes:
        changes.alter_column("key", existing_type=sa.String(length=64), type_=sa.String(length=160))
    for table in OWNED:
        _let_rows_follow(table)


def _let_rows_follow(table: str) -> None:
    """Give the key to `devices` ON UPDATE CASCADE; SQLite has to copy the table for that."""
    name = f"{table}_tenant_device_fkey"  # as PostgreSQL named it; on SQLite it has none, so it is given one
    naming = {"fk": "%(table_name)s_%(column_0_N_name)s_fkey"}
    with op.batch_alter_table(table, naming_convention=naming) as batch:
        batch.drop_constraint(name, type_="foreignkey")
        batch.create_foreign_key(
            name, "devices", ["tenant", "device"], ["tenant", "id"], ondelete="CASCADE", onupdate="CASCADE"
        )
