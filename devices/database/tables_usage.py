"""Tables of what tenants, their types and their devices used, by day. See `devices.database.tables`."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, PrimaryKeyConstraint, String, Table

from devices.database.tables import METADATA

USAGE = Table(
    "usage",
    METADATA,
    Column("tenant", String(64), nullable=False),
    Column("day", Integer, nullable=False),  # days since 1970-01-01, UTC
    Column("messages", BigInteger, nullable=False),
    Column("points", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("feed_readers", Integer, nullable=False),  # most at one time
    PrimaryKeyConstraint("tenant", "day"),
)

USAGE_TYPES = Table(
    "usage_types",
    METADATA,
    Column("tenant", String(64), nullable=False),
    Column("day", Integer, nullable=False),
    Column("type", String(64), nullable=False),  # "": devices without one
    Column("messages", BigInteger, nullable=False),
    Column("points", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    PrimaryKeyConstraint("tenant", "day", "type"),
    sqlite_with_rowid=False,
)

USAGE_DEVICES = Table(
    "usage_devices",
    METADATA,
    Column("tenant", String(64), nullable=False),
    Column("day", Integer, nullable=False),
    Column("device", String(64), nullable=False),
    Column("messages", BigInteger, nullable=False),
    Column("points", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    PrimaryKeyConstraint("tenant", "day", "device"),
    sqlite_with_rowid=False,  # half the space: there are as many rows as devices, each day
)
