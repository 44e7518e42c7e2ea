"""State and control: twins and commands."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables."""
    _make_twins()
    _make_commands()
    _make_command_indexes()
    counters = sa.table("counters", sa.column("name"), sa.column("value"), sa.column("text"))
    op.bulk_insert(counters, [{"name": "control", "value": 0, "text": ""}])


def _make_twins() -> None:
    """Twins, their history, and what the broker holds."""
    op.create_table(
        "twins",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("device", sa.String(length=64), nullable=False),
        sa.Column("desired", sa.Text(), nullable=False),
        sa.Column("desired_version", sa.BigInteger(), nullable=False),
        sa.Column("desired_ns", sa.BigInteger(), nullable=False),
        sa.Column("reported", sa.Text(), nullable=False),
        sa.Column("reported_version", sa.BigInteger(), nullable=False),
        sa.Column("reported_ns", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("pending", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["tenant", "device"], ["devices.tenant", "devices.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("tenant", "device"),
    )
    op.create_index("twins_by_revision", "twins", ["revision"], unique=False)
    op.create_index("twins_pending", "twins", ["pending"], unique=False)
    op.create_table(
        "twin_history",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("device", sa.String(length=64), nullable=False),
        sa.Column("part", sa.String(length=16), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("time_ns", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("replaced", sa.Boolean(), nullable=False),
        sa.Column("patch", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["tenant", "device"], ["devices.tenant", "devices.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("tenant", "device", "part", "version"),
    )
    op.create_index("twin_history_by_time", "twin_history", ["time_ns"], unique=False)
    op.create_table(
        "twin_retained",
        sa.Column("device", sa.String(length=64), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("device"),
    )


def _make_commands() -> None:
    """Commands."""
    op.create_table(
        "commands",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("device", sa.String(length=64), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("params", sa.Text(), nullable=False),
        sa.Column("qos", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("created_ns", sa.BigInteger(), nullable=False),
        sa.Column("deadline_ns", sa.BigInteger(), nullable=False),
        sa.Column("due_ns", sa.BigInteger(), nullable=False),
        sa.Column("retry_ns", sa.BigInteger(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("max_tries", sa.Integer(), nullable=False),
        sa.Column("sent_ns", sa.BigInteger(), nullable=True),
        sa.Column("delivered_ns", sa.BigInteger(), nullable=True),
        sa.Column("ended_ns", sa.BigInteger(), nullable=True),
        sa.Column("idempotency_key", sa.String(length=128), nullable=True),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("job", sa.String(length=32), nullable=True),
        sa.Column("via", sa.String(length=32), nullable=True),
        sa.Column("result", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("tenant", "device", "idempotency_key"),
        sa.ForeignKeyConstraint(["tenant", "device"], ["devices.tenant", "devices.id"], ondelete="CASCADE"),
    )


def _make_command_indexes() -> None:
    """How commands are found, and who sends them."""
    op.create_index("commands_by_device", "commands", ["tenant", "device", "seq"], unique=False)
    op.create_index("commands_by_revision", "commands", ["revision"], unique=False)
    op.create_index("commands_by_time", "commands", ["tenant", "seq"], unique=False)
    op.create_index("commands_deadline", "commands", ["active", "deadline_ns"], unique=False)
    op.create_index("commands_due", "commands", ["active", "due_ns"], unique=False)
    op.create_table(
        "command_routes",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("device", sa.String(length=64), nullable=False),
        sa.Column("protocol", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(["tenant", "device"], ["devices.tenant", "devices.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("tenant", "device"),
    )
