"""The catalog as the writer sees it: series, field types, column numbers, latest values. Holds no points.

Numbers are given out in memory and written by `flush` before the first row that uses them, so a crash never leaves
rows whose numbers mean something else later; sids are never used twice. All of it runs under the writer's lock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from chassis.sqlite import Database
from series.embedded import latest
from series.embedded.plans import MAX_COLUMNS, Plan
from series.embedded.values import Unfit, check_name
from wire.points import FieldValue, PointLike

FILE = "catalog.db"
MAX_TABLES = 200  # measurements with a table of their own; later ones share table 0, all their fields in `extra`
MAX_FIELDS = 10_000  # of one measurement: a device that makes up names must not fill the catalog
MAX_CACHED_SERIES = 60_000  # about 1.5 KB each; a fleet beyond it reads its series anew with every batch
MAX_CACHED_MEASUREMENTS = 1_000
MAX_CACHED_PLANS = 200  # of one shape
MAX_CACHED_TYPES = 50_000  # in all shapes of one measurement: one that grows field by field leaves many behind
CACHE_KIB = 2_048
SCHEMA = (
    """CREATE TABLE measurements (
        id INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT NOT NULL, name TEXT NOT NULL, UNIQUE (tenant, name)
    )""",
    """CREATE TABLE columns (
        measurement INTEGER NOT NULL, field TEXT NOT NULL, number INTEGER NOT NULL, PRIMARY KEY (measurement, field)
    ) WITHOUT ROWID""",
    """CREATE TABLE series (
        sid INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT NOT NULL, device TEXT NOT NULL, measurement TEXT NOT NULL,
        tags TEXT NOT NULL, measurement_id INTEGER NOT NULL, types BLOB NOT NULL
    )""",
    "CREATE UNIQUE INDEX series_key ON series (tenant, device, measurement, tags)",
    "CREATE TABLE latest (sid INTEGER PRIMARY KEY, groups BLOB NOT NULL)",
)

Key = tuple[str, str, str, str]  # tenant, device, measurement, tags as canonical JSON
_types_decoder = msgspec.msgpack.Decoder(dict[int, int])


def table_of(measurement_id: int) -> int:
    """Number of the table that holds a measurement."""
    return measurement_id if measurement_id <= MAX_TABLES else 0


def columns_of(measurement_id: int) -> int:
    """How many fields of a measurement may have a column of their own."""
    return MAX_COLUMNS if measurement_id <= MAX_TABLES else 0


def encode_tags(tags: dict[str, str]) -> str:
    """Write tags as canonical JSON: sorted keys, no blanks, every character itself; no tags is "", which sorts first.

    Raises:
        Unfit: a tag is no Unicode text.
    """
    if not tags:
        return ""
    try:
        return msgspec.json.encode(tags, order="sorted").decode()
    except UnicodeEncodeError:
        raise Unfit("bad_name", "a tag is not Unicode text: it holds half a surrogate pair") from None


def decode_types(packed: bytes) -> dict[int, int]:
    """Column number -> type code, of one series."""
    return _types_decoder.decode(packed)


@dataclass(slots=True, eq=False)
class Shape:
    """The field types of a series, shared by all series that have the same ones."""

    measurement: Measurement
    types: dict[str, int]
    plans: dict[tuple[str, ...], Plan] = field(default_factory=dict)

    def plan(self, names: tuple[str, ...]) -> Plan:
        """Give how points with exactly these fields, in this order, become rows."""
        known = self.plans.get(names)
        if known is None:
            if len(self.plans) >= MAX_CACHED_PLANS:
                self.plans.clear()
            home = self.measurement
            numbers = [home.numbers[name] for name in names]
            known = Plan(names, [self.types[name] for name in names], numbers, table_of(home.id), columns_of(home.id))
            self.plans[names] = known
        return known


@dataclass(slots=True, eq=False)
class Measurement:
    """A measurement of a tenant: its number, the numbers of its fields, and the shapes seen."""

    id: int
    numbers: dict[str, int]
    shapes: dict[bytes, Shape] = field(default_factory=dict)
    held: int = 0  # field types in all shapes

    def shape(self, types: dict[str, int]) -> Shape:
        """Give the one shape with these types."""
        packed = self.pack(types)
        known = self.shapes.get(packed)
        if known is None:
            self.held += len(types)
            if self.held > MAX_CACHED_TYPES:
                self.shapes.clear()
                self.held = len(types)
            known = self.shapes[packed] = Shape(self, types)
        return known

    def pack(self, types: dict[str, int]) -> bytes:
        """Pack field types under the fields' numbers; equal types give equal bytes."""
        return msgspec.msgpack.encode(dict(sorted((self.numbers[name], code) for name, code in types.items())))


