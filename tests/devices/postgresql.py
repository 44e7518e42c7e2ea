"""A PostgreSQL server of the tests' own: a cluster in a folder of its own, on a free port."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from itertools import count
from pathlib import Path

import psycopg

from devices.database.engine import Database
from devices.database.schema import fill, migrate
from tests.e2e.platform import free_ports
from tests.support.tied import tied
from tests.support.waiting import wait_until
from wire.errors import Unavailable

BINARIES = max(
    Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), default=Path("/usr/bin")
)
NOT_ROOT = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
FAST = (
    "fsync=off", "full_page_writes=off", "synchronous_commit=off", "wal_level=minimal", "max_wal_senders=0",
    "autovacuum=off", "jit=off", "shared_buffers=16MB", "max_connections=60",
)  # fmt: skip
# What a table holds leaves with its sequence's numbers. A transaction that a test left open would hold this up for ever.
EMPTY = """
SET lock_timeout = '10s';
DO $$
DECLARE filled text;
BEGIN
    SELECT string_agg(oid::regclass::text, ', ') INTO filled FROM pg_class
    WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname <> 'alembic_version'
        AND pg_relation_size(oid) > 0;
    IF filled IS NOT NULL THEN EXECUTE 'TRUNCATE ' || filled || ' RESTART IDENTITY CASCADE'; END IF;
END $$
"""


class Cluster:
    """A running server; `database` gives the URL of a new, empty database, `registry` of one that is as after a start."""

    def __init__(self, *, is_durable: bool = False) -> None:
        """Start it; unless `is_durable` it takes every short cut, and for figures none."""
        self._folder = Path(tempfile.mkdtemp(prefix="headwater-pg-"))  # below tmp_path another user could not enter
        self._numbers = count(1)
        self._port = free_ports(1)[0]
        if NOT_ROOT:
            shutil.chown(self._folder, "postgres", "postgres")
        user = pwd.getpwuid(self._folder.stat().st_uid).pw_name
        self._server = f"postgresql://{user}@127.0.0.1:{self._port}"
        self._run(
            "initdb", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C", "-D", str(self._folder / "data")
        )
        settings = [
            word
            for each in (*(() if is_durable else FAST), f"unix_socket_directories={self._folder}")
            for word in ("-c", each)
        ]
        command = tied(str(BINARIES / "postgres"), "-D", str(self._folder / "data"))
        command += ["-h", "127.0.0.1", "-p", str(self._port)]
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen([*command, *settings], stdout=log, stderr=log, cwd="/", **NOT_ROOT)
        wait_until(self._answers, 20, "PostgreSQL")
        self._registry: Database | None = None

    def database(self) -> str:
        """Make a database and give its SQLAlchemy URL."""
        name = f"registry_{next(self._numbers)}"
        with psycopg.connect(f"{self._server}/postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"{self._server}/{name}".replace("postgresql://", "postgresql+psycopg://")

    def registry(self) -> str:
        """Give the SQLAlchemy URL of a registry without devices: always the same one, emptied (a new one costs 0.2 s)."""
        if self._registry is None:
            self._registry = Database(self.database(), self._folder)
            migrate(self._registry, self._folder)
        else:
            try:
                _empty(self._registry)
            except Unavailable:  # a test ended all sessions of the server, ours too
                _empty(self._registry)
        return self._registry.engine.url.render_as_string()

    def stop(self) -> None:
        """End the server and remove its folder."""
        if self._registry is not None:
            self._registry.close()
        self._process.send_signal(signal.SIGQUIT)  # at once: nothing is to be kept
        self._process.wait(20)
        shutil.rmtree(self._folder)

    def _answers(self) -> bool:
        try:
            psycopg.connect(f"{self._server}/postgres", connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run([str(BINARIES / program), *arguments], check=True, capture_output=True, cwd="/", **NOT_ROOT)


def _empty(registry: Database) -> None:
    with registry.change_schema() as connection:
        connection.exec_driver_sql(EMPTY)
        fill(connection)
