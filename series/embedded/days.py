"""Day files: one SQLite file per UTC day, one wide table per measurement. Knows no names, only numbers.

`m{table}` has the key (bucket, sid, ts): the minute of the day, the series, the time in ns. The minute comes first so
that arriving points land at the right edge of the tree, the series second so that one device's day is 1,440 short
seeks and not a scan of the fleet (docs/decisions/0003-embedded-store.md). `f{number}` columns join on first use;
`extra` holds what has no column; `judged` the version of the device type that the row passed; `present` lists the
series of the day: rows of others are not read. `leaving` lists series whose rows are being removed.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from chassis.sqlite import Database
from series.embedded.sql import number, select
from series.embedded.values import merge_extra
from wire.clock import NS_PER_S

DAY_NS = 86_400 * NS_PER_S
BUCKET_NS = 60 * NS_PER_S
BUCKETS_PER_DAY = DAY_NS // BUCKET_NS
MAX_OPEN = 4  # late data walks through many days; a file costs descriptors and up to CACHE_KIB
CACHE_KIB = 4_096  # the minute being written, of 1,000 devices at 1/s
CHECKPOINT_PAGES = 4_096  # 16 MB: the pages being written come again with every batch; a tenth cheaper than 1,000
MINUTES = """
    WITH RECURSIVE minutes(n) AS (SELECT :low UNION ALL SELECT n+1 FROM minutes WHERE n < :high) SELECT n FROM minutes
