"""What the writer remembers: places in the spools, counters, what was seen. The only SQL of writer.db.

One transaction a batch, after the store took it: a crash before it writes the same points again, which changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import apsw
import msgspec

from chassis.sqlite import UNUSABLE, Database
from ingest.spool.census import Counted, census
from ingest.spool.reader import Position, oldest_received_ns, pending_of, slot_folders
from ingest.writer.dedupe import WINDOW, DeliveryRow
from ingest.writer.gaps import Boot, BootChange, BootKey, is_outlived
from wire import clock
from wire.errors import Unavailable

FILE = "writer.db"
COUNTERS = ("stored", "duplicates", "store_refused", "damaged")
GAP_COUNTS = ("missing", "devices_with_gaps")
KEPT_BOOTS = 16  # per device: one that restarts at every reading must not fill the disk
BOOT_DAYS = 30  # a boot not heard of for so long is forgotten
CENSUS_TRIES = 3  # the writer goes on and deletes what is being counted

_SCHEMA = (
    ("CREATE TABLE positions (slot TEXT PRIMARY KEY, slot_id TEXT NOT NULL, number INTEGER NOT NULL,"
    " segment INTEGER NOT NULL, offset INTEGER NOT NULL) WITHOUT ROWID"),
    "CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
    ("CREATE TABLE boots (tenant TEXT NOT NULL, device TEXT NOT NULL, boot_id TEXT NOT NULL, ranges BLOB NOT NULL,"
    " seen_ns INTEGER NOT NULL, PRIMARY KEY (tenant, device, boot_id)) WITHOUT ROWID"),
    "CREATE TABLE deliveries (last INTEGER PRIMARY KEY, content BLOB NOT NULL)",
    # What totals need of the gap audit; `ranges` holds all of a boot. Boots from before it settle at the next start.
    "ALTER TABLE boots ADD COLUMN missing INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE boots ADD COLUMN duplicates INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE boots ADD COLUMN is_settled INTEGER NOT NULL DEFAULT 0",
    "CREATE INDEX boots_with_gaps ON boots (tenant, device, missing) WHERE missing > 0",
    ("CREATE TABLE dropped_boots (tenant TEXT NOT NULL, device TEXT NOT NULL, boots INTEGER NOT NULL,"
    " missing INTEGER NOT NULL, duplicates INTEGER NOT NULL, PRIMARY KEY (tenant, device)) WITHOUT ROWID"),
    "ALTER TABLE boots ADD COLUMN born_ns INTEGER NOT NULL DEFAULT 0",
    ("CREATE TABLE tenants (tenant TEXT PRIMARY KEY, stored INTEGER NOT NULL, duplicates INTEGER NOT NULL)"
     " WITHOUT ROWID"),
    # Whose was what came before is not known: an account of a tenant says since when it counts.
    "INSERT INTO counters VALUES ('tenants_since_s', CAST(strftime('%s', 'now') AS INTEGER))",
)  # fmt: skip
_PUT_POSITION = "INSERT OR REPLACE INTO positions VALUES (?, ?, ?, ?, ?)"
_ADD_COUNT = "INSERT INTO counters VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value"
_ADD_TENANT = (
    "INSERT INTO tenants VALUES (?, ?, ?) ON CONFLICT (tenant)"
    " DO UPDATE SET stored = stored + excluded.stored, duplicates = duplicates + excluded.duplicates"
)
_PUT_BOOT = (
    "INSERT INTO boots (tenant, device, boot_id, ranges, missing, duplicates, is_settled, seen_ns, born_ns)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (tenant, device, boot_id) DO UPDATE SET ranges = excluded.ranges,"
    " missing = excluded.missing, duplicates = excluded.duplicates, is_settled = excluded.is_settled,"
    " seen_ns = excluded.seen_ns, born_ns = excluded.born_ns"
)
_OLD_BOOTS = (
    " FROM boots WHERE tenant = ?1 AND device = ?2 AND boot_id IN (SELECT boot_id FROM boots"
    " WHERE tenant = ?1 AND device = ?2 ORDER BY seen_ns DESC LIMIT -1 OFFSET ?3)"
)
_COUNT_OLD_BOOTS = (
    "INSERT INTO dropped_boots SELECT tenant, device, count(*), sum(missing), sum(duplicates)"
    f"{_OLD_BOOTS} GROUP BY tenant, device ON CONFLICT (tenant, device) DO UPDATE SET boots = boots + excluded.boots,"
    " missing = missing + excluded.missing, duplicates = duplicates + excluded.duplicates"
)
_DROP_OLD_BOOTS = f"DELETE{_OLD_BOOTS}"
_READ_BOOTS = "SELECT boot_id, ranges, seen_ns FROM boots WHERE tenant = ? AND device = ? ORDER BY seen_ns DESC"
_GAPS = "SELECT count(DISTINCT tenant || '/' || device), coalesce(sum(missing), 0) FROM boots WHERE missing > 0"
_READ_TENANT = (
    "SELECT coalesce(sum(stored), 0), coalesce(sum(duplicates), 0),"
    " (SELECT value * 1000000000 FROM counters WHERE name = 'tenants_since_s') FROM tenants WHERE tenant = ?"
)
_READ_BIRTHS = "SELECT tenant, device, boot_id, born_ns FROM boots WHERE device IN (SELECT value FROM json_each(?))"
_REVISION = "registry_revision"  # kept beside the counters
_PUT_DELIVERIES = "INSERT OR REPLACE INTO deliveries VALUES (?, ?)"


class TenantCount(NamedTuple):
    """Readings of one tenant; a part of `stored` and `duplicates` of all."""

    stored: int
    duplicates: int


class TenantAccount(NamedTuple):
    """The writer's side of a tenant's ledger, all of one moment.

    `since_ns` is when the writer began to count by tenant, None before it did. `pending` and `oldest_ns` (receipt of
    the oldest of them) are 0 and None when nothing waits; `is_known` tells whether what waits could be counted.
    """

    done: TenantCount
    since_ns: int | None
    missing: int
    devices_with_gaps: int
    pending: int = 0
    oldest_ns: int | None = None
    is_known: bool = True


@dataclass(slots=True)
class Progress:
    """What one batch changes."""

    positions: Mapping[str, Position] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    boots: Sequence[BootChange] = ()
    deliveries: Sequence[DeliveryRow] = ()
    delivery_number: int = 0
    tenants: Mapping[str, TenantCount] = field(default_factory=dict)


class BootAccount(NamedTuple):
    """A boot as it was kept, and when a reading of it was last committed."""

    boot_id: str
    boot: Boot
    seen_ns: int


class DeviceBoots(NamedTuple):
    """All that is known of a device's numbers; `dropped_*` sum up boots beyond the newest KEPT_BOOTS."""

    boots: list[BootAccount]  # the one heard of last first
    dropped_boots: int = 0
    dropped_missing: int = 0
    dropped_duplicates: int = 0


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

    def unsettled_boots(self) -> list[BootKey]:
        """Give the boots with gaps that had their grace when they were kept."""
        return list(self._database.read("SELECT tenant, device, boot_id FROM boots WHERE NOT is_settled"))

    def registry_revision(self) -> int:
        """Give how far the registry was read for devices that are no more; 0: never."""
        rows = self._database.read("SELECT value FROM counters WHERE name = ?", (_REVISION,))
        return int(rows[0][0]) if rows else 0

    def set_registry_revision(self, revision: int) -> None:
        """Keep how far the registry was read. Raises Unavailable when the disk refuses."""
        with _answering(), self._database.write() as connection:
            connection.execute("INSERT OR REPLACE INTO counters VALUES (?, ?)", (_REVISION, revision))

    def numbered_devices(self) -> list[str]:
        """Give all devices of which boots are kept."""
        return [row[0] for row in self._database.read("SELECT DISTINCT device FROM boots")]

    def gaps(self) -> tuple[int, int]:
        """Count the devices with missing numbers, and these numbers."""
        return _gaps(self._database)

    def deliveries(self) -> tuple[list[DeliveryRow], int]:
        """Give the deliveries kept, oldest first, and the number of the last."""
        kept = self._database.read("SELECT last, content FROM deliveries ORDER BY last")
        rows = [row for _, content in kept for row in msgspec.msgpack.decode(content, type=list[DeliveryRow])]
        return rows[-WINDOW:], int(kept[-1][0]) if kept else 0

    def commit(self, progress: Progress) -> None:
        """Keep all of it, or on any error nothing. Raises Unavailable when the disk refuses."""
        with _answering(), self._database.write() as connection:
            connection.executemany(_PUT_POSITION, [(name, *place) for name, place in progress.positions.items()])
            connection.executemany(_ADD_COUNT, [(name, count) for name, count in progress.counts.items() if count])
            connection.executemany(_ADD_TENANT, [(tenant, *count) for tenant, count in progress.tenants.items()])
            _put_boots(connection, progress.boots)
            if progress.delivery_number > self._delivered:
                content = msgspec.msgpack.encode(progress.deliveries)
                connection.execute(_PUT_DELIVERIES, (progress.delivery_number, content))
                connection.execute("DELETE FROM deliveries WHERE last <= ?", (progress.delivery_number - WINDOW,))
        self._delivered = max(self._delivered, progress.delivery_number)

    def forget_boots(self, before_ns: int) -> None:
        """Drop the boots not heard of since. Raises Unavailable when the disk refuses."""
        with _answering(), self._database.write() as connection:
            connection.execute("DELETE FROM boots WHERE seen_ns < ?", (before_ns,))

    def outlived_boots(self, gone: Mapping[str, int]) -> list[BootKey]:
        """Give the boots kept of devices that are no more; `gone` as `gaps.is_outlived` has it."""
        rows = self._database.read(_READ_BIRTHS, (msgspec.json.encode(list(gone)).decode(),))
        return [(tenant, device, boot) for tenant, device, boot, born in rows if is_outlived(born, gone[device])]

    def forget_devices(self, gone: Mapping[str, int]) -> None:
        """Drop the boots of devices that are no more. Raises Unavailable when the disk refuses."""
        outlived = self.outlived_boots(gone)
        with _answering(), self._database.write() as connection:
            connection.executemany("DELETE FROM boots WHERE tenant = ? AND device = ? AND boot_id = ?", outlived)
            connection.executemany("DELETE FROM dropped_boots WHERE device = ?", [(device,) for device in gone])

    def close(self) -> None:
        """Close the file."""
        self._database.close()


