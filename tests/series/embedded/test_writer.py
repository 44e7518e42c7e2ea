from __future__ import annotations

import fcntl
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from series.embedded import catalog as catalogs
from series.embedded.days import MAX_OPEN, list_days, path_of
from series.embedded.writer import EmbeddedWriter
from series.port import RangeQuery, Term
from wire.errors import StoreUnavailable
from wire.points import Point

S = 1_000_000_000
DAY = 86_400 * S
T = 20_000 * DAY
ALL = RangeQuery(-(2**63), 2**63, limit=10_000)


def test_late_data_keeps_few_files_open(writer, folder):
    writer.write([Point("d1", "m", T - day * DAY, {"v": 1.0}) for day in range(60)])

    held = {str(fd.resolve()) for fd in Path("/proc/self/fd").iterdir()}
    open_days = [
        path for path in held if path.startswith(str(folder)) and path.endswith(".db") and "catalog" not in path
    ]
    assert len(list_days(folder)) == 60
    assert len(open_days) <= MAX_OPEN


def test_day_of_an_older_release_is_read_and_gets_the_mark_with_its_next_write(writer, reader, folder):
    writer.write([Point("d1", "m", T, {"v": 1.0}, judged_by=3)])
    writer.close()
    with sqlite3.connect(path_of(folder, 20_000)) as connection:
        (table,) = connection.execute("SELECT name FROM sqlite_schema WHERE name GLOB 'm[0-9]*'").fetchone()
        connection.execute(f"ALTER TABLE {table} DROP COLUMN judged")

    before = reader.range(ALL).points
    EmbeddedWriter(folder).write([Point("d1", "m", T + 1, {"v": 2.0}, judged_by=4)])

    assert [(point.fields["v"], point.judged_by) for point in before] == [(1.0, 0)]
    assert [(point.fields["v"], point.judged_by) for point in reader.range(ALL).points] == [(1.0, 0), (2.0, 4)]


def test_lock_of_another_process_is_unavailable_within_the_timeout(writer, folder):
    with (folder / "writer.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(StoreUnavailable, match="another process"):
            writer.write([Point("d1", "m", T, {"v": 1.0})], timeout_s=0.05)

    assert writer.write([Point("d1", "m", T, {"v": 1.0})]).accepted == 1


def test_folder_that_cannot_be_made_is_unavailable(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(StoreUnavailable):
        EmbeddedWriter(tmp_path / "file" / "series")


def test_write_that_fails_half_way_leaves_memory_and_files_agreeing(writer, reader, folder):
    writer.write([Point("d1", "m", T, {"v": 1.0})])
    path_of(folder, 20_001).write_bytes(b"this is no database file, but long enough to be one" * 100)
    batch = [Point("d1", "m", T + 1, {"new": 1.0}), Point("d2", "m", T + DAY, {"v": 2})]
    with pytest.raises(StoreUnavailable):
        writer.write(batch)
    assert "cannot be written" in writer.health()

    path_of(folder, 20_001).unlink()
    assert writer.write(batch).accepted == 2
    assert writer.health() == "ok"
    assert [point.fields for point in reader.range(ALL).points] == [{"v": 1.0}, {"new": 1.0}, {"v": 2}]
    assert len(reader.latest().points) == 3


FULL = """
import resource, sys
from pathlib import Path
from series.embedded.writer import EmbeddedWriter
from wire.errors import StoreUnavailable
from wire.points import Point
writer = EmbeddedWriter(Path(sys.argv[1]))
points = lambda turn: [Point("d1", "m", 20_000 * 86_400 * 10**9 + turn * 1000 + at, {"v": float(at), "s": "x" * 900}) for at in range(100)]
for turn in range(3):
    writer.write(points(turn))
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, resource.RLIM_INFINITY))
failed = False
for turn in range(3, 30):
    try:
        writer.write(points(turn))
    except StoreUnavailable:
        failed = True
        break
assert failed and writer.health() != "ok"
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert writer.write(points(turn)).accepted == 100, "same batch again"
assert writer.health() == "ok"
writer.close()
print(turn)
"""


def test_file_that_cannot_grow_is_unavailable_and_recovers(folder, reader):
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(folder)], capture_output=True, text=True, check=False, cwd=Path.cwd()
    )

    assert done.returncode == 0, done.stderr
    assert len(reader.range(ALL).points) == (int(done.stdout) + 1) * 100


