"""Where refused messages wait with their reason, durably, until an operator replays them. Knows no decoder.

One file for all ingestion services and the writer. A message's bytes are kept once, however many of its records or
fields wait; they go when the last of these was replayed. Bounded in all and per device; nothing is dropped.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import apsw

from chassis.sqlite import UNUSABLE, Database
from wire.devices import TENANT
from wire.errors import NotFound, Unavailable

UNREADABLE_BYTES = 4 * 1024  # of a message that cannot be decoded, its head is kept
PACK_FROM_BYTES = 4 * 1024
ENTRY_BYTES = 256  # what a row costs beside the bytes of its message
DEVICE_SHARE = 16  # one device may use this part of the limit, so that it cannot fill it for all others
HEAD_BYTES = 4 * 1024  # of each message on a page: thousands of entries may wait of messages that inflate to megabytes
PACKED_HEAD_BYTES = 16 * 1024  # always holds a head: deflate needs less than two bytes for one
MAX_FREED = 5_000  # entries a transaction marks: longer ones keep the other services waiting

_SCHEMA = (
    (
        "CREATE TABLE messages (id INTEGER PRIMARY KEY, tenant TEXT NOT NULL, device TEXT NOT NULL,"
        " protocol TEXT NOT NULL, transport TEXT NOT NULL, source TEXT NOT NULL, type TEXT, type_version INTEGER, "
        " received_ns INTEGER NOT NULL, raw BLOB, raw_bytes INTEGER NOT NULL, is_packed INTEGER NOT NULL, "
        " cost INTEGER NOT NULL, waiting INTEGER NOT NULL, key TEXT UNIQUE)"
    ),
    (
        "CREATE TABLE entries (id INTEGER PRIMARY KEY AUTOINCREMENT, message INTEGER NOT NULL REFERENCES messages,"
        " tenant TEXT NOT NULL, device TEXT NOT NULL, code TEXT NOT NULL, detail TEXT NOT NULL, record INTEGER,"
        " field TEXT, is_whole INTEGER NOT NULL, replayed_ns INTEGER)"
    ),
    "CREATE INDEX entries_by_device ON entries (device, id)",
    "CREATE INDEX entries_by_code ON entries (code, id)",
    "CREATE INDEX entries_by_message ON entries (message)",
    "CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
    (
        "CREATE TABLE devices (tenant TEXT NOT NULL, device TEXT NOT NULL, waiting INTEGER NOT NULL,"
        " cost INTEGER NOT NULL, PRIMARY KEY (tenant, device)) WITHOUT ROWID"
    ),
)
_SELECT = (
    "SELECT e.id, e.tenant, e.device, m.protocol, m.transport, m.source, m.type, m.type_version, e.code, e.detail,"
    " e.record, e.field, e.is_whole, m.received_ns, e.replayed_ns, substr(m.raw, 1, ?), m.raw_bytes, m.is_packed, m.id"
    " FROM entries e JOIN messages m ON m.id = e.message"
)
_ALL_BYTES = 2**31  # more than a value of SQLite can hold
_IS_OF = "SELECT count(*) FROM entries WHERE id = ? AND tenant = ?"
_ADD_COUNT = "INSERT INTO counters VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value"
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


@dataclass(slots=True, frozen=True)
class Selection:
    """Which entries: None means any."""

    device: str | None = None
    code: str | None = None
    protocol: str | None = None
    state: Literal["waiting", "replayed", "all"] = "waiting"
    tenant: str = TENANT


class Quarantine:
    """The quarantine file. Safe for threads and processes. All methods raise Unavailable when the disk refuses."""

    def __init__(self, path: Path, *, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        with _answering():
            self._database = Database(path, schema=_SCHEMA)

    def add(self, refused: Sequence[Refused]) -> list[Kept]:
        """Keep refused data durably, each message wholly or not at all."""
        with _answering(), self._database.write() as connection:
            return [self._add(connection, *each) for each in refused]

    def undo(self, ids: Sequence[int]) -> None:
        """Take back entries just added, because the request as a whole is answered with "try again"."""
        with _answering(), self._database.write() as connection:
            for id_ in ids:
                self._delete(connection, id_)

    def page(self, selection: Selection, *, before: int | None = None, limit: int = 100) -> list[Entry]:
        """Give entries, newest first, with an id below `before`; of their messages only the heads."""
        where, bindings = _where(selection)
        if before is not None:
            where, bindings = f"{where} AND e.id < ?", [*bindings, before]
        with _answering():
            sql = f"{_SELECT} WHERE {where} ORDER BY e.id DESC LIMIT ?"
            return [_entry(row, HEAD_BYTES) for row in self._database.read(sql, [PACKED_HEAD_BYTES, *bindings, limit])]

    def get(self, id_: int, *, tenant: str = TENANT) -> Entry:
        """Give one entry with all that was kept of its message. Raises NotFound."""
        return self._get(id_, tenant, _ALL_BYTES, 0)

    def head(self, id_: int, *, tenant: str = TENANT) -> Entry:
        """Give one entry with the head of its message. Raises NotFound."""
        return self._get(id_, tenant, PACKED_HEAD_BYTES, HEAD_BYTES)

    def mark_replayed(self, ids: Sequence[int], now_ns: int) -> None:
        """Count entries as no longer waiting; a message's bytes go with the last of its entries."""
        for start in range(0, len(ids), MAX_FREED):
            with _answering(), self._database.write() as connection:
                for id_ in ids[start : start + MAX_FREED]:
                    self._release(connection, id_)
                    connection.execute("UPDATE entries SET replayed_ns = ? WHERE id = ?", (now_ns, id_))

    def discard(self, ids: Sequence[int], *, tenant: str = TENANT) -> int:
        """Delete waiting entries for good, on an operator's word; they count as refused. Give how many there were."""
        discarded = 0
        for start in range(0, len(ids), MAX_FREED):
            with _answering(), self._database.write() as connection:
                part = [id_ for id_ in ids[start : start + MAX_FREED] if _one(connection, _IS_OF, (id_, tenant))]
                deleted = sum(self._delete(connection, id_) for id_ in part)
                connection.execute(_ADD_COUNT, ("refused", deleted))
                discarded += deleted
        return discarded

    def count_refused(self, readings: int) -> None:
        """Add to the number of readings that were refused with a reply and not kept."""
        with _answering(), self._database.write() as connection:
            connection.execute(_ADD_COUNT, ("refused", readings))

    def totals(self) -> dict[str, int]:
        """Give `quarantined` (entries waiting), `refused` and `bytes`."""
        with _answering():
            found = dict(self._database.read("SELECT name, value FROM counters"))
        return {name: int(found.get(name, 0)) for name in ("quarantined", "refused", "bytes")}

    def count_by_code(self, device: str, *, tenant: str = TENANT) -> dict[str, int]:
        """Give how many entries of a device wait, by reason code."""
        sql = "SELECT code, count(*) FROM entries WHERE device = ? AND tenant = ? AND replayed_ns IS NULL GROUP BY code"
        with _answering():
            return {str(code): int(count) for code, count in self._database.read(sql, (device, tenant))}

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _get(self, id_: int, tenant: str, read_bytes: int, head_bytes: int) -> Entry:
        with _answering():
            rows = self._database.read(f"{_SELECT} WHERE e.id = ? AND e.tenant = ?", (read_bytes, id_, tenant))
        if not rows:
            raise NotFound(f"no quarantined entry {id_}")
        return _entry(rows[0], head_bytes)

    def _add(self, connection: apsw.Connection, message: RawMessage, items: Sequence[Item]) -> Kept:
        if message.key is not None and _one(connection, "SELECT id FROM messages WHERE key = ?", (message.key,)):
            return Kept("kept")
        raw, is_packed = _pack(message)
        cost = len(raw) + ENTRY_BYTES * (len(items) + 1)
        whose = (message.tenant, message.device)
        if _one(connection, "SELECT value FROM counters WHERE name = ?", ("bytes",)) + cost > self._limit_bytes:
            return Kept("full")
        used = _one(connection, "SELECT cost FROM devices WHERE tenant = ? AND device = ?", whose)
        was_acknowledged = message.key is not None  # the writer's: it cannot be refused any more
        if not was_acknowledged and used + cost > self._limit_bytes // DEVICE_SHARE:
            return Kept("device_full")
        connection.execute(
            "INSERT INTO messages VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*whose, message.protocol, message.transport, message.source, message.type, message.type_version,
             message.received_ns, raw, len(message.content), is_packed, cost, len(items), message.key),
        )  # fmt: skip
        id_ = connection.last_insert_rowid()
        ids = tuple(_add_item(connection, id_, whose, item) for item in items)
        connection.execute(_ADD_DEVICE, (*whose, len(items), cost))
        connection.executemany(_ADD_COUNT, [("quarantined", len(items)), ("bytes", cost)])
        return Kept("kept", ids)

    def _delete(self, connection: apsw.Connection, id_: int) -> int:
        """Delete a waiting entry, and its message with the last one; give 1, or 0 when it does not wait."""
        self._release(connection, id_)
        sql = "DELETE FROM entries WHERE id = ? AND replayed_ns IS NULL RETURNING message"
        for (message,) in list(connection.execute(sql, (id_,))):
            sql = "DELETE FROM messages WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM entries WHERE message = ?1)"
            connection.execute(sql, (message,))
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
            connection.execute(_ADD_DEVICE, (tenant, device, -1, -freed))
            connection.executemany(_ADD_COUNT, [("quarantined", -1), ("bytes", -freed)])


