"""The table of what devices told of their fields."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, PrimaryKeyConstraint, String, Table, Text

from devices.database.tables import METADATA, of_device

DESCRIPTIONS = Table(
    "field_descriptions",
    METADATA,
    Column("tenant", String(64), nullable=False),
    Column("device", String(64), nullable=False),  # who told it
    Column("name", String(256), nullable=False),  # of whom, as in NAMES; empty: of itself
    Column("fields", Text, nullable=False),  # JSON, a list of wire.descriptions.FieldDescription
    Column("number", Integer, nullable=False),  # of them
    Column("updated_ns", BigInteger, nullable=False),
    PrimaryKeyConstraint("tenant", "device", "name"),
    of_device(),
)
