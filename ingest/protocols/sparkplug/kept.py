"""Sessions on disk, so that a restart of the service asks nobody for a new birth."""

from __future__ import annotations

from pathlib import Path

import orjson

from chassis.sqlite import UNUSABLE, Database
from ingest.protocols.sparkplug.session import Session
from wire.errors import Unavailable

_SCHEMA = (
    (
        "CREATE TABLE sessions (node TEXT PRIMARY KEY, state TEXT NOT NULL, declared TEXT NOT NULL) WITHOUT ROWID"
    ),
)  # fmt: skip


class KeptSessions:
    """Keeps sessions by the external name of their node; for one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path, schema=_SCHEMA)
        self._declared: dict[str, tuple[object, object]] = {}  # as last written: what a birth said is long

    def load(self) -> dict[str, Session]:
        """Give all sessions."""
        rows = self._database.read("SELECT node, state, declared FROM sessions")
        found = {node: Session.from_json(orjson.loads(state), orjson.loads(declared)) for node, state, declared in rows}
        self._declared = {node: session.declared for node, session in found.items()}
        return found

    def save(self, changed: dict[str, Session]) -> None:
        """Write sessions durably. Raises Unavailable: nothing was written."""
        try:
            with self._database.write() as connection:
                for node, session in changed.items():
                    connection.execute(*self._statement(node, session))
        except UNUSABLE as error:
            raise Unavailable(f"sessions cannot be written: {error}", code="spool_full") from None
        self._declared |= {node: session.declared for node, session in changed.items()}

    def _statement(self, node: str, session: Session) -> tuple[str, tuple[str, ...]]:
        state = orjson.dumps(session.state_json()).decode()
        if self._is_written(node, session):
            return "UPDATE sessions SET state = ? WHERE node = ?", (state, node)
        declared = orjson.dumps(session.declared_json()).decode()
        return "INSERT OR REPLACE INTO sessions VALUES (?, ?, ?)", (node, state, declared)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _is_written(self, node: str, session: Session) -> bool:
        last = self._declared.get(node)
        return last is not None and all(a is b for a, b in zip(last, session.declared, strict=True))
