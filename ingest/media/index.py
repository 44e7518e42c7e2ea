"""Which blobs there are: whose, of when, what they weigh; and which files nobody needs any more. The only SQL of media.

A blob's file is noted in `arriving` before it is put in place and leaves that list when a device has it, so a file that
nobody has is always known here: in `arriving` for too long, or in `gone`. Nothing has to look through the files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from chassis.sqlite import UNUSABLE, Database
from ingest.media.turns import Turns
from wire.errors import NotFound, TooManyRequests, Unavailable
from wire.media import Media, content_path

FILE = "media.db"
FULL_RETRY_S = 600
_AGAIN_NS = 600 * 10**9  # how long a message that the broker sends again is known
_SELECT = "SELECT id, tenant, device, channel, time_ns, received_ns, sha256, size, type, width, height FROM items WHERE"
_PLACE = "tenant = ? AND device = ? AND channel = ? AND time_ns = ?"
_AGAIN = (
    "tenant = ? AND device = ? AND channel = ? AND sha256 = ? AND message = ? AND received_ns > ?"
    " ORDER BY received_ns DESC LIMIT 1"
)
_INSERT = "INSERT INTO items VALUES (?,?,?,?,?,?,?,?,?,?,?,?)"
_WANTED = "SELECT 1 FROM items WHERE sha256 = ?1 UNION ALL SELECT 1 FROM arriving WHERE sha256 = ?1 LIMIT 1"
_OLDEST = "SELECT id, size, time_ns FROM items WHERE tenant = ? AND device = ? ORDER BY time_ns, id LIMIT ?"
_GIVE_UP = "INSERT OR IGNORE INTO gone SELECT sha256 FROM arriving WHERE"
_HELD = "SELECT bytes FROM held WHERE tenant = ? AND device = ?"
_SCHEMA = (
    (
        "CREATE TABLE items (id INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT NOT NULL, device TEXT NOT NULL,"
        " channel TEXT NOT NULL, time_ns INTEGER NOT NULL, received_ns INTEGER NOT NULL, sha256 TEXT NOT NULL,"
        " size INTEGER NOT NULL, type TEXT NOT NULL, width INTEGER, height INTEGER, message TEXT NOT NULL,"
        " UNIQUE (tenant, device, channel, time_ns))"
    ),
    "CREATE INDEX items_by_content ON items (sha256)",
    "CREATE INDEX items_by_time ON items (tenant, time_ns, id)",
    "CREATE INDEX items_by_device ON items (tenant, device, time_ns, id)",
    "CREATE TABLE arriving (id INTEGER PRIMARY KEY AUTOINCREMENT, sha256 TEXT NOT NULL, since_ns INTEGER NOT NULL)",
    "CREATE TABLE gone (sha256 TEXT PRIMARY KEY) WITHOUT ROWID",
    (
        "CREATE TABLE held (tenant TEXT, device TEXT, items INTEGER NOT NULL, bytes INTEGER NOT NULL,"
        " PRIMARY KEY (tenant, device)) WITHOUT ROWID"
    ),
    (
        "CREATE TRIGGER item_added AFTER INSERT ON items BEGIN"
        " INSERT INTO held VALUES (new.tenant, new.device, 1, new.size)"
        " ON CONFLICT DO UPDATE SET items = items + 1, bytes = bytes + excluded.bytes; END"
    ),
    (
        "CREATE TRIGGER item_removed AFTER DELETE ON items BEGIN"
        " UPDATE held SET items = items - 1, bytes = bytes - old.size"
        " WHERE tenant = old.tenant AND device = old.device;"
        " DELETE FROM held WHERE tenant = old.tenant AND device = old.device AND items = 0;"
        " INSERT OR IGNORE INTO gone VALUES (old.sha256); END"
    ),
)


class Item(NamedTuple):
    """A blob that a device has."""

    id: int
    tenant: str
    device: str
    channel: str
    time_ns: int
    received_ns: int
    sha256: str
    size: int
    type: str
    width: int | None
    height: int | None

    def shown(self) -> Media:
        """Give it as operators see it."""
        path = content_path(self.id)
        thumbnail = path.replace("/content", "/thumbnail") if self.width else None
        return Media(
            id=self.id, device=self.device, channel=self.channel, time=self.time_ns, received=self.received_ns,
            size=self.size, sha256=self.sha256, type=self.type, width=self.width, height=self.height,
            path=path, thumbnail=thumbnail,
        )  # fmt: skip


class Room(NamedTuple):
    """How many bytes a device, and all of its tenant, may keep."""

    device_bytes: int
    tenant_bytes: int


class Filter(NamedTuple):
    """Which items: start <= time < end."""

    tenant: str
    device: str | None = None
    channel: str | None = None
    start_ns: int | None = None
    end_ns: int | None = None


class Holding(NamedTuple):
    """What is kept of a device."""

    tenant: str
    device: str
    items: int
    bytes: int


class Index:
    """The list of all blobs. Thread-safe, also among processes."""

    def __init__(self, folder: Path) -> None:
        self._database = Database(folder / FILE, schema=_SCHEMA)
        self.turns = Turns(folder)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    # -- what comes

    def demand_room(self, whose: tuple[str, str], size: int, room: Room) -> None:
        """Refuse what would be more than may be kept.

        Raises:
            TooManyRequests: over the limit of the device, or of its tenant.
        """
        with _usable():
            _demand_room(self._database.read, whose, size, room)

    def announce(self, sha256: str, now_ns: int) -> int:
        """Note that a blob is about to be put in place; give the note's number for `add`."""
        with _usable(), self._database.write() as connection:
            connection.execute("INSERT INTO arriving (sha256, since_ns) VALUES (?, ?)", (sha256, now_ns))
            return int(connection.last_insert_rowid())

    def give_up(self, arriving: int) -> None:
        """Let what was announced be collected at once: nobody may have it."""
        with _usable(), self._database.write() as connection:
            connection.execute(f"{_GIVE_UP} id = ?", (arriving,))
            connection.execute("DELETE FROM arriving WHERE id = ?", (arriving,))

    def find_same(self, item: Item) -> Item | None:
        """Find what a device has already: this content at this time of this channel."""
        same = (item.tenant, item.device, item.channel, item.time_ns, item.sha256, item.type)
        with _usable():
            rows = self._database.read(f"{_SELECT} {_PLACE} AND sha256 = ? AND type = ?", same)
        return Item(*rows[0]) if rows else None

    def find_again(self, item: Item, message: str) -> Item | None:
        """Find what became of a message when it came first: the broker says that it sends it again."""
        sent = (item.tenant, item.device, item.channel, item.sha256, message, item.received_ns - _AGAIN_NS)
        with _usable():
            rows = self._database.read(f"{_SELECT} {_AGAIN}", sent)
        return Item(*rows[0]) if rows else None

    def add(self, item: Item, message: str, arriving: int, room: Room) -> Item:
        """Let a device have a blob that is in place; of one time of a channel the last holds, under the first's number.

        Raises:
            TooManyRequests: over the limit of the device, or of its tenant.
        """
        place = (item.tenant, item.device, item.channel, item.time_ns)
        with _usable(), self._database.write() as connection:
            found = list(connection.execute(f"{_SELECT} {_PLACE}", place))
            before = Item(*found[0]) if found else None
            if before is None or before.sha256 != item.sha256:
                _demand_room(connection.execute, place[:2], item.size - (before.size if before else 0), room)
            if before is not None:
                connection.execute("DELETE FROM items WHERE id = ?", (before.id,))
                item = item._replace(id=before.id)
            connection.execute(_INSERT, (item.id or None, *item[1:], message))
            kept = item._replace(id=item.id or int(connection.last_insert_rowid()))
            connection.execute("DELETE FROM arriving WHERE id = ?", (arriving,))
        return kept

    # -- what is there

    def get(self, tenant: str, media_id: int) -> Item:
        """Give one. Raises NotFound: the tenant has none of that number."""
        with _usable():
            rows = self._database.read(f"{_SELECT} id = ? AND tenant = ?", (media_id, tenant))
        if not rows:
            raise NotFound(f"no media {media_id}", code="media_not_found")
        return Item(*rows[0])

    def find(self, wanted: Filter, limit: int, before: tuple[int, int] | None = None) -> list[Item]:
        """Give some, newest first; `before`: time and number of the last of the page before."""
        clauses, values = ["tenant = ?"], [wanted.tenant, *(part for part in before or ())]
        clauses += ["(time_ns, id) < (?, ?)"] if before else []
        for clause, value in zip(("device = ?", "channel = ?", "time_ns >= ?", "time_ns < ?"), wanted[1:], strict=True):
            clauses += [clause] if value is not None else []
            values += [value] if value is not None else []
        sql = f"{_SELECT} {' AND '.join(clauses)} ORDER BY time_ns DESC, id DESC LIMIT ?"
        with _usable():
            return [Item(*row) for row in self._database.read(sql, (*values, limit))]

    def holdings(self) -> list[Holding]:
        """Give what is kept of each device."""
        with _usable():
            return [Holding(*row) for row in self._database.read("SELECT * FROM held")]

    # -- what goes

    def remove(self, tenant: str, media_id: int) -> None:
        """Take one away. Raises NotFound."""
        self.get(tenant, media_id)
        with _usable(), self._database.write() as connection:
            connection.execute("DELETE FROM items WHERE id = ? AND tenant = ?", (media_id, tenant))

    def erase(self, device: str, *, tenant: str) -> None:
        """Take away all of a device."""
        with _usable(), self._database.write() as connection:
            connection.execute("DELETE FROM items WHERE tenant = ? AND device = ?", (tenant, device))

    def expire(self, whose: tuple[str, str], before_ns: int | None, keep_bytes: int | None, most: int) -> int:
        """Take away what is older than a time, then the oldest beyond `keep_bytes`; give how many, `most` at most."""
        with _usable(), self._database.write() as connection:
            old = list(connection.execute(_OLDEST, (*whose, most)))
            row = list(connection.execute(_HELD, whose))
            left, over = row[0][0] if row else 0, []
            for media_id, size, time_ns in old:
                is_old = before_ns is not None and time_ns < before_ns
                if not is_old and (keep_bytes is None or left <= keep_bytes):
                    break
                over.append((media_id,))
                left -= size
            connection.executemany("DELETE FROM items WHERE id = ?", over)
        return len(over)

    def collect(self, before_ns: int, remove: Callable[[str], None], most: int) -> tuple[int, int]:
        """Have files removed that no device has: those given up, and those that arrived before a time and stayed alone.

        `remove` runs while nobody can put the same content in place, so a file that is wanted again is put there anew.
        All others go on meanwhile, however long it takes. A content that is just being put in place waits its turn.

        Returns:
            How many were settled, `most` at most, and how many of them removed.
        """
        with _usable(), self._database.write() as connection:
            connection.execute(f"{_GIVE_UP} since_ns < ?", (before_ns,))
            connection.execute("DELETE FROM arriving WHERE since_ns < ?", (before_ns,))
            found = [row[0] for row in connection.execute("SELECT sha256 FROM gone LIMIT ?", (most,))]
        settled = removed = 0
        for sha256 in found:
            with self.turns.removing(sha256) as is_ours:
                settled += is_ours
                removed += is_ours and self._remove_unwanted(sha256, remove)
        return settled, removed

    def _remove_unwanted(self, sha256: str, remove: Callable[[str], None]) -> bool:
        forget = "DELETE FROM gone WHERE sha256 = ?"
        with _usable(), self._database.write() as connection:
            if list(connection.execute(_WANTED, (sha256,))):
                connection.execute(forget, (sha256,))
                return False
        remove(sha256)
        with _usable(), self._database.write() as connection:
            connection.execute(forget, (sha256,))
        return True


