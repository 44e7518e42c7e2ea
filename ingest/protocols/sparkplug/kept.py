"""Sessions on disk, so that a restart of the service asks nobody for a new birth."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from chassis import logs
from chassis.metrics import Counter
from chassis.sqlite import DAMAGED, UNUSABLE, Database
from ingest.protocols.sparkplug.orders import Pending
from ingest.protocols.sparkplug.session import NODE, Birth, Key, Session
from wire import clock
from wire.errors import Unavailable

log = logs.get(__name__)
DAMAGES = Counter("headwater_ingest_sparkplug_damaged", "Files of sessions that were damaged and set aside")
UNREADABLE = (ValueError, KeyError, TypeError, IndexError)  # of rows that nobody here has written so
_SCHEMA = (
    (
        "CREATE TABLE sessions (sender TEXT, node TEXT, state TEXT NOT NULL, before BLOB NOT NULL,"
        " PRIMARY KEY (sender, node)) WITHOUT ROWID"
    ),
    (
        "CREATE TABLE births (sender TEXT, node TEXT, device TEXT, declared TEXT NOT NULL,"
        " PRIMARY KEY (sender, node, device)) WITHOUT ROWID"
    ),
    "CREATE TABLE orders (id TEXT PRIMARY KEY, told TEXT NOT NULL) WITHOUT ROWID",
)
_OF = "WHERE sender = ? AND node = ?"
_Statement = tuple[str, tuple[Any, ...]]


class KeptSessions:
    """Keeps the sessions of nodes that are online; for one thread at a time."""

    def __init__(self, path: Path) -> None:
        """Open the file; one that is damaged is set aside, and all begins anew: births are asked for as data comes."""
        self._path = path
        self._births: dict[Key, dict[str, Birth]] = {}  # as last written: what a birth said is long
        self.sessions: dict[Key, Session] = {}  # as they were kept
        self.orders: list[Pending] = []
        try:
            self._open()
            self.sessions, self.orders = self._load(), self._load_orders()
        except (*DAMAGED, *UNREADABLE):
            self._set_aside()

    def _open(self) -> None:
        self._database = Database(self._path, schema=_SCHEMA)

    def _set_aside(self) -> None:
        """Begin with an empty file; what there was is kept beside it, for a person to look at."""
        self._births = {}
        with suppress(AttributeError):  # it could not even be opened
            self._database.close()
        kept = self._path.with_name(f"{self._path.name}.damaged-{clock.now_ns()}")
        for suffix in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                Path(f"{self._path}{suffix}").rename(f"{kept}{suffix}")
        DAMAGES.inc()
        log.error("sparkplug_sessions_damaged", kept=str(kept))
        self._open()

    def _load(self) -> dict[Key, Session]:
        births: dict[Key, dict[str, Birth]] = {}
        for sender, node, device, text in self._database.read("SELECT sender, node, device, declared FROM births"):
            types, aliases = orjson.loads(text)
            births.setdefault(Key(sender, node), {})[device] = Birth(types, dict(aliases))
        found = {}
        for sender, node, state, before in self._database.read("SELECT sender, node, state, before FROM sessions"):
            key = Key(sender, node)
            found[key] = Session.from_json(orjson.loads(state), before, births.get(key, {}))
        self._births = births
        return found

    def save(self, changed: Mapping[Key, Session | None]) -> None:
        """Write sessions durably; None: one to be forgotten. Raises Unavailable: nothing was written."""
        self._write(each for key, session in changed.items() for each in self._statements(key, session))
        self._note(changed)

    def _load_orders(self) -> list[Pending]:
        return [Pending.from_json(id_, orjson.loads(told)) for id_, told in self._database.read("SELECT * FROM orders")]

    def save_orders(self, changed: Mapping[str, Pending | None]) -> None:
        """Write such commands durably; None: one to be forgotten. Raises Unavailable: nothing was written."""
        kept = {id_: pending for id_, pending in changed.items() if pending is not None}
        statements: list[_Statement] = [("DELETE FROM orders WHERE id = ?", (id_,)) for id_ in changed.keys() - kept]
        for id_, pending in kept.items():
            told = orjson.dumps(pending.to_json()).decode()
            statements.append(("INSERT OR REPLACE INTO orders VALUES (?, ?)", (id_, told)))
        self._write(statements)

    def _write(self, statements: Iterable[_Statement]) -> None:
        try:
            with self._database.write() as connection:
                for statement in statements:
                    connection.execute(*statement)
        except DAMAGED as error:
            self._set_aside()  # sessions are in memory: each is written anew with its next message
            raise Unavailable(f"sessions were damaged: {error}", code="spool_full") from None
        except UNUSABLE as error:
            raise Unavailable(f"sessions cannot be written: {error}", code="spool_full") from None

    def _note(self, changed: Mapping[Key, Session | None]) -> None:
        for key, session in changed.items():
            if session is None or not session.births:
                self._births.pop(key, None)
            else:
                self._births[key] = session.births

    def _statements(self, key: Key, session: Session | None) -> Iterator[_Statement]:
        written = self._births.get(key, {})
        if session is None or not session.births:  # a node that is offline has nothing to go on with
            if written:
                yield f"DELETE FROM births {_OF}", key  # noqa: S608 - a constant
                yield f"DELETE FROM sessions {_OF}", key  # noqa: S608
            return
        state, births = orjson.dumps(session.to_json()).decode(), session.births
        if births[NODE] is written.get(NODE):
            yield f"UPDATE sessions SET state = ? {_OF}", (state, *key)  # noqa: S608
        else:
            yield "INSERT OR REPLACE INTO sessions VALUES (?, ?, ?, ?)", (*key, state, session.before)
        if births is written:
            return
        for device in written.keys() - births.keys():
            yield f"DELETE FROM births {_OF} AND device = ?", (*key, device)  # noqa: S608
        for device, birth in births.items():
            if birth is not written.get(device):
                text = orjson.dumps([birth.types, list(birth.aliases.items())]).decode()
                yield "INSERT OR REPLACE INTO births VALUES (?, ?, ?, ?)", (*key, device, text)

    def close(self) -> None:
        """Close the file."""
        self._database.close()
