"""Tables of gateways: their rules, which device is seen through which, and what protocols call devices."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKeyConstraint,
    Index,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    false,
)

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
    # It is outside the gateway's prefixes, which so does not speak for it.
    Column("outside", Boolean, nullable=False, server_default=false()),
    PrimaryKeyConstraint("tenant", "device"),
    _of_device("device"),
    _of_device("gateway"),
    Index("children_by_gateway", "tenant", "gateway", "device"),
)

NAMES = Table(
    "external_names",
    METADATA,
    Column("tenant", String(64), nullable=False),
    Column("gateway", String(64), nullable=False),  # that the device is seen through; itself if through none
    Column("name", String(256), nullable=False),  # with its scheme, as wire.external takes it
    Column("device", String(64), nullable=False),
    Column("since_ns", BigInteger, nullable=False),
    Column("search", Text, nullable=False, server_default=""),  # the name in lower case
    PrimaryKeyConstraint("tenant", "gateway", "name"),
    _of_device("device"),
    Index("external_names_by_device", "tenant", "device", "name"),
    Index("external_names_by_name", "tenant", "name", "device"),
)
