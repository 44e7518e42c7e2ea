from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, inspect, text

from devices.database.engine import IDLE_S, Database
from devices.database.schema import MIGRATIONS, SCHEMA_VERSION, create, migrate, upgrade
from tests.support.tiny_loop import TinyLoop
from tests.support.waiting import wait_until
from wire.errors import Unavailable


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_steps_and_tables_make_the_same_schema(tmp_path, kind: str, request: pytest.FixtureRequest) -> None:
    shown = []
    for name, make in (("made", create), ("upgraded", upgrade)):
        url = f"sqlite:///{tmp_path / name}" if kind == "sqlite" else request.getfixturevalue("postgresql").database()
        database = Database(url, tmp_path)
        with database.engine.begin() as connection:
            make(connection)
        assert not migrate(database, tmp_path)
        with database.read() as connection:
            shown.append(describe(connection))
        database.close()

    assert shown[0] == shown[1]
    assert len(shown[0]) > 12


def test_older_registry_keeps_its_people_and_devices(empty_config, tmp_path) -> None:
    database = Database(empty_config.registry, tmp_path)
    alembic = Config()
    alembic.set_main_option("script_location", str(MIGRATIONS))
    alembic.set_main_option("path_separator", "os")
    with database.engine.begin() as connection:
        alembic.attributes["connection"] = connection
        command.upgrade(alembic, "0001")
        for sql in FROM_0001:
            connection.execute(text(sql))

    migrate(database, tmp_path)

    with database.write() as transaction:
        transaction.execute(text("UPDATE devices SET tenant = 'acme' WHERE id = 'd1'"))
    with database.read() as connection:
        assert connection.execute(text("SELECT tenant, value FROM device_tags")).all() == [("acme", "a")]
        assert connection.execute(text("SELECT tenant, id FROM credentials")).all() == [("acme", "c1")]
        assert connection.execute(text("SELECT role FROM operators ORDER BY name")).scalars().all() == [
            "platform", "viewer",
        ]  # fmt: skip
        assert connection.execute(text("SELECT id, state FROM tenants")).all() == [("default", "active")]
    database.close()


FROM_0001 = (
    "INSERT INTO devices VALUES ('default', 'd1', NULL, false, 'active', '{}', 'd1', 1, 1, NULL)",
    "INSERT INTO device_tags VALUES ('default', 'd1', 'site', 'a')",
    "INSERT INTO credentials VALUES ('c1', 'default', 'd1', 'x', 'y', 1, NULL, NULL, NULL)",
    "INSERT INTO operators VALUES ('default', 'admin', 'admin', 'h', 1)",
    "INSERT INTO operators VALUES ('default', 'eve', 'viewer', 'h', 1)",
)


def describe(connection) -> dict[str, object]:
    found = inspect(connection)
    columns = {
        name: [(c["name"], str(c["type"]), c["nullable"], c.get("primary_key")) for c in found.get_columns(name)]
        for name in found.get_table_names()
    }
    more = {
        name: (
            [key | {"name": ""} for key in found.get_foreign_keys(name)],  # SQLite names one only where it was renewed
            sorted(str(key | {"dialect_options": _plain(key)}) for key in found.get_indexes(name)),
            sorted(map(str, found.get_unique_constraints(name))),
        )
        for name in columns
    }
    counters = connection.execute(text("SELECT * FROM counters ORDER BY name")).all()
    version = connection.execute(text("SELECT * FROM alembic_version")).all()
    return {name: (columns[name], more[name]) for name in columns} | {"rows": (counters, version)}


def _plain(index: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in index.get("dialect_options", {}).items()}


def test_fresh_start_does_not_import_alembic(tmp_path) -> None:
    program = (
        "import sys, pathlib\n"
        "from devices.app import create_app\n"
        "from devices.config import DevicesConfig\n"
        "app = create_app(DevicesConfig(data=pathlib.Path(sys.argv[1]), broker=''))\n"
        "app.extensions['headwater.workers'].stop()\n"
        "print([name for name in sys.modules if name.startswith(('alembic', 'sqlalchemy.orm', 'psycopg'))])\n"
    )

    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"


def test_schema_version_is_the_newest_step() -> None:
    steps = sorted(path.name for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))

    assert steps[-1].startswith(SCHEMA_VERSION)


def test_concurrent_starts_migrate_once(tmp_path) -> None:
    databases = [Database("sqlite:", tmp_path) for _ in range(4)]
    done: list[bool] = []
    threads = [threading.Thread(target=lambda d=d: done.append(migrate(d, tmp_path))) for d in databases]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(done) == [False, False, False, True]
    for database in databases:
        database.close()


ON_SQLITE = pytest.mark.parametrize("config", ["sqlite"], indirect=True)


@ON_SQLITE
def test_connections_are_durable_and_hold_foreign_keys(service) -> None:
    database = service.app.extensions["headwater.database"]

    with database.read() as connection:
        pragmas = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        found = {name: connection.execute(text(f"PRAGMA {name}")).scalar() for name in pragmas}
        version = connection.execute(text("SELECT sqlite_version()")).scalar_one()

    assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 5000}
    assert tuple(map(int, version.split("."))) >= (3, 51, 3)


def test_failed_change_leaves_no_trace(service) -> None:
    database = service.app.extensions["headwater.database"]
    service.register("d1")
    before = service.internal("GET", "/internal/changes?since=0").json

    def change_and_fail() -> None:
        with database.write() as transaction:
            transaction.changed("device", ["d1"])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        change_and_fail()

    assert service.internal("GET", "/internal/changes?since=0").json == before


