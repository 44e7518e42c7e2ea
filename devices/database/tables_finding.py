"""Tables by which devices are found beside their own columns: attributes and groups."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    ForeignKeyConstraint,
    Index,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
)

from devices.database.tables import METADATA, of_device

DEVICE_ATTRIBUTES = Table(  # DEVICES.attributes is for reading, this is for finding
    "device_attributes",
    METADATA,
    Column("tenant", String(64), nullable=False),
    Column("device", String(64), nullable=False),
    Column("key", String(64), nullable=False),
    Column("value", String(256), nullable=False),  # as JSON writes it, texts without quotation marks
    Column("number", Double),
    PrimaryKeyConstraint("tenant", "device", "key"),
    of_device(),
    Index("device_attributes_by_value", "tenant", "key", "value", "device"),
)

GROUPS = Table(
    "device_groups",
    METADATA,
    Column("tenant", String(64), nullable=False),
    Column("name", String(64), nullable=False),
    Column("description", Text, nullable=False),
    Column("query", Text),  # NULL: its members are listed
    Column("created_ns", BigInteger, nullable=False),
    Column("updated_ns", BigInteger, nullable=False),
    PrimaryKeyConstraint("tenant", "name"),
)

GROUP_MEMBERS = Table(
    "group_members",
    METADATA,
    Column("tenant", String(64), nullable=False),
    Column("name", String(64), nullable=False),
    Column("device", String(64), nullable=False),
    PrimaryKeyConstraint("tenant", "name", "device"),
    ForeignKeyConstraint(["tenant", "name"], ["device_groups.tenant", "device_groups.name"], ondelete="CASCADE"),
    of_device(),
    Index("group_members_by_device", "tenant", "device"),
)