def erase_of(folder: Path, device: str, tenant: str) -> None:
    """Take away all of a device, for who keeps no list open; without one there is nothing. Raises Unavailable."""
    if not (folder / FILE).exists():
        return
    with _usable():
        index = Index(folder)
    try:
        index.erase(device, tenant=tenant)
    finally:
        index.close()


def _demand_room(query: Callable[..., Any], whose: tuple[str, str], size: int, room: Room) -> None:
    of_device = list(query(_HELD, whose))
    of_tenant = list(query("SELECT ifnull(sum(bytes), 0) FROM held WHERE tenant = ?", whose[:1]))
    for name, held, limit in (
        (f"device {whose[1]}", of_device[0][0] if of_device else 0, room.device_bytes),
        ("tenant", of_tenant[0][0], room.tenant_bytes),
    ):
        if held + size > limit:
            detail = f"{held} bytes of media of this {name} are kept; {size} more are over its limit of {limit}"
            raise TooManyRequests(detail, code="media_full", retry_after_s=FULL_RETRY_S)


@contextmanager
def _usable() -> Iterator[None]:
    try:
        yield
    except UNUSABLE as error:
        raise Unavailable(f"the list of media: {error}", code="media_unavailable", retry_after_s=5) from error
    except apsw.ConstraintError as error:  # two of one place at once
        raise Unavailable(f"the list of media: {error}", code="media_unavailable") from error