def test_parallel_writers_keep_revisions_and_audit_whole(service) -> None:
    threads = [
        threading.Thread(target=lambda k=k: [service.register(f"d{k}-{n}") for n in range(10)]) for k in range(6)
    ]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    changes = service.internal("GET", "/internal/changes?since=0").json
    assert len(changes["devices"]) == 60
    assert changes["revision"] == 61  # the bootstrap token came first
    verdict = service.admin("GET", "/v1/audit:verify").json
    assert (verdict["ok"], verdict["entries"]) == (True, 61)


@ON_SQLITE
def test_processes_write_in_turn_and_lose_nothing(service, config) -> None:
    argv = [sys.executable, "-c", IMPATIENT, str(config.data)]
    processes = [subprocess.Popen([*argv, name]) for name in ("a", "b")]

    assert [process.wait() for process in processes] == [0, 0]
    assert len(service.internal("GET", "/internal/changes?since=0").json["devices"]) == 48
    verdict = service.admin("GET", "/v1/audit:verify").json
    assert (verdict["ok"], verdict["entries"]) == (True, 49)


IMPATIENT = """
import pathlib, sys, threading
from devices.database import engine
from devices.rows import NewDevice, Who
from devices.store import DeviceStore

engine._PRAGMAS = ("busy_timeout=0", *engine._PRAGMAS[1:])  # whoever meets a lock of SQLite fails at once
store = DeviceStore(engine.Database("sqlite:", pathlib.Path(sys.argv[1])))
failed = []

def register(name):
    try:
        for n in range(12):
            store.add([NewDevice(f"{sys.argv[2]}{name}-{n}", None, {}, False, None)], Who("test"), "device.create")
    except Exception as error:
        failed.append(error)

threads = [threading.Thread(target=register, args=(name,)) for name in "cd"]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
sys.exit(str(failed) if failed else 0)
"""


@pytest.mark.parametrize("config", ["postgresql"], indirect=True)
def test_connections_that_broke_while_idle_are_not_used(config) -> None:
    database = Database(config.registry, config.data)
    ways = (database.read, database.look, database.write)
    _use(*ways)
    broken_s = _break_connections(database)

    wait_until(lambda: time.monotonic() - broken_s > IDLE_S)

    _use(*ways)
    database.close()


@pytest.mark.parametrize("config", ["postgresql"], indirect=True)
def test_connections_that_broke_in_use_are_replaced(config) -> None:
    database = Database(config.registry, config.data)
    ways = (database.read, database.look, database.write)
    _use(*ways)
    _break_connections(database)

    for way in ways:
        with contextlib.suppress(Unavailable):
            _use(way)

    _use(*ways)
    database.close()


def _use(*ways: Callable[[], AbstractContextManager[Any]]) -> None:
    for way in ways:
        with way() as opened:
            opened.execute(text("SELECT 1"))


def _break_connections(database: Database) -> float:
    """End all sessions of this database, as a restart of the server would; give when, on the steady clock."""
    outside = create_engine(database.engine.url)
    others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> "
    with outside.connect() as connection:
        assert connection.execute(text(others + "pg_backend_pid()")).all()
    outside.dispose()
    return time.monotonic()


def test_parallel_patches_lose_nothing(service) -> None:
    service.register("d1")
    keys = [f"k{n}" for n in range(20)]
    threads = [
        threading.Thread(target=service.admin, args=("PATCH", "/v1/devices/d1", {"tags": {key: "v"}})) for key in keys
    ]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert set(service.admin("GET", "/v1/devices/d1").json["tags"]) == set(keys)


@ON_SQLITE
def test_database_away_is_a_503_and_not_ready(service, config) -> None:
    database = service.app.extensions["headwater.database"]
    with database.engine.begin() as connection:
        connection.execute(text("DROP TABLE counters"))

    answer = service.admin("POST", "/v1/devices", {"id": "d1"})

    assert (answer.status_code, answer.json["code"]) == (503, "registry_unavailable")
    assert answer.headers["Retry-After"]
    assert service.nobody("GET", "/readyz").status_code == 503
    assert service.nobody("GET", "/livez").status_code == 200


@pytest.mark.parametrize("url", ["sqlite:///{}/missing/registry.db", "postgresql+psycopg://nobody@127.0.0.1:9/none"])
def test_unreachable_database_is_told_apart(tmp_path, url: str) -> None:
    database = Database(url.format(tmp_path), tmp_path)

    with pytest.raises(Unavailable), database.read() as connection:
        connection.execute(text("SELECT 1"))
    database.close()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_event_loop_is_not_held_up_by_a_question(tmp_path, kind: str, request: pytest.FixtureRequest) -> None:
    url = "sqlite:" if kind == "sqlite" else request.getfixturevalue("postgresql").database()
    database, loop, answers, threads = Database(url, tmp_path), TinyLoop(), [], []

    def count_to(most: int) -> int:
        def question(connection: Any) -> Any:
            threads.append(threading.current_thread().name)
            counting = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :most)"
            return connection.execute(text(f"{counting} SELECT count(*) FROM n"), {"most": most}).scalar_one()

        return database.ask(question)

    for most in (10, 50_000):
        loop.begin(lambda most=most: answers.append(count_to(most)))
        loop.run_until(lambda most=most: most in answers)

    assert threads[:2] == ["MainThread"] * 2  # while a server counts, others run: see test_postgresql.py
    assert [name.startswith("tiny") for name in threads[2:]] == ([True] if kind == "sqlite" else [])
    assert count_to(50_000) == 50_000  # and the connection of the first try is as before
    database.close()
