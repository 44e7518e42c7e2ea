"""Tables of gateways: their rules, and which device is seen through which."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKeyConstraint, Index, PrimaryKeyConstraint, String, Table, Text

from devices.database.tables import METADATA


def _of_device(column: str) -> ForeignKeyConstraint:
    return ForeignKeyConstraint(
        ["tenant", column], ["devices.tenant", "devices.id"], ondelete="CASCADE", onupdate="CASCADE"
    )


GATEWAYS = Table(
    "gateways",
    METADATA,
    Column("tenant", String(64), nullable=False),
    Column("device", String(64), nullable=False),
    Column("rules", Text, nullable=False),  # wire.gateways.GatewayRules
    PrimaryKeyConstraint("tenant", "device"),
    _of_device("device"),
)

CHILDREN = Table(
    "children",
    METADATA,
    Column("tenant", String(64), nullable=False),
    Column("device", String(64), nullable=False),
    Column("gateway", String(64), nullable=False),
    Column("since_ns", BigInteger, nullable=False),
    PrimaryKeyConstraint("tenant", "device"),
    _of_device("device"),
    _of_device("gateway"),
    Index("children_by_gateway", "tenant", "gateway", "device"),
)
