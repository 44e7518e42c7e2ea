"""A PostgreSQL server of the tests' own: a cluster in a folder of its own, on a free port, a fresh database for each test."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from itertools import count
from pathlib import Path

import psycopg

from tests.e2e.platform import free_ports
from tests.support.waiting import wait_until

BINARIES = max(
    Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), default=Path("/usr/bin")
)
NOT_ROOT = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
FAST = ("fsync=off", "full_page_writes=off", "synchronous_commit=off", "shared_buffers=16MB", "max_connections=60")


class Cluster:
    """A running server; `database` gives the URL of a new, empty database."""

    def __init__(self) -> None:
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
        settings = [word for each in (*FAST, f"unix_socket_directories={self._folder}") for word in ("-c", each)]
        command = [
            str(BINARIES / "postgres"),
            "-D",
            str(self._folder / "data"),
            "-h",
            "127.0.0.1",
            "-p",
            str(self._port),
        ]
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen([*command, *settings], stdout=log, stderr=log, cwd="/", **NOT_ROOT)
        wait_until(self._answers, 20, "PostgreSQL")

    def database(self) -> str:
        """Make a database and give its SQLAlchemy URL."""
        name = f"registry_{next(self._numbers)}"
        with psycopg.connect(f"{self._server}/postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"{self._server}/{name}".replace("postgresql://", "postgresql+psycopg://")

    def stop(self) -> None:
        """End the server and remove its folder."""
        self._process.send_signal(2)  # fast shutdown: connections are cut
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
