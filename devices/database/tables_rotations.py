"""Table of rotations: which credential a job issued to which device."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKeyConstraint, PrimaryKeyConstraint, String, Table

from devices.database.tables import METADATA, of_device

ROTATIONS = Table(
    "rotations",
    METADATA,
    Column("job", String(32), nullable=False),
    Column("tenant", String(64), nullable=False),
    Column("device", String(64), nullable=False),
    Column("credential", String(32), nullable=False),
    Column("since_ns", BigInteger, nullable=False),
    PrimaryKeyConstraint("job", "device"),
    ForeignKeyConstraint(["job"], ["jobs.id"], ondelete="CASCADE"),
    of_device(),
)
