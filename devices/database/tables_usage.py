"""The table of what tenants used, by day. See `devices.database.tables`."""

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