def read_counters(data: Path) -> dict[str, float]:
    """Give the writer's side of the ledger, from any process, whether or not the writer runs.

    Returns:
        `stored`, `duplicates`, `store_refused`, `damaged` (readings ever), `pending` (durable, not consumed),
        `lag_s` (age of the oldest pending reading, 0 when there is none), `missing` (numbers of the boots that are
        kept), `devices_with_gaps`.
    """
    with _answering():
        counters, positions = _read_state(data)
    found: dict[str, float] = {name: counters.get(name, 0) for name in (*COUNTERS, *GAP_COUNTS)}
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


def read_tenant(data: Path, counted: Counted, tenant: str) -> TenantAccount:
    """Give the writer's side of a tenant's ledger, from any process. Raises Unavailable when the file cannot be used.

    `counted` is what `census` knows from before.

    Positions and counts are of one commit, and what lies behind these positions is counted: a reading is in exactly
    one of both, whatever the writer does meanwhile and wherever it is killed.
    """
    account, waiting = TenantAccount(TenantCount(0, 0), None, 0, 0), None
    for _ in range(CENSUS_TRIES):
        with _answering():
            account, positions = _read_tenant(data, tenant)
        waiting = census(data / "spool", positions, counted)
        if waiting is not None:
            break
    if waiting is None:
        return account._replace(is_known=False)
    mine = waiting.get(tenant)
    return account if mine is None else account._replace(pending=mine.readings, oldest_ns=mine.oldest_ns)


