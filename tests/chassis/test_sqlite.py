from __future__ import annotations

import multiprocessing
from pathlib import Path

import apsw
import pytest

from chassis.sqlite import UNUSABLE, Database

SCHEMA = ("CREATE TABLE counts (name TEXT PRIMARY KEY, value INTEGER)",)
ADDED = (*SCHEMA, "ALTER TABLE counts ADD COLUMN note TEXT")


def count_up(path: Path, times: int) -> None:
    database = Database(path, schema=SCHEMA)
    for _ in range(times):
        with database.write() as connection:
            connection.execute("INSERT INTO counts VALUES ('n', 1) ON CONFLICT DO UPDATE SET value = value + 1")
    database.close()


def test_build_has_the_wal_reset_fix() -> None:
    assert tuple(int(part) for part in apsw.sqlite_lib_version().split(".")) >= (3, 51, 3)


def test_processes_write_one_after_another(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=count_up, args=(tmp_path / "a.db", 100)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(30)

    database = Database(tmp_path / "a.db", schema=SCHEMA)
    assert database.read("SELECT value FROM counts") == [(300,)]
    database.close()


def test_an_error_rolls_the_transaction_back(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.db", schema=SCHEMA)

    def fail_after_a_write() -> None:
        with database.write() as connection:
            connection.execute("INSERT INTO counts VALUES ('n', 1)")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_after_a_write()

    assert database.read("SELECT * FROM counts") == []
    database.close()


def test_schema_steps_go_forward_once(tmp_path: Path) -> None:
    Database(tmp_path / "a.db", schema=SCHEMA).close()
    Database(tmp_path / "a.db", schema=ADDED).close()
    database = Database(tmp_path / "a.db", schema=ADDED)

    assert database.read("SELECT name, value, note FROM counts") == []
    assert database.read("PRAGMA user_version") == [(2,)]
    database.close()


def test_reader_sees_writes_and_cannot_write(tmp_path: Path) -> None:
    count_up(tmp_path / "a.db", 1)
    reader = Database(tmp_path / "a.db", read_only=True)

    assert reader.read("SELECT value FROM counts") == [(1,)]
    with pytest.raises(apsw.ReadOnlyError):
        reader.connection.execute("DELETE FROM counts")
    reader.close()


@pytest.mark.parametrize("start", [0, 100])
def test_damaged_file_is_named_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture, start: int) -> None:
    path = tmp_path / "some.db"
    database = Database(path, schema=("CREATE TABLE t (a)",))
    database.close()
    content = path.read_bytes()
    path.write_bytes(content[:start] + b"\xa5" * (len(content) - start))

    with pytest.raises(UNUSABLE):
        Database(path, schema=("CREATE TABLE t (a)",)).read("SELECT a FROM t")

    told = [(each.getMessage(), each.headwater_fields["path"]) for each in caplog.records]
    assert told == [("database_damaged", str(path))]


def test_a_commit_waits_for_the_disk(tmp_path: Path) -> None:
    database = Database(tmp_path / "some.db", schema=SCHEMA)

    assert database.read("PRAGMA synchronous") == [(2,)], "FULL: with less a power cut takes back what was acknowledged"
    database.close()