"""  # seeks instead of a scan: the key begins with the minute
SCHEMA = ("CREATE TABLE present (sid INTEGER PRIMARY KEY)", "CREATE TABLE leaving (sid INTEGER PRIMARY KEY)")
HAS_LEAVING = 2  # steps of the schema
SEEK_BELOW = 8  # seeks win while fewer than one in so many series is wanted (bench/store_query.py)
_GONE = "(SELECT sid FROM leaving EXCEPT SELECT sid FROM present)"  # late data brings a series back

_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
_NAME = re.compile(r"(\d{4}-\d\d-\d\d)\.db")


def day_of(time_ns: int) -> int:
    """Number of the UTC day since the epoch, negative before it."""
    return time_ns // DAY_NS


def path_of(folder: Path, day: int) -> Path:
    """File of a day; signed 64-bit ns end in the years 1677 and 2262, so every day has a name."""
    return folder / f"{date.fromordinal(_EPOCH_ORDINAL + day).isoformat()}.db"


def list_days(folder: Path) -> list[int]:
    """Give the days that have a file, oldest first; none when the folder is missing."""
    try:
        names = [entry.name for entry in folder.iterdir()]
    except FileNotFoundError:
        return []
    days = []
    for match in filter(None, map(_NAME.fullmatch, names)):
        with suppress(ValueError):  # 2026-99-99.db is not one of ours
            days.append(date.fromisoformat(match[1]).toordinal() - _EPOCH_ORDINAL)
    return sorted(days)


def list_days_between(folder: Path, start_ns: int, end_ns: int) -> list[int]:
    """Give the days with a file that overlap [start_ns, end_ns), oldest first."""
    return [day for day in list_days(folder) if day_of(start_ns) <= day <= day_of(end_ns - 1)]


def last_sid(folder: Path, day: int) -> int:
    """Give the highest number of a series in a day; 0 when it has none, or cannot be read."""
    with suppress(apsw.Error):
        database = Database(path_of(folder, day), read_only=True)
        try:
            return int(database.read("SELECT max(sid) FROM present")[0][0] or 0)
        finally:
            database.close()
    return 0


def look(folder: Path, day: int) -> tuple[set[int], bool]:
    """Give the series of a day, and whether rows of leaving ones are left, without opening it for writing.

    Raises:
        apsw.Error: it cannot be read, or is gone by now.
    """
    database = Database(path_of(folder, day), read_only=True)
    try:
        present = {sid for (sid,) in database.read("SELECT sid FROM present")}
        has_list = database.read("PRAGMA user_version")[0][0] >= HAS_LEAVING
        return present, has_list and bool(database.read("SELECT 1 FROM leaving LIMIT 1"))
    finally:
        database.close()


def present_among(folder: Path, day: int, sids: Sequence[int]) -> set[int]:
    """Give which of a few series a day has; raises as `look`."""
    database = Database(path_of(folder, day), read_only=True)
    try:
        marks = ",".join("?" * len(sids))
        found = database.read(f"SELECT sid FROM present WHERE sid IN ({marks})", tuple(sids))  # noqa: S608 - marks
        return {sid for (sid,) in found}
    finally:
        database.close()


def compact(folder: Path, day: int) -> None:
    """Give back the space of removed rows; who writes late data to that day meanwhile is told to come again.

    Raises:
        apsw.Error: it is being written, or there is no room for a copy of it.
    """
    database = Database(path_of(folder, day))
    try:
        database.connection.execute("PRAGMA temp_store=FILE").fetchall()  # the copy may be larger than memory
        database.connection.execute("VACUUM")
        database.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        database.close()


def remove(folder: Path, day: int) -> None:
    """Unlink a day, the main file first: what is left of it then reads as no day at all."""
    path = path_of(folder, day)
    for name in (path, f"{path}-wal", f"{path}-shm", f"{path}.lock"):
        Path(name).unlink(missing_ok=True)


def inode_of(path: Path) -> int | None:
    """Identity of the file behind a path, None when there is none."""
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


class Target(NamedTuple):
    """Where rows of one form go: the table, its columns in the order of the row, whether `extra` comes last."""

    table: int
    columns: tuple[int, ...]
    has_extra: bool


class DayFile:
    """A day file open for writing. Not for several threads; the writer's lock sees to that."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.database = Database(path, schema=SCHEMA)
        self.inode = inode_of(path)
        connection = self.database.connection
        connection.execute(f"PRAGMA cache_size=-{CACHE_KIB}").fetchall()
        connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}").fetchall()
        connection.create_scalar_function("merge_extra", merge_extra, 2, deterministic=True)
        self._version = -1
        self._tables: dict[int, set[int]] = {}
        self._unmarked: set[int] = set()  # tables of older releases, which have no `judged` yet
        self._present: set[int] = set()

    def is_stale(self) -> bool:
        """Tell whether the path now leads to another file, or none: retention of another process dropped ours."""
        return inode_of(self.path) != self.inode

    def upsert(self, groups: Iterable[tuple[Target, Sequence[tuple[Any, ...]]]], sids: set[int]) -> None:
        """Write rows (bucket, sid, ts, judged, values...) in one transaction: union of fields, new values winning."""
        with self.database.write() as connection:
            self._refresh(connection)
            for target, rows in groups:
                self._prepare(connection, target)
                connection.executemany(_upsert_sql(target), rows)
            new = sids - self._present
            connection.executemany("INSERT OR IGNORE INTO present VALUES (?)", ((sid,) for sid in new))
            self._present |= new

    def delete(self, sids: set[int]) -> None:
        """Remove all rows of these series."""
        chosen = [sid for (sid,) in self.database.read("SELECT sid FROM present") if sid in sids]
        if not chosen:
            return
        listed = ",".join(map(str, chosen))
        with self.database.write() as connection:
            self._refresh(connection)
            for table in self._tables:
                connection.execute(
                    f"DELETE FROM m{table} WHERE bucket IN ({MINUTES}) AND sid IN ({listed})",  # noqa: S608 - numbers of ours
                    {"low": 0, "high": BUCKETS_PER_DAY - 1},
                )
            connection.execute(f"DELETE FROM present WHERE sid IN ({listed})")  # noqa: S608 - numbers of ours
            self._present -= sids

    def list_present(self) -> set[int]:
        """Series that have rows in this file."""
        return {sid for (sid,) in self.database.read("SELECT sid FROM present")}

    def let_go(self, sids: Sequence[int]) -> None:
        """Hide all rows of these series at once; `sweep` removes them bit by bit."""
        with self.database.write() as connection:
            listed = [(sid,) for sid in sids]
            connection.executemany("INSERT OR IGNORE INTO leaving VALUES (?)", listed)
            connection.executemany("DELETE FROM present WHERE sid=?", listed)
            self._present.difference_update(sids)

    def sweep(self, low: int, high: int) -> int:
        """Remove the rows of leaving series in the minutes low..high, both included; give how many."""
        with self.database.write() as connection:
            self._refresh(connection)
            (leaving, present), *_ = select(connection, "SELECT count(*), (SELECT count(*) FROM present) FROM leaving")
            is_sought = leaving * SEEK_BELOW < present
            minutes = f"IN ({MINUTES})" if is_sought else "BETWEEN :low AND :high"
            sid = "sid" if is_sought else "+sid"  # else SQLite would seek each of them
            before = connection.total_changes()
            for table in self._tables:
                connection.execute(
                    f"DELETE FROM m{table} WHERE bucket {minutes} AND {sid} IN {_GONE}",  # noqa: S608 - numbers of ours
                    {"low": low, "high": high},
                )
            return connection.total_changes() - before

    def forget_leaving(self) -> None:
        """Note that no leaving series has rows any more."""
        with self.database.write() as connection:
            connection.execute("DELETE FROM leaving")

    def close(self) -> None:
        """Close; the last connection folds the WAL into the file, unless the path leads to another one by now."""
        self.database.close()

    def _refresh(self, connection: apsw.Connection) -> None:
        version = number(connection, "PRAGMA data_version")
        if version == self._version:  # it changes by commits of other connections, not by ours
            return
        names = select(connection, "SELECT name FROM sqlite_schema WHERE name GLOB 'm[0-9]*' AND type='table'")
        tables = [int(name[1:]) for (name,) in names]
        self._tables = {table: columns_of(connection, table) for table in tables}
        self._unmarked = {table for table in tables if not is_marked(connection, table)}
        self._present = {sid for (sid,) in select(connection, "SELECT sid FROM present")}
        self._version = version

    def _prepare(self, connection: apsw.Connection, target: Target) -> None:
        columns = self._tables.get(target.table)
        if columns is None:
            connection.execute(
                f"CREATE TABLE m{target.table} (bucket INTEGER NOT NULL, sid INTEGER NOT NULL, ts INTEGER NOT NULL, "
                "extra, judged INTEGER, PRIMARY KEY (bucket, sid, ts)) WITHOUT ROWID",
            )
            columns = self._tables[target.table] = set()
        if target.table in self._unmarked:
            connection.execute(f"ALTER TABLE m{target.table} ADD COLUMN judged INTEGER")
            self._unmarked.discard(target.table)
        for column in target.columns:
            if column not in columns:
                connection.execute(f"ALTER TABLE m{target.table} ADD COLUMN f{column}")
                columns.add(column)


