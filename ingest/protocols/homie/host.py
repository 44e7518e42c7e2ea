"""The datatypes that Homie's devices told of their properties, kept over restarts: they are said once, values often."""

from __future__ import annotations

from pathlib import Path

import orjson

from chassis.sqlite import UNUSABLE, Database
from ingest.protocols.base import MAX_FIELDS, Context, Decoded, Due
from ingest.protocols.homie import topics
from ingest.protocols.homie.decoder import Taken, take
from wire.errors import Unavailable

FILE = "homie.db"
MAX_OF_SENDER = 20_000  # properties; what is more goes by its text
_SCHEMA = (
    (
        "CREATE TABLE datatypes (sender TEXT, device TEXT, fields TEXT NOT NULL, PRIMARY KEY (sender, device))"
        " WITHOUT ROWID"
    ),
)
Key = tuple[str, str]  # sender, device


class HomieHost:
    """A Host; see `ingest.protocols.base`."""

    def __init__(self, folder: Path) -> None:
        self._database = Database(folder / FILE, schema=_SCHEMA)
        rows = self._database.read("SELECT sender, device, fields FROM datatypes")
        self._kept: dict[Key, dict[str, str]] = {(sender, device): orjson.loads(text) for sender, device, text in rows}
        self._numbers: dict[str, int] = {}  # of properties by sender
        for (sender, _), fields in self._kept.items():
            self._numbers[sender] = self._numbers.get(sender, 0) + len(fields)
        self._changed: dict[Key, dict[str, str]] = {}

    def decode(self, content: bytes, context: Context) -> Decoded:
        """Decode a message by what was told before it."""
        spoken = topics.read(context.topic) if context.transport == "mqtt" else None
        known = self._of((context.sender, spoken.device)) if spoken is not None else {}
        taken = take(content, context, known)
        if taken.datatypes or taken.is_whole:
            self._learn((context.sender, taken.device), taken)
        return taken.decoded

    def commit(self) -> None:
        """Keep what changed. Raises Unavailable."""
        if not self._changed:
            return
        try:
            with self._database.write() as connection:
                for (sender, device), fields in self._changed.items():
                    row = sender, device, orjson.dumps(fields).decode()
                    connection.execute("INSERT OR REPLACE INTO datatypes VALUES (?, ?, ?)", row)
        except UNUSABLE as error:
            raise Unavailable(f"datatypes cannot be written: {error}", code="spool_full") from None
        for key, fields in self._changed.items():
            self._numbers[key[0]] = self._numbers.get(key[0], 0) + len(fields) - len(self._kept.get(key, {}))
            self._kept[key] = fields
        self._changed = {}

    def rollback(self) -> None:
        """Forget what changed since the last commit."""
        self._changed = {}

    def due(self) -> Due:
        """Give nothing: devices are asked for nothing."""
        return Due()

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _of(self, key: Key) -> dict[str, str]:
        found = self._changed.get(key)
        return found if found is not None else self._kept.get(key, {})

    def _learn(self, key: Key, taken: Taken) -> None:
        known = self._of(key)
        fields = taken.datatypes if taken.is_whole else known | taken.datatypes
        is_too_many = self._numbers.get(key[0], 0) + len(fields) - len(known) > MAX_OF_SENDER
        if fields != known and len(fields) <= MAX_FIELDS and not is_too_many:
            self._changed[key] = fields
