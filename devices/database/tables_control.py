"""Tables of state and control: twins and commands. See `devices.database.tables`."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from devices.database.tables import METADATA, of_device

TWINS = Table(
    "twins",
    METADATA,
    Column("tenant", String(64), nullable=False),
    Column("device", String(64), nullable=False),
    Column("desired", Text, nullable=False),
    Column("desired_version", BigInteger, nullable=False),
    Column("desired_ns", BigInteger, nullable=False),
    Column("reported", Text, nullable=False),
    Column("reported_version", BigInteger, nullable=False),
    Column("reported_ns", BigInteger, nullable=False),
    Column("revision", BigInteger, nullable=False),  # the counter `control` when it changed last
    Column("pending", Boolean, nullable=False),  # the broker does not hold the newest desired part yet
    PrimaryKeyConstraint("tenant", "device"),
    of_device(),
    Index("twins_by_revision", "revision"),
    Index("twins_pending", "pending"),
)

TWIN_HISTORY = Table(
    "twin_history",
    METADATA,
    Column("tenant", String(64), nullable=False),
    Column("device", String(64), nullable=False),
    Column("part", String(16), nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("time_ns", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("replaced", Boolean, nullable=False),
    Column("patch", Text, nullable=False),
    PrimaryKeyConstraint("tenant", "device", "part", "version"),
    of_device(),
    Index("twin_history_by_time", "time_ns"),
)

TWIN_RETAINED = Table(  # what the broker holds: it outlives the device, so that it can be taken away after it
    "twin_retained",
    METADATA,
    Column("device", String(64), nullable=False),
    Column("gateway", String(64), nullable=False),  # on whose topic; empty: on the device's own
    Column("version", BigInteger, nullable=False),
    PrimaryKeyConstraint("device", "gateway"),
)

COMMANDS = Table(
    "commands",
    METADATA,
    Column("id", String(32), primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("device", String(64), nullable=False),
    Column("seq", BigInteger, nullable=False),  # order in the whole installation
    Column("name", String(64), nullable=False),
    Column("params", Text, nullable=False),
    Column("qos", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("active", Boolean, nullable=False),  # it has not ended
    Column("created_ns", BigInteger, nullable=False),
    Column("deadline_ns", BigInteger, nullable=False),
    Column("due_ns", BigInteger, nullable=False),  # when the sender looks at it next
    Column("retry_ns", BigInteger, nullable=False),  # not handed out again before
    Column("tries", Integer, nullable=False),
    Column("max_tries", Integer, nullable=False),
    Column("sent_ns", BigInteger),
    Column("delivered_ns", BigInteger),
    Column("ended_ns", BigInteger),
    Column("idempotency_key", String(128)),
    Column("actor", Text, nullable=False),
    Column("job", String(32)),
    Column("via", String(32)),  # mqtt, http, or the protocol that sent it
    Column("result", Text),
    Column("error", Text),
    Column("revision", BigInteger, nullable=False),  # the counter `control` when it changed last
    Column("form", Text),  # JSON of devices.commands.state.Form: what is to be published
    UniqueConstraint("tenant", "device", "idempotency_key"),
    of_device(),
    Index("commands_by_device", "tenant", "device", "seq"),
    Index("commands_by_time", "tenant", "seq"),
    Index("commands_due", "active", "due_ns"),
    Index("commands_deadline", "active", "deadline_ns"),
    Index("commands_by_revision", "revision"),
)

COMMAND_ROUTES = Table(  # devices that a protocol's service sends to in its own form
    "command_routes",
    METADATA,
    Column("tenant", String(64), nullable=False),
    Column("device", String(64), nullable=False),
    Column("protocol", String(32), nullable=False),
    PrimaryKeyConstraint("tenant", "device"),
    of_device(),
)
