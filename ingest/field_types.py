"""The first accepted type of every field of every device, recorded durably: a field never changes its type."""

from __future__ import annotations

import fcntl
import threading
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from chassis import logs, parking
from chassis.sqlite import DAMAGED, UNUSABLE, Database
from wire import clock
from wire.errors import Unavailable
from wire.points import FieldValue

log = logs.get(__name__)
MAX_CACHED = 50_000  # devices of a fleet; devices of one shape share one dict, so an entry is small
MAX_SHAPES = 4_096
MAX_FIELDS = 1_024  # names one device may use over time: random names must not fill the disk
MAX_MEASUREMENTS = 1_000  # of one device, likewise
EXACT_BELOW = 2**53

NAMES: dict[type, str] = {float: "float", int: "int", bool: "bool", str: "string"}
_KINDS = {name: kind for kind, name in NAMES.items()}
_SCHEMA = (
    (
        "CREATE TABLE field_types (series TEXT NOT NULL, field TEXT NOT NULL, type TEXT NOT NULL,"
        " PRIMARY KEY (series, field)) WITHOUT ROWID"
    ),
)

Types = dict[str, type]
Key = tuple[str, str, str]  # tenant, device, measurement


class Shape:
    """The types of a series, shared by all series that have the same ones."""

    __slots__ = ("floats", "plain", "types")

    def __init__(self, types: Types) -> None:
        self.types = types
        self.plain = {name: kind for name, kind in types.items() if "." not in name}  # a key that is its name
        self.floats = frozenset(name for name, kind in self.plain.items() if kind is float)


_NOTHING = Shape({})


class Conflict(NamedTuple):
    """A field that does not fit."""

    field: str
    code: str
    detail: str


