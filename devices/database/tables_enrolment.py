"""Tables of enrolment: the ways in, and how each device that registered itself came."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from devices.database.tables import METADATA, of_device

ENROLMENTS = Table(
    "enrolments",
    METADATA,
    Column("id", String(32), primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("name", String(64), nullable=False),
    Column("kind", String(16), nullable=False),  # token, group
    Column("secret", String(256), nullable=False),  # SHA-256 of a token; a group's key, sealed
    Column("terms", Text, nullable=False),
    Column("max_devices", BigInteger),
    Column("enrolled", BigInteger, nullable=False),
    Column("created_ns", BigInteger, nullable=False),
    Column("expires_ns", BigInteger),
    UniqueConstraint("tenant", "name"),
    UniqueConstraint("secret"),
)

ORIGINS = Table(
    "origins",
    METADATA,
    Column("tenant", String(64), nullable=False),
    Column("device", String(64), nullable=False),
    Column("source", String(96), nullable=False),  # token:NAME, group:NAME, authority:NAME, gateway:ID
    Column("nonce", String(64)),  # SHA-256 of what the device chose
    Column("hardware", Text, nullable=False),
    Column("time_ns", BigInteger, nullable=False),
    PrimaryKeyConstraint("tenant", "device"),
    of_device(),
    Index("origins_by_nonce", "nonce"),
)

AUTHORITIES = Table(
    "authorities",
    METADATA,
    Column("id", String(32), primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("name", String(64), nullable=False),
    Column("certificate", Text, nullable=False),
    Column("key", Text),  # of our own, sealed
    Column("terms", Text, nullable=False),
    Column("id_from", String(16), nullable=False),
    Column("challenge", String(64)),  # until its owner has proved to hold its key
    Column("created_ns", BigInteger, nullable=False),
    UniqueConstraint("tenant", "name"),
)

CERTIFICATES = Table(  # every certificate that was ever a credential; it is good while it is one
    "certificates",
    METADATA,
    Column("fingerprint", String(64), primary_key=True),
    Column("authority", String(32), nullable=False),
    Column("tenant", String(64), nullable=False),
    Column("device", String(64), nullable=False),
    Column("serial", String(64), nullable=False),
    Column("end_ns", BigInteger, nullable=False),
    Index("certificates_by_authority", "authority", "end_ns"),
)
