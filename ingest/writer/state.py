"""What the writer remembers: places in the spools, counters, what was seen. The only SQL of writer.db.

One transaction a batch, after the store took it: a crash before it writes the same points again, which changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import apsw
import msgspec

from chassis.sqlite import UNUSABLE, Database
from ingest.spool.reader import Position, oldest_received_ns, pending_of, slot_folders
from ingest.writer.dedupe import WINDOW, BootChange, BootKey, DeliveryRow
from wire import clock
from wire.errors import Unavailable

FILE = "writer.db"
COUNTERS = ("stored", "duplicates", "store_refused", "damaged")
KEPT_BOOTS = 16  # per device: one that restarts at every reading must not fill the disk
BOOT_DAYS = 30  # a boot not heard of for so long is forgotten

_SCHEMA = (
    ("CREATE TABLE positions (slot TEXT PRIMARY KEY, slot_id TEXT NOT NULL, number INTEGER NOT NULL,"
    " segment INTEGER NOT NULL, offset INTEGER NOT NULL) WITHOUT ROWID"),
    "CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
    ("CREATE TABLE boots (tenant TEXT NOT NULL, device TEXT NOT NULL, boot_id TEXT NOT NULL, ranges BLOB NOT NULL,"
    " seen_ns INTEGER NOT NULL, PRIMARY KEY (tenant, device, boot_id)) WITHOUT ROWID"),
    "CREATE TABLE deliveries (last INTEGER PRIMARY KEY, content BLOB NOT NULL)",
)  # fmt: skip
_PUT_POSITION = "INSERT OR REPLACE INTO positions VALUES (?, ?, ?, ?, ?)"
_ADD_COUNT = "INSERT INTO counters VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value"
_PUT_BOOT = (
    "INSERT INTO boots VALUES (?, ?, ?, ?, ?) ON CONFLICT (tenant, device, boot_id)"
    " DO UPDATE SET ranges = excluded.ranges, seen_ns = excluded.seen_ns"
)
_DROP_OLD_BOOTS = (
    "DELETE FROM boots WHERE tenant = ?1 AND device = ?2 AND boot_id IN (SELECT boot_id FROM boots"
    " WHERE tenant = ?1 AND device = ?2 ORDER BY seen_ns DESC LIMIT -1 OFFSET ?3)"
)
_PUT_DELIVERIES = "INSERT OR REPLACE INTO deliveries VALUES (?, ?)"


@dataclass(slots=True)
class Progress:
    """What one batch changes."""

    positions: Mapping[str, Position] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    boots: Sequence[BootChange] = ()
    deliveries: Sequence[DeliveryRow] = ()
    delivery_number: int = 0


class WriterState:
    """writer.db, open for writing; one process at a time."""

    def __init__(self, data: Path) -> None:
        with _answering():
            self._database = Database(data / FILE, schema=_SCHEMA)
            self._delivered = self.deliveries()[1]

    def positions(self) -> dict[str, Position]:
        """Give how far each slot is consumed."""
        return _positions(self._database)

    def load_boot(self, key: BootKey) -> bytes | None:
        """Give the ranges kept of a boot."""
        sql = "SELECT ranges FROM boots WHERE tenant = ? AND device = ? AND boot_id = ?"
        rows = self._database.read(sql, key)
        return rows[0][0] if rows else None

    def deliveries(self) -> tuple[list[DeliveryRow], int]:
        """Give the deliveries kept, oldest first, and the number of the last."""
        kept = self._database.read("SELECT last, content FROM deliveries ORDER BY last")
        rows = [row for _, content in kept for row in msgspec.msgpack.decode(content, type=list[DeliveryRow])]
        return rows[-WINDOW:], int(kept[-1][0]) if kept else 0

    def commit(self, progress: Progress, now_ns: int) -> None:
        """Keep all of it, or on any error nothing. Raises Unavailable when the disk refuses."""
        with _answering(), self._database.write() as connection:
            connection.executemany(_PUT_POSITION, [(name, *place) for name, place in progress.positions.items()])
            connection.executemany(_ADD_COUNT, [(name, count) for name, count in progress.counts.items() if count])
            _put_boots(connection, progress.boots, now_ns)
            if progress.delivery_number > self._delivered:
                content = msgspec.msgpack.encode(progress.deliveries)
                connection.execute(_PUT_DELIVERIES, (progress.delivery_number, content))
                connection.execute("DELETE FROM deliveries WHERE last <= ?", (progress.delivery_number - WINDOW,))
        self._delivered = max(self._delivered, progress.delivery_number)

    def forget_boots(self, before_ns: int) -> None:
        """Drop the boots not heard of since. Raises Unavailable when the disk refuses."""
        with _answering(), self._database.write() as connection:
            connection.execute("DELETE FROM boots WHERE seen_ns < ?", (before_ns,))

    def close(self) -> None:
        """Close the file."""
        self._database.close()


def read_counters(data: Path) -> dict[str, float]:
    """Give the writer's side of the ledger, from any process, whether or not the writer runs.

    Returns:
        `stored`, `duplicates`, `store_refused`, `damaged` (readings ever), `pending` (durable, not consumed),
        `lag_s` (age of the oldest pending reading, 0 when there is none).
    """
    with _answering():
        counters, positions = _read_state(data)
    found: dict[str, float] = {name: counters.get(name, 0) for name in COUNTERS}
    oldest, pending = None, 0
    for folder in slot_folders(data / "spool"):
        position = positions.get(f"{folder.parent.name}/{folder.name}")
        pending += pending_of(folder, position)
        received_ns = oldest_received_ns(folder, position)
        if received_ns is not None:
            oldest = received_ns if oldest is None else min(oldest, received_ns)
    found["pending"] = pending
    found["lag_s"] = 0.0 if oldest is None else max(0.0, (clock.now_ns() - oldest) / clock.NS_PER_S)
    return found


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except UNUSABLE as error:
        raise Unavailable(f"{FILE} cannot be used: {error}") from error


def _read_state(data: Path) -> tuple[dict[str, int], dict[str, Position]]:
    if not (data / FILE).exists():
        return {}, {}
    database = Database(data / FILE, read_only=True)
    try:
        if not database.read("SELECT name FROM sqlite_schema WHERE name = 'deliveries'"):
            return {}, {}  # its schema is being made right now
        database.read("BEGIN")  # both tables as one commit left them
        counters = dict(database.read("SELECT name, value FROM counters"))
        return counters, _positions(database)
    finally:
        database.close()


def _positions(database: Database) -> dict[str, Position]:
    return {row[0]: Position(*row[1:]) for row in database.read("SELECT * FROM positions")}


def _put_boots(connection: apsw.Connection, boots: Sequence[BootChange], now_ns: int) -> None:
    if not boots:
        return
    connection.executemany(_PUT_BOOT, [(*boot.key, boot.ranges, now_ns) for boot in boots])
    fresh = {(*boot.key[:2], KEPT_BOOTS) for boot in boots if boot.is_new}
    connection.executemany(_DROP_OLD_BOOTS, list(fresh))
