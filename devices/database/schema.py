"""Bringing the registry's schema up to date at start.

An empty database gets the newest schema at once; Alembic runs the steps of an older one. It is imported only then:
it costs 0.3 s and 8 MB. A test holds that both ways end in the same schema.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, insert, inspect, text

from devices.database import (
    tables_claims,  # noqa: F401 - its table joins METADATA
    tables_control,  # noqa: F401 - the same
    tables_descriptions,  # noqa: F401 - the same
    tables_enrolment,  # noqa: F401 - its tables join METADATA
    tables_finding,  # noqa: F401 - puts its tables into METADATA
    tables_gateways,  # noqa: F401 - its tables join METADATA
    tables_jobs,  # noqa: F401 - declares its tables in METADATA
    tables_presence,  # noqa: F401 - the same
    tables_usage,  # noqa: F401 - the same
)
from devices.database.engine import Database
from devices.database.tables import COUNTERS, METADATA, TENANTS
from wire import clock
from wire.devices import TENANT

SCHEMA_VERSION = "0028"  # the newest of migrations/versions; a test holds it
COUNTER_NAMES = ("revision", "audit", "presence", "control")
MIGRATIONS = Path(__file__).parent / "migrations"
_POSTGRES_LOCK = 0x48454144  # any fixed number: concurrent starts of several hosts wait for each other


def migrate(database: Database, data: Path) -> bool:
    """Make or upgrade the schema, under a lock; tell whether there was anything to do."""
    # The very first connection belongs under the lock too: SQLite does not wait for another that switches to WAL.
    with _alone(data), database.change_schema() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _POSTGRES_LOCK})
        version = _version(connection)
        if version == SCHEMA_VERSION:
            return False
        if version is None:
            create(connection)
        else:
            upgrade(connection)
    return True


def create(connection: Connection) -> None:
    """Make the newest schema in an empty database."""
    METADATA.create_all(connection)
    fill(connection)
    connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"))
    connection.execute(text("INSERT INTO alembic_version VALUES (:version)"), {"version": SCHEMA_VERSION})


def fill(connection: Connection) -> None:
    """Insert the rows that every registry has."""
    connection.execute(insert(COUNTERS), [{"name": name, "value": 0, "text": ""} for name in COUNTER_NAMES])
    home = {"id": TENANT, "title": "", "state": "active", "limits": "{}", "created_ns": clock.now_ns()}
    connection.execute(insert(TENANTS).values(**home))


def upgrade(connection: Connection) -> None:
    """Run the steps that a database of an older version, or an empty one, misses."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


@contextmanager
def _alone(data: Path) -> Iterator[None]:
    with (data / "registry.lock").open("w") as lock_file:
        fcntl.flock(lock_file, fcntl.LOCK_EX)
        yield