@dataclass(slots=True, eq=False)
class Series:
    """A series in memory; sid 0 until its first accepted point."""

    key: Key
    shape: Shape
    sid: int = 0
    latest: list[latest.Group] | None = None  # None: not read from the file yet


class Catalog:
    """Reads and extends `catalog.db`. For one thread at a time, under the lock between processes."""

    def __init__(self, folder: Path) -> None:
        self.database = Database(folder / FILE, schema=SCHEMA)
        self.database.connection.execute(f"PRAGMA cache_size=-{CACHE_KIB}").fetchall()
        self._version = -1
        self.forget()

    def forget(self) -> None:
        """Drop all that is known in memory: another process wrote, or a write of ours failed half way."""
        self._series: dict[Key, Series] = {}
        self._measurements: dict[tuple[str, str], Measurement] = {}
        self._next_sid = self._next_measurement = 0
        self._new: list[tuple[str, tuple[Any, ...]]] = []
        self._dirty: dict[int, Series] = {}

    def refresh(self) -> None:
        """Before a batch: forget what another process may have changed, and keep memory bounded."""
        version = self.database.read("PRAGMA data_version")[0][0]
        full = len(self._series) > MAX_CACHED_SERIES or len(self._measurements) > MAX_CACHED_MEASUREMENTS
        if version != self._version or full:
            self.forget()
            self._version = version
        if not self._next_sid:
            given = dict(self.database.read("SELECT name, seq FROM sqlite_sequence"))
            self._next_sid = int(given.get("series", 0)) + 1
            self._next_measurement = int(given.get("measurements", 0)) + 1

    def last_sid(self) -> int:
        """Give the highest number that a series ever had here."""
        return int(dict(self.database.read("SELECT name, seq FROM sqlite_sequence")).get("series", 0))

    @property
    def known(self) -> Mapping[Key, Series]:
        """Series at hand: all that were written lately."""
        return self._series

    def find(self, point: PointLike) -> Series:
        """Give the series of a point; a new one stays outside the catalog until `extend`.

        Raises:
            Unfit: one of its names is no Unicode text.
        """
        tags = encode_tags(point.tags) if point.tags else ""
        key = (point.tenant, point.device, point.measurement, tags)
        return self._series.get(key) or self._load(key)

    def extend(self, series: Series, types: dict[str, int]) -> None:
        """Add fields to a series, which thereby joins the catalog; `room` tells how many names may be new."""
        home = series.shape.measurement
        if not home.id:
            self._register(home, series.key)
        for name in types:
            if name not in home.numbers:
                self._number(home, name)
        if not series.sid:
            series.sid, self._next_sid = self._next_sid, self._next_sid + 1
            self._series[series.key] = series
            series.latest = []
        series.shape = home.shape(series.shape.types | types)
        self._dirty[series.sid] = series

    def room(self, series: Series) -> int:
        """How many fields its measurement may still get."""
        return max(0, MAX_FIELDS - len(series.shape.measurement.numbers))

    def flush(self) -> None:
        """Make new numbers and types durable; must come before the rows that use them."""
        if not self._new and not self._dirty:
            return
        rows = [
            (one.sid, *one.key, one.shape.measurement.id, one.shape.measurement.pack(one.shape.types))
            for one in self._dirty.values()
        ]
        with self.database.write() as connection:
            for sql, bindings in self._new:
                connection.execute(sql, bindings)
            connection.executemany(
                "INSERT INTO series (sid, tenant, device, measurement, tags, measurement_id, types) "
                "VALUES (?,?,?,?,?,?,?) ON CONFLICT (sid) DO UPDATE SET types=excluded.types",
                rows,
            )
        self._new, self._dirty = [], {}

    def move_latest(self, moves: list[tuple[Series, int, dict[str, FieldValue]]]) -> None:
        """Set the newest values, given in the order of the batch; older ones change nothing."""
        changed: dict[int, Series] = {}
        for series, time_ns, fields in moves:
            groups = self._latest_of(series)
            moved = latest.move(groups, time_ns, fields)
            if moved is not groups:
                series.latest = moved
                changed[series.sid] = series
        if not changed:
            return
        with self.database.write() as connection:
            connection.executemany(
                "INSERT INTO latest VALUES (?,?) ON CONFLICT (sid) DO UPDATE SET groups=excluded.groups",
                [(sid, latest.pack(one.latest or [])) for sid, one in changed.items()],
            )

    def sids_of(self, device: str, tenant: str) -> set[int]:
        """Series of a device."""
        rows = self.database.read("SELECT sid FROM series WHERE tenant=? AND device=?", (tenant, device))
        return {sid for (sid,) in rows}

    def drop(self, sids: set[int]) -> None:
        """Remove series, their types and latest values."""
        with self.database.write() as connection:
            connection.executemany("DELETE FROM series WHERE sid=?", ((sid,) for sid in sids))
            connection.executemany("DELETE FROM latest WHERE sid=?", ((sid,) for sid in sids))
        self.forget()

    def list_sids(self) -> set[int]:
        """All series."""
        return {sid for (sid,) in self.database.read("SELECT sid FROM series")}

    def expire_latest(self, before_ns: Callable[[int], int | None], after: int, limit: int) -> int | None:
        """Drop latest values older than `before_ns` of their series, of `limit` series above `after`.

        Gives the last of them, None at the end.
        """
        rows = self.database.read(
            "SELECT sid, tenant, device, measurement, tags, groups FROM latest JOIN series USING (sid) "
            "WHERE sid > ? ORDER BY sid LIMIT ?",
            (after, limit),
        )
        changes = []
        for sid, tenant, device, measurement, tags, packed in rows:
            first_ns = before_ns(sid)
            groups = latest.unpack(packed)
            left = [group for group in groups if first_ns is None or group[0] >= first_ns]
            if len(left) != len(groups):
                changes.append((latest.pack(left), sid))
                self._series.pop((tenant, device, measurement, tags), None)
        if changes:
            with self.database.write() as connection:
                connection.executemany("UPDATE latest SET groups=? WHERE sid=?", changes)
        return rows[-1][0] if len(rows) == limit else None

    def close(self) -> None:
        """Close the file."""
        self.database.close()

    def _load(self, key: Key) -> Series:
        for text, what in zip(key[:3], ("tenant", "device", "measurement"), strict=True):
            check_name(text, f"the {what}'s name")
        home = self._measurement(key[0], key[2])
        row = self.database.read(
            "SELECT sid, types FROM series WHERE tenant=? AND device=? AND measurement=? AND tags=?",
            key,
        )
        if not row:
            return Series(key, Shape(home, {}))
        sid, packed = row[0]
        shape = home.shapes.get(packed)
        if shape is None:
            names = {number: name for name, number in home.numbers.items()}
            shape = home.shape({names[number]: code for number, code in decode_types(packed).items()})
        series = self._series[key] = Series(key, shape, sid)
        return series

    def _measurement(self, tenant: str, name: str) -> Measurement:
        home = self._measurements.get((tenant, name))
        if home is None:
            row = self.database.read("SELECT id FROM measurements WHERE tenant=? AND name=?", (tenant, name))
            number = row[0][0] if row else 0
            fields = self.database.read("SELECT field, number FROM columns WHERE measurement=?", (number,))
            home = self._measurements[tenant, name] = Measurement(number, dict(fields))
        return home

    def _register(self, home: Measurement, key: Key) -> None:
        home.id, self._next_measurement = self._next_measurement, self._next_measurement + 1
        self._new.append(("INSERT INTO measurements VALUES (?,?,?)", (home.id, key[0], key[2])))

    def _number(self, home: Measurement, name: str) -> None:
        number = home.numbers[name] = len(home.numbers)
        self._new.append(("INSERT INTO columns VALUES (?,?,?)", (home.id, name, number)))

    def _latest_of(self, series: Series) -> list[latest.Group]:
        if series.latest is None:
            row = self.database.read("SELECT groups FROM latest WHERE sid=?", (series.sid,))
            series.latest = latest.unpack(row[0][0]) if row else []
        return series.latest
