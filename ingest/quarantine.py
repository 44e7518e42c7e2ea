"""Where refused messages wait with their reason, durably, until an operator replays them. Knows no decoder.

One file for all ingestion services and the writer. A message's bytes are kept once, however many of its records or
fields wait; they go when the last of these was replayed. Bounded for each tenant and device: what has no room is
answered "later", never dropped. Only age ends what waits, where an installation says so, and that is counted.
"""

from __future__ import annotations

import json
import zlib
from collections import Counter as Counts
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import apsw

from chassis import logs
from chassis.metrics import Counter
from ingest.quarantine_file import QuarantineFile
from wire.devices import TENANT
from wire.errors import NotFound

log = logs.get(__name__)
PRUNED = Counter("headwater_quarantine_pruned", "Entries that went because of their age", ["state"])

UNREADABLE_BYTES = 4 * 1024  # of a message that cannot be decoded, its head is kept
PACK_FROM_BYTES = 4 * 1024
ENTRY_BYTES = 256  # what a row costs beside the bytes of its message
MAX_ENTRIES = 1_000_000
DEVICE_SHARE = 16  # one device may use this part of a limit, so that it cannot fill it for all others
HEAD_BYTES = 4 * 1024  # of each message on a page: thousands of entries may wait of messages that inflate to megabytes
PACKED_HEAD_BYTES = 16 * 1024  # always holds a head: deflate needs less than two bytes for one
MAX_FREED = 5_000  # entries a transaction marks: longer ones keep the other services waiting

_SELECT = (
    "SELECT e.id, e.tenant, e.device, m.protocol, m.transport, m.source, m.type, m.type_version, e.code, e.detail,"
    " e.record, e.field, e.is_whole, m.received_ns, e.replayed_ns, substr(m.raw, 1, ?), m.raw_bytes, m.is_packed, m.id,"
    " m.device"
    " FROM entries e JOIN messages m ON m.id = e.message"
)
_ALL_BYTES = 2**31  # more than a value of SQLite can hold
_IS_OF = "SELECT count(*) FROM entries WHERE id = ? AND tenant = ?"
_DROP_MESSAGE = "DELETE FROM messages WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM entries WHERE message = ?1)"
_ENTRIES_OF = "SELECT id, message FROM entries WHERE device = ? AND tenant = ? LIMIT ?"
_OLD_WAITING = (
    "SELECT e.id, e.tenant FROM messages m JOIN entries e ON e.message = m.id"
    " WHERE m.received_ns < ? AND e.replayed_ns IS NULL ORDER BY m.received_ns LIMIT ?"
)
_OLD_REPLAYED = "SELECT id, message FROM entries WHERE replayed_ns < ? LIMIT ?"
_ADD_COUNT = "INSERT INTO counters VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value"
_ADD_TENANT = (
    "INSERT INTO tenants VALUES (?, ?, ?, ?) ON CONFLICT (tenant) DO UPDATE"
    " SET waiting = waiting + excluded.waiting, cost = cost + excluded.cost, refused = refused + excluded.refused"
)
_ADD_DEVICE = (
    "INSERT INTO devices VALUES (?, ?, ?, ?) ON CONFLICT (tenant, device)"
    " DO UPDATE SET waiting = waiting + excluded.waiting, cost = cost + excluded.cost"
)


@dataclass(slots=True, frozen=True)
class RawMessage:
    """A message as it was received, of which something is refused."""

    device: str
    protocol: str
    transport: str
    content: bytes
    received_ns: int
    source: str = ""  # topic, or content type
    tenant: str = TENANT
    type: str | None = None  # the device type at the time, and its version
    type_version: int | None = None
    is_readable: bool = True  # False: only the head is kept
    key: str | None = None  # a second message with the same key changes nothing (the writer after a crash)


class Item(NamedTuple):
    """One refused record, or one refused field of a record that was accepted without it (`is_whole` False)."""

    record: int | None
    code: str
    detail: str
    field: str | None = None
    is_whole: bool = True
    device: str | None = None  # whose it is, where the message speaks for others; None: its sender's


HELD = "device_held"
WAITS = Item(None, HELD, "the device waits to be accepted; its data is kept and replayed then")


class Refused(NamedTuple):
    """What is refused of one message."""

    message: RawMessage
    items: Sequence[Item]


class Kept(NamedTuple):
    """What became of a Refused: only `kept` may be acknowledged."""

    state: Literal["kept", "full", "device_full"]
    ids: tuple[int, ...] = ()


