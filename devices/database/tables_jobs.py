"""Tables of long work: jobs, and what goes into and comes out of them in parts."""

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
)

from devices.database.tables import METADATA

JOBS = Table(
    "jobs",
    METADATA,
    Column("id", String(32), primary_key=True),  # begins with the time: sorts by age
    Column("tenant", String(64), nullable=False),
    Column("kind", String(64), nullable=False),
    Column("spec", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("is_cancelled", Boolean, nullable=False),
    Column("done", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    Column("total", BigInteger),
    Column("turn", BigInteger, nullable=False),  # number of the next turn: two hosts cannot both do one
    Column("due_ns", BigInteger, nullable=False),
    Column("cursor", Text, nullable=False),
    Column("result", Text, nullable=False),
    Column("error", Text),
    Column("actor", Text, nullable=False),
    Column("remote_ip", Text, nullable=False),
    Column("created_ns", BigInteger, nullable=False),
    Column("started_ns", BigInteger),
    Column("finished_ns", BigInteger),
    Index("jobs_by_state", "state", "due_ns"),
    Index("jobs_by_tenant", "tenant", "id"),
)

JOB_PARTS = Table(
    "job_parts",
    METADATA,
    Column("job", String(32), nullable=False),
    Column("flow", String(4), nullable=False),  # in, out
    Column("number", BigInteger, nullable=False),
    Column("content", Text, nullable=False),
    Column("created_ns", BigInteger),
    PrimaryKeyConstraint("job", "flow", "number"),
    ForeignKeyConstraint(["job"], ["jobs.id"], ondelete="CASCADE"),
)