@pytest.mark.parametrize("left", ["nothing", "an older copy"])
def test_catalog_that_is_not_that_of_the_days_is_refused(folder, left):
    first = EmbeddedWriter(folder)
    first.write([Point("d1", "m", T, {"v": 1.0})])
    first.close()
    older = (folder / "catalog.db").read_bytes()
    second = EmbeddedWriter(folder)
    second.write([Point("d2", "m", T, {"v": 2.0})])
    second.close()
    right = (folder / "catalog.db").read_bytes()

    (folder / "catalog.db").unlink()
    if left == "an older copy":
        (folder / "catalog.db").write_bytes(older)

    with pytest.raises(StoreUnavailable, match="put the right one back"):
        EmbeddedWriter(folder)
    (folder / "catalog.db").write_bytes(right)
    again = EmbeddedWriter(folder)
    assert again.write([Point("d3", "m", T, {"v": 3.0})]).accepted == 1
    again.close()


def test_cache_is_bounded_and_forgetting_changes_nothing(folder, reader, monkeypatch):
    monkeypatch.setattr(catalogs, "MAX_CACHED_SERIES", 10)
    monkeypatch.setattr(catalogs, "MAX_CACHED_TYPES", 20)
    writer = EmbeddedWriter(folder)
    points = [Point(f"d{at % 50}", "m", T + at, {f"f{at % 3}": float(at), f"own{at}": at}) for at in range(300)]
    for start in range(0, 300, 30):
        assert not writer.write(points[start : start + 30]).refused
    writer.close()

    assert reader.range(ALL).points == points


def test_fields_beyond_the_limit_are_refused_by_name(writer, monkeypatch):
    monkeypatch.setattr(catalogs, "MAX_FIELDS", 3)
    outcome = writer.write(
        [Point("d1", "m", T, dict.fromkeys("abcde", 1.0)), Point("d2", "m", T, {"a": 1.0, "z": 1.0})]
    )

    assert outcome.accepted == 2
    assert [(refusal.index, refusal.code, refusal.field) for refusal in outcome.refused] == [
        (0, "too_many_fields", "d"),
        (0, "too_many_fields", "e"),
        (1, "too_many_fields", "z"),
    ]


def test_retention_of_another_process_does_not_swallow_later_writes(writer, reader, folder):
    writer.write([Point("d1", "m", T, {"v": 1.0}), Point("d1", "m", T + 9 * DAY, {"v": 1.0})])
    other = EmbeddedWriter(folder, retention_days=1)
    assert sum(each.files for each in other.expire(T + 9 * DAY)) == 1
    other.close()
    writer.write([Point("d1", "m", T, {"v": 2.0})])

    assert [point.fields for point in reader.range(ALL).points] == [{"v": 2.0}, {"v": 1.0}]


def test_closing_a_dropped_day_spares_the_new_file_of_that_day(folder, reader):
    writer, other = EmbeddedWriter(folder), EmbeddedWriter(folder, retention_days=1)
    writer.write([Point("d1", "m", T, {"v": 1.0})])
    list(other.expire(T + 9 * DAY))
    other.write([Point("d1", "m", T, {"v": 2.0})])
    writer.close()

    assert path_of(folder, 20_000).with_name(f"{path_of(folder, 20_000).name}-wal").exists()
    other.write([Point("d1", "m", T + 1, {"v": 3.0})])
    assert [point.fields for point in reader.range(ALL).points] == [{"v": 2.0}, {"v": 3.0}]
    other.close()


def test_expired_day_leaves_no_files_behind(writer, folder):
    writer.write([Point("d1", "m", T, {"v": 1.0}), Point("d1", "m", T + 9 * DAY, {"v": 1.0})])
    list(writer.expire(T + 9 * DAY))

    day = path_of(folder, 20_000).stem
    assert [path.name for path in folder.iterdir() if path.name.startswith(day)] == []