@dataclass(slots=True, frozen=True)
class Entry:
    """One waiting (or replayed) record or field."""

    id: int
    tenant: str
    device: str
    protocol: str
    transport: str
    source: str
    type: str | None
    type_version: int | None
    code: str
    detail: str
    record: int | None
    field: str | None
    is_whole: bool
    received_ns: int
    replayed_ns: int | None
    raw: bytes | None  # on a page only the head; None: it was replayed and its bytes are gone
    raw_bytes: int  # of the message as received; more than len(raw) when only its head was kept
    message: int
    sender: str  # whose credential it came with: a gateway's messages hold data of other devices


@dataclass(slots=True, frozen=True)
class Selection:
    """Which entries: None means any."""

    device: str | None = None
    code: str | None = None
    protocol: str | None = None
    type: str | None = None
    type_version: int | None = None
    start_ns: int | None = None  # start <= time of arrival < end
    end_ns: int | None = None
    state: Literal["waiting", "replayed", "all"] = "waiting"
    tenant: str = TENANT
    devices: tuple[str, ...] | None = None  # of any of these


class Quarantine:
    """The quarantine file. Safe for threads and processes. All methods raise Unavailable when the disk refuses."""

    def __init__(self, path: Path, *, limit_bytes: int, limit_entries: int = MAX_ENTRIES) -> None:
        """Open the file; the limits hold for each tenant."""
        self._limits = limit_entries, limit_bytes
        self._file = QuarantineFile(path)

    def add(self, refused: Sequence[Refused]) -> list[Kept]:
        """Keep refused data durably, each message wholly or not at all."""
        with self._file.write() as connection:
            return [self._add(connection, *each) for each in refused]

    def undo(self, ids: Sequence[int]) -> None:
        """Take back entries just added, because the request as a whole is answered with "try again"."""
        with self._file.write() as connection:
            for id_ in ids:
                self._delete(connection, id_)

    def page(self, selection: Selection, *, before: int | None = None, limit: int = 100) -> list[Entry]:
        """Give entries, newest first, with an id below `before`; of their messages only the heads."""
        where, bindings = _where(selection)
        if before is not None:
            where, bindings = f"{where} AND e.id < ?", [*bindings, before]
        sql = f"{_SELECT} WHERE {where} ORDER BY e.id DESC LIMIT ?"
        return [_entry(row, HEAD_BYTES) for row in self._file.read(sql, [PACKED_HEAD_BYTES, *bindings, limit])]

    def get(self, id_: int, *, tenant: str = TENANT) -> Entry:
        """Give one entry with all that was kept of its message. Raises NotFound."""
        return self._get(id_, tenant, _ALL_BYTES, 0)

    def head(self, id_: int, *, tenant: str = TENANT) -> Entry:
        """Give one entry with the head of its message. Raises NotFound."""
        return self._get(id_, tenant, PACKED_HEAD_BYTES, HEAD_BYTES)

    def mark_replayed(self, ids: Sequence[int], now_ns: int) -> None:
        """Count entries as no longer waiting; a message's bytes go with the last of its entries."""
        for start in range(0, len(ids), MAX_FREED):
            with self._file.write() as connection:
                for id_ in ids[start : start + MAX_FREED]:
                    self._release(connection, id_)
                    connection.execute("UPDATE entries SET replayed_ns = ? WHERE id = ?", (now_ns, id_))

    def discard(self, ids: Sequence[int], *, tenant: str = TENANT) -> int:
        """Delete waiting entries for good, on an operator's word; they count as refused. Give how many there were."""
        discarded = 0
        for start in range(0, len(ids), MAX_FREED):
            with self._file.write() as connection:
                part = [id_ for id_ in ids[start : start + MAX_FREED] if _one(connection, _IS_OF, (id_, tenant))]
                deleted = sum(self._delete(connection, id_) for id_ in part)
                _count_refused(connection, {tenant: deleted})
                discarded += deleted
        return discarded

    def erase(self, device: str, *, tenant: str = TENANT) -> int:
        """Delete all that is kept of a device; what waited counts as refused. Give how many entries that was."""
        erased = 0
        while True:
            with self._file.write() as connection:
                found = list(connection.execute(_ENTRIES_OF, (device, tenant, MAX_FREED)))
                refused = sum(self._delete(connection, id_) for id_, _ in found)
                _count_refused(connection, {tenant: refused})
                connection.executemany("DELETE FROM entries WHERE id = ?", [(id_,) for id_, _ in found])
                connection.executemany(_DROP_MESSAGE, [(message,) for message in {message for _, message in found}])
            erased += len(found)
            if len(found) < MAX_FREED:
                return erased

    def prune(self, *, waiting_before_ns: int | None, replayed_before_ns: int) -> int:
        """End what waited since before a time (it counts as refused), forget what was replayed before another.

        Give how many waiting entries went. A bounded number goes in one transaction; the rest in the next.
        """
        pruned = 0
        while waiting_before_ns is not None:
            with self._file.write() as connection:
                old = list(connection.execute(_OLD_WAITING, (waiting_before_ns, MAX_FREED)))
                deleted = Counts(tenant for id_, tenant in old if self._delete(connection, id_))
                _count_refused(connection, deleted)
                connection.execute(_ADD_COUNT, ("pruned", deleted.total()))
            pruned += deleted.total()
            if len(old) < MAX_FREED:
                break
        if pruned:
            PRUNED.labels("waiting").inc(pruned)
            log.warning("quarantine_pruned", entries=pruned)
        while self._forget_replayed(replayed_before_ns) == MAX_FREED:
            continue
        return pruned

    def count_refused(self, readings: Mapping[str, int]) -> None:
        """Add to the numbers of readings that were refused with a reply and not kept, by tenant; "": nobody's."""
        with self._file.write() as connection:
            _count_refused(connection, readings)

    def totals(self) -> dict[str, int]:
        """Give `quarantined` (entries waiting), `refused` (of them `pruned`: they waited too long) and `bytes`."""
        found = dict(self._file.read("SELECT name, value FROM counters"))
        return {name: int(found.get(name, 0)) for name in ("quarantined", "refused", "pruned", "bytes")}

    def totals_of(self, tenant: str) -> tuple[int, int]:
        """Give a tenant's entries waiting, and its readings refused."""
        found = self._file.read("SELECT waiting, refused FROM tenants WHERE tenant = ?", (tenant,))
        return (int(found[0][0]), int(found[0][1])) if found else (0, 0)

    def count_by_code(self, device: str, *, tenant: str = TENANT) -> dict[str, int]:
        """Give how many entries of a device wait, by reason code."""
        sql = "SELECT code, count(*) FROM entries WHERE device = ? AND tenant = ? AND replayed_ns IS NULL GROUP BY code"
        return {str(code): int(count) for code, count in self._file.read(sql, (device, tenant))}

    def devices_waiting(self, code: str, limit: int) -> list[tuple[str, str]]:
        """Give tenants and devices of which entries wait for this reason, the longest waiting first."""
        sql = (
            "SELECT tenant, device, min(id) AS first FROM entries WHERE code = ? AND replayed_ns IS NULL"
            " GROUP BY tenant, device ORDER BY first LIMIT ?"
        )
        return [(str(tenant), str(device)) for tenant, device, _ in self._file.read(sql, (code, limit))]

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _forget_replayed(self, before_ns: int) -> int:
        with self._file.write() as connection:
            rows = list(connection.execute(_OLD_REPLAYED, (before_ns, MAX_FREED)))
            connection.executemany("DELETE FROM entries WHERE id = ?", [(id_,) for id_, _ in rows])
            connection.executemany(_DROP_MESSAGE, [(message,) for message in {message for _, message in rows}])
        PRUNED.labels("replayed").inc(len(rows))
        return len(rows)

    def _get(self, id_: int, tenant: str, read_bytes: int, head_bytes: int) -> Entry:
        rows = self._file.read(f"{_SELECT} WHERE e.id = ? AND e.tenant = ?", (read_bytes, id_, tenant))
        if not rows:
            raise NotFound(f"no quarantined entry {id_}")
        return _entry(rows[0], head_bytes)

    def _add(self, connection: apsw.Connection, message: RawMessage, items: Sequence[Item]) -> Kept:
        if message.key is not None and _one(connection, "SELECT id FROM messages WHERE key = ?", (message.key,)):
            return Kept("kept")
        raw, is_packed = _pack(message)
        cost = len(raw) + ENTRY_BYTES * (len(items) + 1)
        whose = (message.tenant, message.device)
        used = _used(connection, "SELECT waiting, cost FROM tenants WHERE tenant = ?", whose[:1])
        if not self._has_room(used, len(items), cost, 1):
            return Kept("full")
        used = _used(connection, "SELECT waiting, cost FROM devices WHERE tenant = ? AND device = ?", whose)
        was_acknowledged = message.key is not None  # the writer's: it cannot be refused any more
        if not was_acknowledged and not self._has_room(used, len(items), cost, DEVICE_SHARE):
            return Kept("device_full")
        connection.execute(
            "INSERT INTO messages VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*whose, message.protocol, message.transport, message.source, message.type, message.type_version,
             message.received_ns, raw, len(message.content), is_packed, cost, len(items), message.key),
        )  # fmt: skip
        id_ = connection.last_insert_rowid()
        ids = tuple(_add_item(connection, id_, whose, item) for item in items)
        _account(connection, whose, len(items), cost)
        return Kept("kept", ids)

    def _has_room(self, used: tuple[int, int], entries: int, cost: int, share: int) -> bool:
        limit_entries, limit_bytes = self._limits
        return used[0] + entries <= limit_entries // share and used[1] + cost <= limit_bytes // share

    def _delete(self, connection: apsw.Connection, id_: int) -> int:
        """Delete a waiting entry, and its message with the last one; give 1, or 0 when it does not wait."""
        self._release(connection, id_)
        sql = "DELETE FROM entries WHERE id = ? AND replayed_ns IS NULL RETURNING message"
        for (message,) in list(connection.execute(sql, (id_,))):
            connection.execute(_DROP_MESSAGE, (message,))
            return 1
        return 0

    def _release(self, connection: apsw.Connection, id_: int) -> None:
        sql = (
            "SELECT m.id, m.tenant, m.device, m.waiting, m.cost FROM entries e JOIN messages m ON m.id = e.message"
            " WHERE e.id = ? AND e.replayed_ns IS NULL"
        )
        for message, tenant, device, waiting, cost in list(connection.execute(sql, (id_,))):
            freed = cost if waiting == 1 else 0
            connection.execute(
                "UPDATE messages SET waiting = waiting - 1, cost = cost - ?, raw = iif(?, NULL, raw) WHERE id = ?",
                (freed, freed > 0, message),
            )
            _account(connection, (tenant, device), -1, -freed)