class FieldTypes:
    """Types by series (tenant, device, measurement). Thread-safe; other processes may share the file.

    Use: `fit` each reading, then `save` once, before anything is acknowledged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._database, self._file = _open(path)
        self._lock = threading.Lock()  # guards all below
        self._shapes: OrderedDict[Key, Shape] = OrderedDict()  # series -> types, those of the file
        self._shared: dict[frozenset[tuple[str, type]], Shape] = {}
        self._unsaved: dict[Key, Types] = {}
        self._measurements: dict[tuple[str, str], int] = {}  # of devices that lately began one: tenant, device -> count
        self._is_saving = False

    def shape(self, series: Key) -> Shape:
        """Give the types of a series as far as they are at hand."""
        return self._shapes.get(series, _NOTHING)

    def fit(self, series: Key, fields: dict[str, FieldValue], *, is_typed: bool) -> list[Conflict]:
        """Bring fields to their recorded types in place; those that do not fit are taken out and reported.

        Args:
            series: tenant, device and measurement.
            fields: the fields of one reading.
            is_typed: the protocol tells integers from floats; otherwise a whole number fits an int field.
        """
        shape = self._shapes.get(series)
        if shape is not None:
            types = shape.types
            for name, value in fields.items():
                if types.get(name) is not type(value):
                    break
            else:
                return []  # every message of a fleet but the first few
        with self._lock:
            return self._fit(series, self._load(series), fields, is_typed=is_typed)

    def rehearse(self, series: Key, fields: dict[str, FieldValue], *, is_typed: bool) -> list[Conflict]:
        """Do as `fit` does, but remember nothing: for readings that are only judged, not kept."""
        with self._lock:
            return self._judge(series, self._load(series), fields, is_typed=is_typed)[0]

    def save(self) -> None:
        """Record new types durably.

        Raises:
            Unavailable: the disk refuses; nothing may be acknowledged.
        """
        if not self._unsaved and not self._is_saving:  # what another thread is saving may be ours too: wait for it
            return
        parking.aside(self._save)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _save(self) -> None:
        with self._lock:
            self._is_saving = True
            try:
                self._write_or_begin_anew()
                self._unsaved = {}
            except UNUSABLE as error:
                raise Unavailable(f"field types cannot be written: {error}", code="spool_full") from error
            finally:
                self._is_saving = False

    def _fit(self, series: Key, types: Types, fields: dict[str, FieldValue], *, is_typed: bool) -> list[Conflict]:
        conflicts, fresh = self._judge(series, types, fields, is_typed=is_typed)
        if fresh:
            if not types:
                self._measurements[series[:2]] += 1  # it was counted just now
            self._remember(series, types | fresh)
            self._unsaved.setdefault(series, {}).update(fresh)
        return conflicts

    def _judge(
        self, series: Key, types: Types, fields: dict[str, FieldValue], *, is_typed: bool
    ) -> tuple[list[Conflict], Types]:
        if types or self._count(series) < MAX_MEASUREMENTS:
            return _bring(fields, types, is_typed=is_typed)
        detail = f"more than {MAX_MEASUREMENTS} measurements of one device"
        conflicts = [Conflict(name, "too_many_fields", detail) for name in fields]
        fields.clear()
        return conflicts, {}

    def _count(self, series: Key) -> int:
        """Count the measurements of a device; other processes may have begun a few more."""
        device = series[:2]
        if device not in self._measurements:
            if len(self._measurements) >= MAX_CACHED:
                self._measurements.clear()
            first, last = _column((*device, "")), "\n".join(device) + "\x0b"  # the character behind the line feed
            sql = "SELECT count(DISTINCT series) FROM field_types WHERE series >= ? AND series < ?"
            try:
                ((count,),) = self._database.read(sql, (first, last))
            except DAMAGED:
                self._begin_anew()
                count = 0
            self._measurements[device] = int(count)
        return self._measurements[device]

    def _load(self, series: Key) -> Types:
        shape = self._shapes.get(series)
        if shape is not None:
            return shape.types
        try:
            rows = self._database.read("SELECT field, type FROM field_types WHERE series = ?", (_column(series),))
        except DAMAGED:
            self._begin_anew()
            rows = []
        types = self._unsaved.get(series, {}) | {field: _KINDS[kind] for field, kind in rows}
        self._remember(series, types)
        return types

    def _remember(self, series: Key, types: Types) -> None:
        if len(self._shared) >= MAX_SHAPES:
            self._shared.clear()
        form = frozenset(types.items())
        self._shapes[series] = self._shared.get(form) or self._shared.setdefault(form, Shape(types))
        self._shapes.move_to_end(series)
        if len(self._shapes) > MAX_CACHED:
            self._shapes.popitem(last=False)

    def _write_or_begin_anew(self) -> None:
        try:
            self._write(self._unsaved)
        except DAMAGED:
            self._begin_anew()
            self._write(self._unsaved)

    def _begin_anew(self) -> None:
        """Go on with a new file that holds what memory knows; what it does not know, the store still holds against."""
        self._database.close()
        self._database, self._file = _open(self._path, damaged=self._file)
        self._unsaved = {series: shape.types for series, shape in self._shapes.items()} | self._unsaved

    def _write(self, fresh: dict[Key, Types]) -> None:
        rows = [(_column(series), name, NAMES[kind]) for series, types in fresh.items() for name, kind in types.items()]
        if not rows:
            return
        with self._database.write() as connection:
            connection.executemany("INSERT OR IGNORE INTO field_types VALUES (?, ?, ?)", rows)
        for series in fresh:
            self._shapes.pop(series, None)  # another process may have been first: read what stands in the file


def _open(path: Path, damaged: int = 0) -> tuple[Database, int]:
    """Open the file, and give its inode; a damaged one must not stop ingestion.

    `damaged` is the inode of a file that was found so. One worker at a time: the next one finds the new file in its
    place, and must not set that aside.
    """
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if damaged and path.exists() and path.stat().st_ino == damaged:
            _set_aside(path)
        try:
            database = Database(path, schema=_SCHEMA)
        except DAMAGED:
            _set_aside(path)
            database = Database(path, schema=_SCHEMA)
        return database, path.stat().st_ino


def _set_aside(path: Path) -> None:
    name = f"{path}.damaged-{clock.now_ns()}"
    for suffix in ("-wal", "-shm", ""):
        with suppress(FileNotFoundError):  # it has no such part
            Path(f"{path}{suffix}").rename(f"{name}{suffix}")
    log.error("field_types_set_aside", path=str(path), to=name)


def _column(series: Key) -> str:
    return "\n".join(series)  # the parts hold no line feed


def _bring(fields: dict[str, FieldValue], types: Types, *, is_typed: bool) -> tuple[list[Conflict], Types]:
    """Bring fields to their types in place; give those that do not fit, and the types of new ones."""
    conflicts: list[Conflict] = []
    fresh: Types = {}
    for name, value in list(fields.items()):
        kind = types.get(name)
        if kind is None and len(types) + len(fresh) >= MAX_FIELDS:
            conflicts.append(Conflict(name, "too_many_fields", f"more than {MAX_FIELDS} names of one device"))
            del fields[name]
        elif kind is None:
            fresh[name] = type(value)
        elif kind is not type(value):
            conflicts += _convert(fields, name, kind, is_typed=is_typed)
    return conflicts, fresh


def _convert(fields: dict[str, FieldValue], name: str, kind: type, *, is_typed: bool) -> list[Conflict]:
    value = fields[name]
    if kind is float and type(value) is int:
        fields[name] = float(value)
        return []
    if kind is int and type(value) is float and not is_typed and value.is_integer() and abs(value) < EXACT_BELOW:
        fields[name] = int(value)
        return []
    del fields[name]
    detail = f"{name} is {NAMES[kind]} since its first value, this one is {NAMES[type(value)]}"
    return [Conflict(name, "type_conflict", detail)]