class OpenDays:
    """The few day files that are open for writing, the least recently used closed first. Not thread-safe."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: OrderedDict[int, DayFile] = OrderedDict()

    def get(self, day: int) -> DayFile:
        """Give the file of a day, opened or created."""
        file = self._open.pop(day, None)
        if file is not None and file.is_stale():
            file.close()
            file = None
        if file is None:
            while len(self._open) >= MAX_OPEN:
                self._open.popitem(last=False)[1].close()
            file = DayFile(path_of(self._folder, day))
        self._open[day] = file
        return file

    def drop(self, day: int) -> None:
        """Close and unlink a day."""
        if (file := self._open.pop(day, None)) is not None:
            file.close()
        remove(self._folder, day)

    def close(self) -> None:
        """Close all files; they open again on demand."""
        while self._open:
            self._open.popitem()[1].close()


def columns_of(connection: apsw.Connection, table: int) -> set[int]:
    """Numbers of the field columns that a measurement's table has in this file."""
    names = select(connection, "SELECT name FROM pragma_table_info(?) WHERE name GLOB 'f[0-9]*'", (f"m{table}",))
    return {int(name[1:]) for (name,) in names}


def is_marked(connection: apsw.Connection, table: int) -> bool:
    """Tell whether a measurement's table has the column `judged` in this file; it joined with the types' versions."""
    found = select(connection, "SELECT 1 FROM pragma_table_info(?) WHERE name='judged'", (f"m{table}",))
    return next(iter(found), None) is not None


def _upsert_sql(target: Target) -> str:
    names = [f"f{column}" for column in target.columns]
    updates = [f"{name}=coalesce(excluded.{name},{name})" for name in ("judged", *names)]
    if target.has_extra:
        names.append("extra")
        updates.append("extra=merge_extra(extra,excluded.extra)")
    marks = ",".join("?" * (len(names) + 4))
    return (
        f"INSERT INTO m{target.table} (bucket,sid,ts,judged,{','.join(names)}) VALUES ({marks}) "  # noqa: S608 - numbers of ours
        f"ON CONFLICT (bucket,sid,ts) DO UPDATE SET {','.join(updates)}"
    )
