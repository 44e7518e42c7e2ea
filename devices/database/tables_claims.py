"""Table of topic claims: topics outside the platform's own branch, each of one device."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, String, Table

from devices.database.tables import METADATA, of_device

CLAIMS = Table(
    "topic_claims",
    METADATA,
    Column("filter", String(256), primary_key=True),
    Column("root", String(256), nullable=False),  # its first level
    Column("branch", String(256)),  # its second, where that is literal: few claims can overlap one that has it
    Column("protocol", String(64), nullable=False),
    Column("tenant", String(64), nullable=False),
    Column("device", String(64), nullable=False),
    Column("since_ns", BigInteger, nullable=False),
    of_device(),
    Index("topic_claims_by_device", "tenant", "device", "filter"),
    Index("topic_claims_by_levels", "root", "branch"),
)
