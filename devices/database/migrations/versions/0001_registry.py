"""Registry: devices, types, credentials, presence, operators, tokens, changes, audit."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the first schema."""
    _make_devices()
    _make_of_devices()
    _make_access()
    _make_log()
    counters = sa.table("counters", sa.column("name"), sa.column("value"), sa.column("text"))
    names = ("revision", "audit", "presence")
    op.bulk_insert(counters, [{"name": name, "value": 0, "text": ""} for name in names])


def _make_devices() -> None:
    """Devices and their types."""
    op.create_table("device_types",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "name")
    )
    op.create_table("devices",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("type", sa.String(length=64), nullable=True),
        sa.Column("gateway", sa.Boolean(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("tags", sa.Text(), nullable=False),
        sa.Column("search", sa.Text(), nullable=False),
        sa.Column("created_ns", sa.BigInteger(), nullable=False),
        sa.Column("updated_ns", sa.BigInteger(), nullable=False),
        sa.Column("broker_credential", sa.String(length=32), nullable=True),
        sa.PrimaryKeyConstraint("tenant", "id")
    )
    op.create_index("devices_by_type", "devices", ["tenant", "type"], unique=False)


def _make_of_devices() -> None:
    """What belongs to one device."""
    op.create_table("credentials",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("device", sa.String(length=64), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("broker_hash", sa.String(length=160), nullable=False),
        sa.Column("created_ns", sa.BigInteger(), nullable=False),
        sa.Column("not_before_ns", sa.BigInteger(), nullable=True),
        sa.Column("not_after_ns", sa.BigInteger(), nullable=True),
        sa.Column("last_used_ns", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["tenant", "device"], ["devices.tenant", "devices.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id")
    )
    op.create_index("credentials_by_device", "credentials", ["tenant", "device"], unique=False)
    op.create_table("device_tags",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("device", sa.String(length=64), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("value", sa.String(length=256), nullable=False),
        sa.ForeignKeyConstraint(["tenant", "device"], ["devices.tenant", "devices.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("tenant", "device", "key")
    )
    op.create_index("device_tags_by_value", "device_tags", ["tenant", "key", "value"], unique=False)
    op.create_table("presence",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("device", sa.String(length=64), nullable=False),
        sa.Column("online", sa.Boolean(), nullable=False),
        sa.Column("connected", sa.Boolean(), nullable=False),
        sa.Column("said", sa.String(length=16), nullable=True),
        sa.Column("last_seen_ns", sa.BigInteger(), nullable=False),
        sa.Column("since_ns", sa.BigInteger(), nullable=False),
        sa.Column("gone_ns", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["tenant", "device"], ["devices.tenant", "devices.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("tenant", "device")
    )


def _make_access() -> None:
    """Tokens, operators, sessions."""
    op.create_table("tokens",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("created_ns", sa.BigInteger(), nullable=False),
        sa.Column("expires_ns", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("sha256"),
        sa.UniqueConstraint("tenant", "name")
    )
    op.create_table("operators",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=False),
        sa.Column("created_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "name")
    )
    op.create_table("sessions",
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("operator", sa.String(length=64), nullable=False),
        sa.Column("expires_ns", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["tenant", "operator"], ["operators.tenant", "operators.name"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("sha256")
    )


def _make_log() -> None:
    """Changes, audit, counters."""
    op.create_table("changes",
        sa.Column("revision", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("revision")
    )
    op.create_table("audit",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("time_ns", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("object", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("remote_ip", sa.Text(), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("seq")
    )
    op.create_index("audit_by_actor", "audit", ["tenant", "actor"], unique=False)
    op.create_index("audit_by_object", "audit", ["tenant", "object"], unique=False)
    op.create_table("counters",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name")
    )
