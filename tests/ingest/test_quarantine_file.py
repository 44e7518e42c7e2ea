"""The quarantine's file: a damaged one is set aside, by one of several processes, and the work goes on in a new one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from ingest import quarantine_file
from ingest.quarantine import Item, Quarantine, RawMessage, Refused, Selection
from ingest.quarantine_file import QuarantineFile, set_aside
from wire.errors import Unavailable

PAGE_BYTES = 4096


def refused(number: int = 0) -> Refused:
    return Refused(RawMessage(f"d{number}", "json", "http", b"x" * 600, number), [Item(0, "bad_time", "no time")])


def opened(path: Path) -> Quarantine:
    return Quarantine(path, limit_bytes=1 << 30)


def damage(path: Path, start: int, size: int = PAGE_BYTES) -> None:
    with path.open("r+b") as file:
        file.seek(start)
        file.write(b"\xa5" * size)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A quarantine of 100 entries, closed."""
    made = opened(tmp_path / "quarantine.db")
    made.add([refused(number) for number in range(100)])
    made.close()
    return tmp_path / "quarantine.db"


@pytest.mark.parametrize("rubbish", [b"not a database" * 1_000, b"SQLite format 3\0" + b"\xff" * 5_000])
def test_damaged_file_is_set_aside_at_start(path, rubbish) -> None:
    path.write_bytes(rubbish)

    made = opened(path)

    assert made.add([refused()])[0].state == "kept"
    assert made.totals()["quarantined"] == 1
    [name] = set_aside(path)
    assert (path.parent / name).read_bytes() == rubbish
    assert quarantine_file.SET_ASIDE._value.get() == 1
    made.close()


def test_damage_found_while_writing_costs_one_answer(path) -> None:
    made = opened(path)
    damage(path, PAGE_BYTES, path.stat().st_size - PAGE_BYTES)  # all but the first page

    with pytest.raises(Unavailable, match="cannot be used"):
        made.add([refused(200)])

    assert made.add([refused(200)])[0].state == "kept"
    assert [entry.device for entry in made.page(Selection())] == ["d200"]
    assert len(set_aside(path)) == 1
    made.close()


def test_reading_alone_sets_nothing_aside(path) -> None:
    made = opened(path)
    damage(path, PAGE_BYTES, path.stat().st_size - PAGE_BYTES)

    with pytest.raises(Unavailable):
        made.page(Selection())

    assert set_aside(path) == []
    made.close()


def test_who_comes_second_follows_to_the_new_file_and_leaves_its_wal_alone(path) -> None:
    first, second = opened(path), opened(path)
    second.totals()
    damage(path, PAGE_BYTES, path.stat().st_size - PAGE_BYTES)
    with pytest.raises(Unavailable):
        first.add([refused(1)])
    first.add([refused(1)])  # is in the WAL of the new file

    assert second.add([refused(2)])[0].state == "kept"

    assert len(set_aside(path)) == 1
    first.close()
    second.close()
    third = opened(path)
    assert [entry.device for entry in third.page(Selection())] == ["d2", "d1"]
    third.close()


def test_two_processes_that_start_on_damage_set_it_aside_once(path) -> None:
    path.write_bytes(b"no database" * 500)
    code = (
        "import sys; from pathlib import Path; from ingest.quarantine import Quarantine; "
        "q = Quarantine(Path(sys.argv[1]), limit_bytes=1 << 30); q.count_refused({'default': 1}); q.close()"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=Path(__file__).parents[2]) for _ in range(4)
    ]

    assert [process.wait(30) for process in started] == [0] * 4

    made = opened(path)
    assert made.totals()["refused"] == 4
    assert len(set_aside(path)) == 1
    made.close()


def test_older_file_gets_its_tenants(tmp_path) -> None:
    old = apsw.Connection(str(tmp_path / "quarantine.db"))
    for step in quarantine_file._SCHEMA[:7]:
        old.execute(step)
    old.execute("INSERT INTO devices VALUES ('default', 'd1', 3, 900), ('default', 'd2', 1, 100)")
    old.execute("PRAGMA user_version = 7")
    old.close()

    file = QuarantineFile(tmp_path / "quarantine.db")

    assert file.read("SELECT * FROM tenants") == [("default", 4, 1000, 0)]
    file.close()


def test_file_that_another_process_began_is_left_alone(path) -> None:
    late = QuarantineFile(path)
    path.rename(path.with_name("moved"))
    opened(path).close()

    late._set_aside(late._inode)  # it found damage in the file it had

    assert path.exists()
    assert set_aside(path) == []
    late.close()