def test_files_are_plain_sqlite_in_wal_mode(folder):
    writer = EmbeddedWriter(folder)
    writer.write([Point("d1", "m", T, {"v": 1.0})])
    writer.close()

    with sqlite3.connect(path_of(folder, 20_000)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_writer_of_a_thousand_devices_stays_small(folder):
    code = (
        "import sys; from pathlib import Path; from series import open_writer; from wire.points import Point\n"
        "w = open_writer('embedded:', Path(sys.argv[1]))\n"
        "for turn in range(20):\n"
        f"    w.write([Point(f'd{{at}}', 'm', {T} + turn * 10**10 + at, {{f'f{{n}}': turn + n / 7 for n in range(10)}}) for at in range(1000)])\n"
        "print([line.split()[1] for line in open('/proc/self/smaps_rollup') if line.startswith('Pss:')][0])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder.parent)], capture_output=True, text=True, check=True, cwd=Path.cwd()
    )

    assert int(done.stdout) < 50 * 1024


def hold(path: Path) -> tuple[int, int]:
    with sqlite3.connect(path) as connection:
        (table,) = connection.execute("SELECT name FROM sqlite_schema WHERE name GLOB 'm[0-9]*'").fetchone()
        rows = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        return rows, connection.execute("SELECT count(*) FROM leaving").fetchone()[0]


def test_rows_of_some_devices_are_removed_from_the_file_and_their_space_is_given_back(folder):
    writer = EmbeddedWriter(folder)
    names = [f"d{number}" for number in range(20)]
    writer.write([Point(name, "m", T + at * 10 * S, {"v": float(at)}) for at in range(2_000) for name in names])
    writer.write([Point("late", "m", T + at * 60 * S, {"v": 1.0}) for at in range(10)])
    writer.close()
    path, writer = path_of(folder, 20_000), EmbeddedWriter(folder)
    before = path.stat().st_size
    for kept in (names[:1], names[1:]):  # one is sought minute by minute, many are scanned for
        removed = list(writer.expire(T + 9 * DAY, [Term("default", name, 2) for name in kept]))
        assert sum(each.rows for each in removed) == 2_000 * len(kept)

    assert hold(path) == (10, 0)
    assert path.stat().st_size < before / 20
    writer.close()


def test_rows_that_a_crash_left_behind_are_removed_by_the_next_run(folder, reader):
    writer, terms = EmbeddedWriter(folder), [Term("default", "d1", 2)]
    writer.write([Point(name, "m", T + at * 3600 * S, {"v": 1.0}) for at in range(24) for name in ("d1", "d2")])
    next(writer.expire(T + 9 * DAY, terms))
    writer.close()
    assert [point.device for point in reader.range(ALL).points] == ["d2"] * 24
    assert hold(path_of(folder, 20_000))[1] == 1

    writer = EmbeddedWriter(folder)
    list(writer.expire(T + 9 * DAY, terms))
    writer.close()

    assert hold(path_of(folder, 20_000)) == (24, 0)


def test_series_that_comes_while_retention_runs_is_left_for_the_next(folder, reader):
    writer = EmbeddedWriter(folder, retention_days=2)
    writer.write([Point("d1", "m", T, {"v": 1.0})])

    def terms():  # what the registry said before it knew the new device
        writer.write([Point("new", "m", T, {"v": 1.0})])
        yield Term("default", "d1", 3)

    list(writer.expire(T + 9 * DAY, terms()))

    assert [point.device for point in reader.range(ALL).points] == ["new"]
    writer.close()


def test_day_that_cannot_be_read_ends_no_other_days_retention(folder, reader):
    writer = EmbeddedWriter(folder)
    writer.write([Point(name, "m", T + day * DAY, {"v": 1.0}) for name in ("d1", "d2") for day in range(3)])
    writer.write([Point("only there", "m", T, {"v": 1.0})])
    writer.close()
    path_of(folder, 20_000).write_bytes(b"this is no database file, but long enough to be one" * 100)
    writer = EmbeddedWriter(folder)
    with pytest.raises(StoreUnavailable):  # what the damaged day holds is not known: no series is given up
        list(writer.expire(T + 9 * DAY, [Term("default", "d1", 7)]))

    later = RangeQuery(T + DAY, 2**63, limit=10)
    assert [(point.device, point.time_ns) for point in reader.range(later).points] == [
        ("d2", T + DAY), ("d1", T + 2 * DAY), ("d2", T + 2 * DAY),
    ]  # fmt: skip
    writer.close()
