"""The registry's database: connections, one write transaction with its changes and audit entries, driver errors.

A write transaction first takes a row lock (PostgreSQL) or the file's write lock (SQLite), so revisions become visible
in their order and the audit chain has no forks. Both are numbered when the transaction ends, in one go.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import Connection, Engine, bindparam, create_engine, delete, event, exc, insert, select, update

from devices.database.tables import AUDIT, CHANGES, COUNTERS
from devices.rows import CredentialRow, Deed
from wire import clock
from wire.errors import Conflict, Unavailable, Unprocessable

BrokerForm = Callable[[CredentialRow], str]
KEPT_CHANGES = 10_000
BUSY_MS = 5_000
POOL = 8  # connections kept: more threads than that rarely ask at once
_WRITES = "headwater_writes"
_REVISION = "revision"  # the counter of changes, and the lock of all writes but those of presence
# Made once: building a statement costs more than running it.
_NAMED = COUNTERS.c.name == bindparam("counter")
_LOCK = select(COUNTERS.c.value).where(_NAMED).with_for_update()
_HEAD = select(COUNTERS.c.value, COUNTERS.c.text).where(COUNTERS.c.name == "audit").with_for_update()
_COUNT = update(COUNTERS).where(_NAMED).values(value=bindparam("new"))
_COUNT_AUDIT = update(COUNTERS).where(COUNTERS.c.name == "audit").values(value=bindparam("new"), text=bindparam("hash"))
_FORGET = delete(CHANGES).where(CHANGES.c.revision <= bindparam("until"))
_PRAGMAS = (f"busy_timeout={BUSY_MS}", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "cache_size=-2048")


class Write:
    """An open write transaction."""

    def __init__(self, connection: Connection, now_ns: int, for_broker: BrokerForm, revision: int | None) -> None:
        """Begin; `revision` is that of the database when its lock is held."""
        self.connection = connection
        self._revision = revision
        self.for_broker = for_broker  # what is stored of a secret for the broker
        self.now_ns = now_ns
        self._changes: list[tuple[str, str]] = []
        self._deeds: list[Deed] = []

    def execute(self, statement: Any, parameters: Any = None) -> Any:
        """Run a statement inside the transaction; an empty list of parameters runs nothing."""
        return None if parameters == [] else self.connection.execute(statement, parameters)

    def changed(self, kind: str, keys: Iterable[str]) -> None:
        """Tell the readers of `/internal/changes` about devices (ids), types (`type_key`), tenants or tokens."""
        self._changes.extend((kind, key) for key in keys)

    def audit(self, deeds: Iterable[Deed]) -> None:
        """Append to the audit log."""
        self._deeds.extend(deeds)

    def changes(self, kind: str) -> bool:
        """Tell whether something of this kind changed."""
        return any(each == kind for each, _ in self._changes)

    def finish(self) -> None:
        """Number and insert what was collected."""
        if self._changes:
            self._finish_changes()
        if self._deeds:
            self._finish_audit()

    def _finish_changes(self) -> None:
        old = self._revision
        if old is None:
            old = self.connection.execute(_LOCK, {"counter": _REVISION}).scalar_one()
        new = old + len(self._changes)
        rows = [{"revision": old + 1 + i, "kind": kind, "key": key} for i, (kind, key) in enumerate(self._changes)]
        self.connection.execute(insert(CHANGES), rows[-KEPT_CHANGES:])
        self.connection.execute(_FORGET, {"until": new - KEPT_CHANGES})
        self.connection.execute(_COUNT, {"counter": _REVISION, "new": new})

    def _finish_audit(self) -> None:
        seq, last_hash = self.connection.execute(_HEAD).one()
        rows = []
        for deed in self._deeds:
            seq += 1
            row = {
                "seq": seq,
                "tenant": deed.who.tenant,
                "time_ns": self.now_ns,
                "actor": deed.who.actor,
                "action": deed.action,
                "object": deed.object,
                "detail": orjson.dumps(deed.detail, default=str).decode(),
                "remote_ip": deed.who.remote_ip,
            }
            last_hash = chain(last_hash, row)
            rows.append(row | {"hash": last_hash})
        self.connection.execute(insert(AUDIT), rows)
        self.connection.execute(_COUNT_AUDIT, {"new": seq, "hash": last_hash})


class Database:
    """The registry's database; thread-safe."""

    def __init__(self, url: str, data: Path, for_broker: BrokerForm | None = None) -> None:
        """Open it; `for_broker` tells what is stored of a secret for the broker (its hash)."""
        self._for_broker = for_broker or _hash_of
        self.path = _sqlite_path(url, data)
        self.engine = _open_sqlite(self.path) if self.path else create_engine(url, pool_size=POOL, pool_pre_ping=True)
        self._reader = self.engine if self.path else self.engine.execution_options(isolation_level="REPEATABLE READ")
        self._writer = self.engine.execution_options(**{_WRITES: True})
        # Held during a write on SQLite: its own busy handler is unfair and gives up after BUSY_MS.
        self._lock = threading.Lock()
        self.token_writes = 0  # transactions of this process that changed a token, a session, or whom they speak for

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Give a connection with one consistent view."""
        with _translated(), self._reader.connect() as connection:
            yield connection

    @contextmanager
    def write(self, lock: str = _REVISION) -> Iterator[Write]:
        """One write transaction, alone among those with the same lock; all of it is committed durably, or nothing."""
        with _translated(), self._lock:
            with self._writer.begin() as connection:
                value = connection.execute(_LOCK, {"counter": lock}).scalar()
                revision = value if lock == _REVISION else None
                transaction = Write(connection, clock.now_ns(), self._for_broker, revision)
                yield transaction
                transaction.finish()
            self.token_writes += transaction.changes("token")

    @contextmanager
    def change_schema(self) -> Iterator[Connection]:
        """One bare transaction, of which all or nothing is committed."""
        with _translated(), self._lock, self._writer.begin() as connection:
            yield connection

    def is_reachable(self) -> bool:
        """Tell whether a query works now."""
        try:
            with self.read() as connection:
                connection.execute(select(COUNTERS.c.value)).first()
        except Unavailable:
            return False
        return True

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def chain(last_hash: str, row: dict[str, Any]) -> str:
    """Hash of an audit entry: covers all its columns and, through the hash before it, all older entries."""
    names = ("seq", "tenant", "time_ns", "actor", "action", "object", "detail", "remote_ip")
    return hashlib.sha256(last_hash.encode() + orjson.dumps([row[name] for name in names])).hexdigest()


def _hash_of(row: CredentialRow) -> str:
    return row.broker_hash


def _sqlite_path(url: str, data: Path) -> Path | None:
    if not url.startswith("sqlite:"):
        return None
    path = url.removeprefix("sqlite:").removeprefix("///")
    return Path(path) if path else data / "registry.db"


def _open_sqlite(path: Path) -> Engine:
    import pysqlite3  # carries SQLite >= 3.51.3: Debian's build has the WAL-reset bug

    engine = create_engine("sqlite:///" + str(path), module=pysqlite3, pool_size=POOL)

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver's own BEGIN comes too late for a read to belong to it
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        if connection.get_execution_options().get(_WRITES):
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:  # takes no lock yet, so it has nothing to wait for and no error to be translated
            connection.connection.execute("BEGIN").close()

    return engine


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except exc.IntegrityError as error:
        raise Conflict("the change contradicts what the registry holds") from error
    except exc.DataError as error:  # NUL, of which PostgreSQL takes none
        raise Unprocessable("a text holds what the registry cannot keep") from error
    except (exc.OperationalError, exc.InterfaceError, exc.TimeoutError) as error:
        raise Unavailable("the registry's database does not answer", code="registry_unavailable") from error
