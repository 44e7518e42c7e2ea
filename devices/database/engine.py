"""The registry's database: connections, one write transaction with its changes and audit entries, driver errors.

A write transaction first takes a row lock (PostgreSQL) or the file's write lock (SQLite), so revisions become visible
in their order and the audit chain has no forks. Both are numbered when the transaction ends, in one go.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import orjson
from sqlalchemy import Connection, Engine, bindparam, create_engine, delete, event, exc, insert, select, update

from chassis import parking
from devices.database.tables import AUDIT, CHANGES, COUNTERS
from devices.rows import CredentialRow, Deed
from wire import clock
from wire.errors import Conflict, Unavailable, Unprocessable

T = TypeVar("T")
BrokerForm = Callable[[CredentialRow], str]
KEPT_CHANGES = 10_000
BUSY_MS = 5_000
POOL = 8  # connections kept: more threads than that rarely ask at once
ASKED = 6  # questions of an event loop that a server works at; with more it would do each more slowly
MOST = 18  # connections of threads to a server; who finds none waits for one
TURN_S = 10.0  # to become one of these: a server that is that far behind is asked again later
IDLE_S = 1.0  # a connection unused for so long is tried before it is used: asking each time costs a fifth of a read
SHORT = 20_000  # of SQLite's steps: about a millisecond
FORGET_EACH = 100  # changes, before the oldest are deleted
_WRITES, _LOOKS = "headwater_writes", "headwater_looks"
_BEGIN_READ = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_REVISION = "revision"  # the counter of changes, and the lock of all writes but those of presence
# Made once: building a statement costs more than running it.
_NAMED = COUNTERS.c.name == bindparam("counter")
_LOCK = select(COUNTERS.c.value).where(_NAMED).with_for_update()
_HEAD = select(COUNTERS.c.value, COUNTERS.c.text).where(COUNTERS.c.name == "audit").with_for_update()
# In the order in which a transaction that holds another lock takes them at its end: else two could wait for each other.
_LOCK_BOTH = select(COUNTERS.c.value, COUNTERS.c.text).where(COUNTERS.c.name.in_((_REVISION, "audit")))
_LOCK_BOTH = _LOCK_BOTH.order_by(COUNTERS.c.name.desc()).with_for_update()
_COUNT = update(COUNTERS).where(_NAMED).values(value=bindparam("new"), text=bindparam("hash"))
_FORGET = delete(CHANGES).where(CHANGES.c.revision <= bindparam("until"))
_PRAGMAS = (f"busy_timeout={BUSY_MS}", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "cache_size=-2048")


class Write:
    """An open write transaction."""

    def __init__(self, connection: Connection, now_ns: int, for_broker: BrokerForm, lock: str) -> None:
        """Take the lock."""
        self.connection = connection
        self._revision: int | None = None
        self._head: tuple[int, str] | None = None  # of the audit chain
        if lock == _REVISION:
            (self._revision, _), (seq, last_hash) = connection.execute(_LOCK_BOTH)
            self._head = seq, last_hash
        else:
            connection.execute(_LOCK, {"counter": lock})
        self.for_broker = for_broker  # what is stored of a secret for the broker
        self.now_ns = now_ns
        self._changes: list[tuple[str, str]] = []
        self._deeds: list[Deed] = []

    def execute(self, statement: Any, parameters: Any = None) -> Any:
        """Run a statement inside the transaction; an empty list of parameters runs nothing."""
        return None if parameters == [] else self.connection.execute(statement, parameters)

    def changed(self, kind: str, keys: Iterable[str]) -> None:
        """Tell the readers of `/internal/changes` of devices (ids), types (`type_key`), tenants, tokens or topics."""
        self._changes.extend((kind, key) for key in keys)

    def audit(self, deeds: Iterable[Deed]) -> None:
        """Append to the audit log."""
        self._deeds.extend(deeds)

    def changes(self, kind: str) -> bool:
        """Tell whether something of this kind changed."""
        return any(each == kind for each, _ in self._changes)

    def finish(self) -> None:
        """Number and insert what was collected."""
        counted = []
        if self._changes:
            counted.append({"counter": _REVISION, "new": self._finish_changes(), "hash": ""})
        if self._deeds:
            seq, last_hash = self._finish_audit()
            counted.append({"counter": "audit", "new": seq, "hash": last_hash})
        self.execute(_COUNT, counted)

    def _finish_changes(self) -> int:
        old = self._revision
        if old is None:
            old = self.connection.execute(_LOCK, {"counter": _REVISION}).scalar_one()
        new = old + len(self._changes)
        rows = [{"revision": old + 1 + i, "kind": kind, "key": key} for i, (kind, key) in enumerate(self._changes)]
        self.connection.execute(insert(CHANGES), rows[-KEPT_CHANGES:])
        if old // FORGET_EACH != new // FORGET_EACH:
            self.connection.execute(_FORGET, {"until": new - KEPT_CHANGES})
        return new

    def _finish_audit(self) -> tuple[int, str]:
        seq, last_hash = self._head or self.connection.execute(_HEAD).one()
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
        return seq, last_hash


class Database:
    """The registry's database; thread-safe."""

    def __init__(self, url: str, data: Path, for_broker: BrokerForm | None = None) -> None:
        """Open it; `for_broker` tells what is stored of a secret for the broker (its hash)."""
        self._for_broker = for_broker or _hash_of
        self.path = _sqlite_path(url, data)
        self.engine = _open_sqlite(self.path) if self.path else _open_postgresql(url)
        self._reader = self.engine if self.path else _open_postgresql(url, isolation_level="AUTOCOMMIT")
        self._looker = self._reader.execution_options(**{_LOOKS: True})
        self._writer = self.engine.execution_options(**{_WRITES: True})
        self._turn = _FileTurn(self.path) if self.path else _Turns()
        # An event loop has connections of its own: it must not wait until a thread gives one back.
        self._asker = None if self.path else _open_postgresql(url, ASKED, ASKED, isolation_level="AUTOCOMMIT")
        self._places = parking.Places(ASKED)
        self._has_met = False  # the server, on the loop's connections
        self.token_writes = 0  # transactions of this process that changed a token, a session, or whom they speak for

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Give a connection with one consistent view."""
        with _translated(), self._reader.connect() as connection:
            if self.path is None:
                connection.exec_driver_sql(_BEGIN_READ)  # ends when the pool takes the connection back
            yield connection

    @contextmanager
    def look(self) -> Iterator[Connection]:
        """Give a connection on which each statement has a view of its own: without the cost of a transaction."""
        with _translated(), self._looker.connect() as connection:
            yield connection

    def ask(self, question: Callable[[Connection], T]) -> T:
        """Ask on a connection as `look` gives it, without holding up an event loop for long.

        There, a file answers at once, and what takes more than SHORT steps is asked again in a thread; while a server
        works, other requests run.
        """
        if parking.loop() is None:
            return self._ask(question)
        if self._asker is not None:
            with _translated(), self._places.take(TURN_S):
                return self._ask_server(self._asker, question)
        with suppress(_LongError):
            return self._ask_briefly(question)
        return parking.aside(self._ask, question)

    def _ask(self, question: Callable[[Connection], T]) -> T:
        with self.look() as connection:
            return question(connection)

    def _ask_server(self, asker: Engine, question: Callable[[Connection], T]) -> T:
        if not self._has_met:
            parking.aside(self._meet, asker)
        with asker.connect() as connection:
            return question(connection)

    def _meet(self, asker: Engine) -> None:
        """Connect once: SQLAlchemy gets to know a server under a lock, and who is parked must hold none."""
        asker.connect().close()
        self._has_met = True

    def _ask_briefly(self, question: Callable[[Connection], T]) -> T:
        with self.look() as connection:
            driver: Any = connection.connection.dbapi_connection
            driver.set_progress_handler(_stop, SHORT)
            try:
                return question(connection)
            except exc.OperationalError as error:
                if str(error.orig) == "interrupted":
                    raise _LongError from None
                raise
            finally:
                driver.set_progress_handler(None, 0)

    @contextmanager
    def write(self, lock: str = _REVISION) -> Iterator[Write]:
        """One write transaction, alone among those with the same lock; all of it is committed durably, or nothing."""
        with _translated(), self._turn.wait(lock):
            with self._writer.begin() as connection:
                transaction = Write(connection, clock.now_ns(), self._for_broker, lock)
                yield transaction
                transaction.finish()
            self.token_writes += transaction.changes("token")

    @contextmanager
    def change_schema(self) -> Iterator[Connection]:
        """One bare transaction, of which all or nothing is committed."""
        with _translated(), self._turn.wait(_REVISION), self._writer.begin() as connection:
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
        for engine in (self.engine, self._reader, self._asker):
            if engine is not None:
                engine.dispose()


def chain(last_hash: str, row: dict[str, Any]) -> str:
    """Hash of an audit entry: covers all its columns and, through the hash before it, all older entries."""
    names = ("seq", "tenant", "time_ns", "actor", "action", "object", "detail", "remote_ip")
    return hashlib.sha256(last_hash.encode() + orjson.dumps([row[name] for name in names])).hexdigest()


_FULL = ("database or disk is full", "No space left on device")  # SQLite's words, and PostgreSQL's


class _LongError(Exception):
    """A question to a file takes more than SHORT steps."""


def _stop() -> int:
    return 1


class _Turns:
    """Lets the writers of this process wait for each other, so that they do not all wait on connections."""

    def __init__(self) -> None:
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    @contextmanager
    def wait(self, lock: str) -> Iterator[None]:
        """Wait until no other writes under this lock."""
        with self._locks[lock]:
            yield


class _FileTurn:
    """Lets the writers of all processes of this machine wait for each other.

    SQLite's own busy handler polls, is unfair, and gives up after BUSY_MS; here whoever waits is woken.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(path.name + ".lock")
        self._lock = threading.Lock()

    @contextmanager
    def wait(self, _lock: str) -> Iterator[None]:
        """Wait until no other writes: SQLite has one lock for all."""
        with self._lock:
            descriptor = self._open()
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                yield
            finally:
                os.close(descriptor)  # which gives the turn away

    def _open(self) -> int:
        try:
            return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Unavailable("the registry's folder cannot be written", code="registry_unavailable") from error


