"""Sessions on disk, so that a restart of the service asks nobody for a new birth."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from chassis.sqlite import UNUSABLE, Database
from ingest.protocols.sparkplug.orders import Pending
from ingest.protocols.sparkplug.session import NODE, Birth, Key, Session
from wire.errors import Unavailable

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
        self._database = Database(path, schema=_SCHEMA)
        self._births: dict[Key, dict[str, Birth]] = {}  # as last written: what a birth said is long

    def load(self) -> dict[Key, Session]:
        """Give all sessions."""
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

    def load_orders(self) -> list[Pending]:
        """Give the commands whose answers are waited for, or were not told yet."""
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
