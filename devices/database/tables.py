"""Tables of the registry, for SQLite and PostgreSQL alike. Every row carries its tenant; times are ns."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKeyConstraint,
    Index,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
)

METADATA = MetaData()


def of_device() -> ForeignKeyConstraint:
    """What belongs to a device goes with it: when it is deleted, and when it moves to another tenant."""
    return ForeignKeyConstraint(
        ["tenant", "device"], ["devices.tenant", "devices.id"], ondelete="CASCADE", onupdate="CASCADE"
    )


TENANTS = Table(
    "tenants",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("title", Text, nullable=False),
    Column("state", String(16), nullable=False),  # active, suspended, deleted: an id is never given out again
    Column("limits", Text, nullable=False),  # JSON of wire.tenants.Limits
    Column("created_ns", BigInteger, nullable=False),
)

DEVICES = Table(
    "devices",
    METADATA,
    Column("tenant", String(64), nullable=False),
    Column("id", String(64), nullable=False),
    Column("type", String(64)),
    Column("gateway", Boolean, nullable=False),
    Column("state", String(16), nullable=False),
    Column("tags", Text, nullable=False),  # JSON, for reading; DEVICE_TAGS is for finding
    Column("search", Text, nullable=False),  # lower case: id, type, tag values
    Column("created_ns", BigInteger, nullable=False),
    Column("updated_ns", BigInteger, nullable=False),
    Column("broker_credential", String(32)),  # the one the broker takes while several are valid
    Column("attributes", Text, nullable=False, server_default="{}"),  # JSON, for reading
    Column("fw", String(256)),  # the firmware it runs, as it says or its attribute `fw`
    Column("fw_order", String(512).with_variant(String(512, collation="C"), "postgresql")),  # see query.versions
    PrimaryKeyConstraint("tenant", "id"),
    Index("devices_by_id", "id", unique=True),  # in the whole installation: the broker knows no tenants
    Index("devices_by_type", "tenant", "type", "id"),
)

DEVICE_TAGS = Table(
    "device_tags",
    METADATA,
    Column("tenant", String(64), nullable=False),
    Column("device", String(64), nullable=False),
    Column("key", String(64), nullable=False),
    Column("value", String(256), nullable=False),
    PrimaryKeyConstraint("tenant", "device", "key"),
    of_device(),
    Index("device_tags_by_value", "tenant", "key", "value", "device"),
)

CREDENTIALS = Table(
    "credentials",
    METADATA,
    Column("id", String(32), primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("device", String(64), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("broker_hash", String(160), nullable=False),
    Column("created_ns", BigInteger, nullable=False),
    Column("not_before_ns", BigInteger),
    Column("not_after_ns", BigInteger),
    Column("last_used_ns", BigInteger),
    Column("label", String(64)),
    of_device(),
    Index("credentials_by_device", "tenant", "device"),
)

DEVICE_TYPES = Table(
    "device_types",
    METADATA,
    Column("tenant", String(64), nullable=False),
    Column("name", String(64), nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("spec", Text, nullable=False),
    PrimaryKeyConstraint("tenant", "name"),
)  # the versions in force; a type of which there are only drafts is not here

TYPE_VERSIONS = Table(
    "type_versions",
    METADATA,
    Column("tenant", String(64), nullable=False),
    Column("name", String(64), nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("id", BigInteger, nullable=False, unique=True),  # in the whole installation: points carry it
    Column("state", String(16), nullable=False),  # draft, scheduled, active, retired, forgotten
    Column("spec", Text, nullable=False),
    Column("note", String(256), nullable=False),
    Column("origin", String(64), nullable=False),  # put, draft, rollback of N, learned, imported, shipped
    Column("actor", Text, nullable=False),
    Column("created_ns", BigInteger, nullable=False),
    Column("due_ns", BigInteger),  # of a scheduled one
    Column("activated_ns", BigInteger),
    Column("retired_ns", BigInteger),
    PrimaryKeyConstraint("tenant", "name", "version"),
    Index("type_versions_by_state", "state", "due_ns"),
)

PRESENCE = Table(
    "presence",
    METADATA,
    Column("tenant", String(64), nullable=False),
    Column("device", String(64), nullable=False),
    Column("online", Boolean, nullable=False),
    Column("connected", Boolean, nullable=False),
    Column("said", String(16)),
    Column("last_seen_ns", BigInteger, nullable=False),
    Column("since_ns", BigInteger, nullable=False),
    Column("gone_ns", BigInteger, nullable=False),
    Column("stale", Boolean, nullable=False),
    Column("event", String(16), nullable=False),  # state of the newest event in presence_events, and its time
    Column("event_ns", BigInteger, nullable=False),
    Column("before_ns", BigInteger, nullable=False),  # time of the event before, while the newest may be folded into it
    PrimaryKeyConstraint("tenant", "device"),
    of_device(),
)
_ONLINE = PRESENCE.c.online.is_(True)
Index("presence_online", PRESENCE.c.tenant, PRESENCE.c.device, sqlite_where=_ONLINE, postgresql_where=_ONLINE)

TOKENS = Table(
    "tokens",
    METADATA,
    Column("id", String(32), primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("name", String(64), nullable=False),
    Column("role", String(16), nullable=False),
    Column("sha256", String(64), nullable=False, unique=True),
    Column("created_ns", BigInteger, nullable=False),
    Column("expires_ns", BigInteger),
    Column("scope", Text, nullable=False, server_default=""),  # permissions with spaces; empty: all of the role
    Column("last_used_ns", BigInteger),
    Column("devices", Text, nullable=False, server_default=""),  # a query; empty: all of the tenant
    UniqueConstraint("tenant", "name"),
)

OPERATORS = Table(
    "operators",
    METADATA,
    Column("tenant", String(64), nullable=False),
    Column("name", String(64), nullable=False),
    Column("role", String(16), nullable=False),
    Column("password_hash", Text, nullable=False),
    Column("created_ns", BigInteger, nullable=False),
    Column("must_change", Boolean, nullable=False, server_default=false()),  # the password, before anything else
    Column("last_login_ns", BigInteger),
    Column("subject", Text),  # issuer and subject of who logs in by a provider
    PrimaryKeyConstraint("tenant", "name"),
    Index("operators_subject", "subject", unique=True),
)

SESSIONS = Table(
    "sessions",
    METADATA,
    Column("sha256", String(64), primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("operator", String(64), nullable=False),
    Column("expires_ns", BigInteger, nullable=False),
    Column("created_ns", BigInteger, nullable=False, server_default="0"),
    Column("remote_ip", Text, nullable=False, server_default=""),
    ForeignKeyConstraint(["tenant", "operator"], ["operators.tenant", "operators.name"], ondelete="CASCADE"),
)

INVITATIONS = Table(
    "invitations",
    METADATA,
    Column("sha256", String(64), primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("name", String(64), nullable=False),
    Column("role", String(16), nullable=False),
    Column("created_ns", BigInteger, nullable=False),
    Column("expires_ns", BigInteger, nullable=False),
    UniqueConstraint("tenant", "name"),
)

CHANGES = Table(
    "changes",
    METADATA,
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", String(16), nullable=False),  # device, type, tenant, token, topic
    Column("key", String(160), nullable=False),
)

AUDIT = Table(
    "audit",
    METADATA,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("tenant", String(64), nullable=False),
    Column("time_ns", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("object", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("remote_ip", Text, nullable=False),
    Column("hash", String(64), nullable=False),
    Index("audit_by_object", "tenant", "object"),
    Index("audit_by_actor", "tenant", "actor"),
)

COUNTERS = Table(  # revision; audit (seq and hash of the newest entry); presence (last time its keeper was alive)
    "counters",
    METADATA,
    Column("name", String(32), primary_key=True),
    Column("value", BigInteger, nullable=False),
    Column("text", Text, nullable=False),
)