def _hash_of(row: CredentialRow) -> str:
    return row.broker_hash


def _sqlite_path(url: str, data: Path) -> Path | None:
    if not url.startswith("sqlite:"):
        return None
    path = url.removeprefix("sqlite:").removeprefix("///")
    return Path(path) if path else data / "registry.db"


def _open_sqlite(path: Path) -> Engine:
    import pysqlite3  # carries SQLite >= 3.51.3: Debian's build has the WAL-reset bug

    # As many connections as threads ask at once: an event loop must not wait for one.
    engine = create_engine("sqlite:///" + str(path), module=pysqlite3, pool_size=POOL, max_overflow=-1)

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver's own BEGIN comes too late for a read to belong to it
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        options = connection.get_execution_options()
        if options.get(_WRITES):
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        elif not options.get(_LOOKS):  # takes no lock yet, so it has nothing to wait for and no error to be translated
            connection.connection.execute("BEGIN").close()

    return engine


def _open_postgresql(url: str, kept: int = POOL, most: int = MOST, **options: Any) -> Engine:
    from devices.database.postgresql import connect

    engine = create_engine(url, pool_size=kept, max_overflow=most - kept, **options)
    event.listen(engine, "do_connect", connect)

    @event.listens_for(engine, "checkin")
    def note(_connection: Any, record: Any) -> None:
        record.info["idle_since_s"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def test(connection: Any, record: Any, _proxy: Any) -> None:
        idle_s = time.monotonic() - record.info.get("idle_since_s", time.monotonic())
        if idle_s > IDLE_S and not engine.dialect._do_ping_w_event(connection):  # noqa: SLF001 - as pool_pre_ping does
            raise exc.InvalidatePoolError

    return engine


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except exc.IntegrityError as error:
        raise Conflict("the change contradicts what the registry holds") from error
    except exc.DataError as error:  # NUL, of which PostgreSQL takes none
        raise Unprocessable("a text holds what the registry cannot keep") from error
    except (exc.OperationalError, exc.InterfaceError, exc.TimeoutError, TimeoutError) as error:
        if any(words in str(error) for words in _FULL):
            raise Unavailable("the registry's disk is full", code="registry_full") from error
        raise Unavailable("the registry's database does not answer", code="registry_unavailable") from error