def _add_item(connection: apsw.Connection, message: int, whose: tuple[str, str], item: Item) -> int:
    connection.execute(
        "INSERT INTO entries VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, NULL)",
        (message, *whose, item.code, item.detail, item.record, item.field, item.is_whole),
    )
    return connection.last_insert_rowid()


def _where(selection: Selection) -> tuple[str, list[Any]]:
    where, bindings = ["e.tenant = ?"], [selection.tenant]
    given = {"e.device": selection.device, "e.code": selection.code, "m.protocol": selection.protocol}
    for column, value in given.items():
        if value is not None:
            where.append(f"{column} = ?")
            bindings.append(value)
    if selection.state != "all":
        where.append(f"e.replayed_ns IS {'NOT ' if selection.state == 'replayed' else ''}NULL")
    return " AND ".join(where), bindings


def _entry(row: tuple[Any, ...], head_bytes: int) -> Entry:
    """Make an entry of a row; of its message the first `head_bytes`, or all (0)."""
    raw, raw_bytes, is_packed, message = row[15:]
    content = zlib.decompressobj().decompress(raw, head_bytes) if raw is not None and is_packed else raw
    columns: tuple[Any, ...] = (*row[:12], bool(row[12]), *row[13:15], content, raw_bytes, message)
    return Entry(*columns)


def _pack(message: RawMessage) -> tuple[bytes, bool]:
    content = message.content if message.is_readable else message.content[:UNREADABLE_BYTES]
    is_packed = len(content) > PACK_FROM_BYTES
    return (zlib.compress(content, 1) if is_packed else content), is_packed


def _one(connection: apsw.Connection, sql: str, bindings: tuple[Any, ...]) -> int:
    row = next(iter(connection.execute(sql, bindings)), None)
    return int(row[0]) if row else 0


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except UNUSABLE as error:
        raise Unavailable(f"the quarantine cannot be used: {error}") from error