def _account(connection: apsw.Connection, whose: tuple[str, str], entries: int, cost: int) -> None:
    connection.execute(_ADD_DEVICE, (*whose, entries, cost))
    connection.execute(_ADD_TENANT, (whose[0], entries, cost, 0))
    connection.executemany(_ADD_COUNT, [("quarantined", entries), ("bytes", cost)])


def _count_refused(connection: apsw.Connection, readings: Mapping[str, int]) -> None:
    connection.execute(_ADD_COUNT, ("refused", sum(readings.values())))
    connection.executemany(_ADD_TENANT, [(tenant, 0, 0, count) for tenant, count in readings.items() if tenant])


def _used(connection: apsw.Connection, sql: str, bindings: tuple[str, ...]) -> tuple[int, int]:
    return next(((int(waiting), int(cost)) for waiting, cost in connection.execute(sql, bindings)), (0, 0))


def _add_item(connection: apsw.Connection, message: int, whose: tuple[str, str], item: Item) -> int:
    connection.execute(
        "INSERT INTO entries VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, NULL)",
        (message, whose[0], item.device or whose[1], item.code, item.detail, item.record, item.field, item.is_whole),
    )
    return connection.last_insert_rowid()


def _where(selection: Selection) -> tuple[str, list[Any]]:
    where: list[str] = ["e.tenant = ?"]
    bindings: list[Any] = [selection.tenant]
    given: dict[str, str | int | None] = {
        "e.device = ?": selection.device,
        "e.code = ?": selection.code,
        "m.protocol = ?": selection.protocol,
        "m.type = ?": selection.type,
        "m.type_version = ?": selection.type_version,
        "m.received_ns >= ?": selection.start_ns,
        "m.received_ns < ?": selection.end_ns,
    }
    for condition, value in given.items():
        if value is not None:
            where.append(condition)
            bindings.append(value)
    if selection.devices is not None:
        where.append("e.device IN (SELECT value FROM json_each(?))")
        bindings.append(json.dumps(selection.devices))
    if selection.state != "all":
        where.append(f"e.replayed_ns IS {'NOT ' if selection.state == 'replayed' else ''}NULL")
    return " AND ".join(where), bindings


def _entry(row: tuple[Any, ...], head_bytes: int) -> Entry:
    """Make an entry of a row; of its message the first `head_bytes`, or all (0)."""
    raw, raw_bytes, is_packed, message, sender = row[15:]
    content = zlib.decompressobj().decompress(raw, head_bytes) if raw is not None and is_packed else raw
    columns: tuple[Any, ...] = (*row[:12], bool(row[12]), *row[13:15], content, raw_bytes, message, sender)
    return Entry(*columns)


def _pack(message: RawMessage) -> tuple[bytes, bool]:
    content = message.content if message.is_readable else message.content[:UNREADABLE_BYTES]
    is_packed = len(content) > PACK_FROM_BYTES
    return (zlib.compress(content, 1) if is_packed else content), is_packed


def _one(connection: apsw.Connection, sql: str, bindings: tuple[Any, ...]) -> int:
    row = next(iter(connection.execute(sql, bindings)), None)
    return int(row[0]) if row else 0