def _read_tenant(data: Path, tenant: str) -> tuple[TenantAccount, dict[str, Position]]:
    nothing = TenantAccount(TenantCount(0, 0), None, 0, 0)
    if not (data / FILE).exists():
        return nothing, {}
    database = Database(data / FILE, read_only=True)
    try:
        if not _is_current(database):  # the writer has not begun to count by tenant
            return nothing, _read_state(data)[1]
        database.read("BEGIN")
        stored, duplicates, since_ns = database.read(_READ_TENANT, (tenant,))[0]
        devices, missing = database.read(f"{_GAPS} AND tenant = ?", (tenant,))[0]
        done = TenantCount(int(stored), int(duplicates))
        return TenantAccount(done, since_ns, int(missing), int(devices)), _positions(database)
    finally:
        database.close()


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
        if _is_current(database):
            counters["devices_with_gaps"], counters["missing"] = _gaps(database)
        return counters, _positions(database)
    finally:
        database.close()


class BootReader:
    """Reads the numbers of devices again and again, beside the writing thread; its file must exist."""

    def __init__(self, data: Path) -> None:
        self._database = Database(data / FILE, read_only=True)

    def read(self, device: str, tenant: str) -> DeviceBoots:
        """Give the numbers of one device. Raises Unavailable when the file cannot be used."""
        with _answering():
            return _boots_of(self._database, device, tenant)

    def close(self) -> None:
        """Close the file."""
        self._database.close()


