"""What a host learned of its senders' things, kept over restarts: an object for each thing. Knows no protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from chassis.sqlite import UNUSABLE, Database
from wire.errors import Unavailable

Key = tuple[str, str]  # sender, thing
_SCHEMA = (
    "CREATE TABLE kept (sender TEXT, thing TEXT, content TEXT NOT NULL, PRIMARY KEY (sender, thing)) WITHOUT ROWID",
)


class Kept:
    """Objects by key, as of the last commit and since; for one thread at a time. What it gives must not be changed."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path, schema=_SCHEMA)
        rows = self._database.read("SELECT sender, thing, content FROM kept")
        self._objects: dict[Key, dict[str, Any]] = {(sender, thing): orjson.loads(text) for sender, thing, text in rows}
        self._changed: dict[Key, dict[str, Any]] = {}
        self._sizes: dict[str, int] = {}  # members by sender
        for (sender, _), members in self._objects.items():
            self._sizes[sender] = self._sizes.get(sender, 0) + len(members)

    def get(self, key: Key) -> dict[str, Any]:
        """Give an object; empty: there is none."""
        found = self._changed.get(key)
        return found if found is not None else self._objects.get(key, {})

    def put(self, key: Key, members: dict[str, Any], most: int) -> bool:
        """Change an object; tell whether there is room: a sender's objects have at most so many members in all."""
        old = self.get(key)
        size = self._sizes.get(key[0], 0) + len(members) - len(old)
        if size > most and len(members) > len(old):
            return False
        if members != old:
            self._changed[key] = members
            self._sizes[key[0]] = size
        return True

    def commit(self) -> None:
        """Keep what changed. Raises Unavailable: it does not hold."""
        if not self._changed:
            return
        rows = [(*key, orjson.dumps(members).decode()) for key, members in self._changed.items()]
        try:
            with self._database.write() as connection:
                for row in rows:
                    connection.execute("INSERT OR REPLACE INTO kept VALUES (?, ?, ?)", row)
        except UNUSABLE as error:
            raise Unavailable(f"{self._database.path} cannot be written: {error}", code="spool_full") from None
        self._objects |= self._changed
        self._changed = {}

    def rollback(self) -> None:
        """Forget what changed since the last commit."""
        for key, members in self._changed.items():
            self._sizes[key[0]] += len(self._objects.get(key, {})) - len(members)
        self._changed = {}

    def close(self) -> None:
        """Close the file."""
        self._database.close()
