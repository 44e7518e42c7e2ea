"""The tables of presence's history. See `devices.database.tables`."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, PrimaryKeyConstraint, String, Table

from devices.database.tables import METADATA, of_device

PRESENCE_EVENTS = Table(
    "presence_events",
    METADATA,
    Column("tenant", String(64), nullable=False),
    Column("device", String(64), nullable=False),
    Column("time_ns", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", String(16), nullable=False),
    Column("flaps", Integer, nullable=False),
    Column("lost_ns", BigInteger, nullable=False),
    PrimaryKeyConstraint("tenant", "device", "time_ns"),
    of_device(),
)

PRESENCE_GAPS = Table(  # of the whole platform: when it could not hear, or its devices had to come back first
    "presence_gaps",
    METADATA,
    Column("start_ns", BigInteger, primary_key=True, autoincrement=False),
    Column("end_ns", BigInteger, nullable=False),
)