def read_boots(data: Path, device: str, tenant: str) -> DeviceBoots:
    """Give the numbers of one device, from any process. Raises Unavailable when the file cannot be used."""
    with _answering():
        if not (data / FILE).exists():
            return DeviceBoots([])
        database = Database(data / FILE, read_only=True)
        try:
            return _boots_of(database, device, tenant) if _is_current(database) else DeviceBoots([])
        finally:
            database.close()


def _boots_of(database: Database, device: str, tenant: str) -> DeviceBoots:
    kept = [BootAccount(name, Boot.from_bytes(content), seen_ns)
            for name, content, seen_ns in database.read(_READ_BOOTS, (tenant, device))]  # fmt: skip
    sql = "SELECT boots, missing, duplicates FROM dropped_boots WHERE tenant = ? AND device = ?"
    dropped = database.read(sql, (tenant, device))
    return DeviceBoots(kept, *dropped[0]) if dropped else DeviceBoots(kept)


def _gaps(database: Database) -> tuple[int, int]:
    devices, missing = database.read(_GAPS)[0]
    return int(devices), int(missing)


def _is_current(database: Database) -> bool:
    """Tell whether the writer has brought the file up to date since it is ours."""
    return int(database.read("PRAGMA user_version")[0][0]) >= len(_SCHEMA)


def _positions(database: Database) -> dict[str, Position]:
    return {row[0]: Position(*row[1:]) for row in database.read("SELECT * FROM positions")}


def _put_boots(connection: apsw.Connection, boots: Sequence[BootChange]) -> None:
    if not boots:
        return
    connection.executemany(_PUT_BOOT, [(*boot.key, boot.content, *boot[3:]) for boot in boots])
    fresh = list({(*boot.key[:2], KEPT_BOOTS) for boot in boots if boot.is_new})
    if fresh:
        connection.executemany(_COUNT_OLD_BOOTS, fresh)
        connection.executemany(_DROP_OLD_BOOTS, fresh)
