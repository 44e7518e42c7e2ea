"""The datatypes that Homie's devices told of their properties, kept over restarts: they are said once, values often."""

from __future__ import annotations

from pathlib import Path

from ingest.protocols.base import MAX_FIELDS, Context, Decoded, Due
from ingest.protocols.homie import topics
from ingest.protocols.homie.decoder import take
from ingest.protocols.kept import Kept

FILE = "homie.db"
MAX_OF_SENDER = 20_000  # properties; what is more goes by its text


class HomieHost:
    """A Host; see `ingest.protocols.base`."""

    def __init__(self, folder: Path) -> None:
        self._kept = Kept(folder / FILE)  # by device: datatypes by field

    def decode(self, content: bytes, context: Context) -> Decoded:
        """Decode a message by what was told before it."""
        spoken = topics.read(context.topic) if context.transport == "mqtt" else None
        if spoken is None:
            return take(content, context, {}).decoded
        key = context.sender, spoken.device
        known = self._kept.get(key)
        taken = take(content, context, known)
        fields = taken.datatypes if taken.is_whole else known | taken.datatypes
        if (taken.datatypes or taken.is_whole) and len(fields) <= MAX_FIELDS:
            self._kept.put(key, fields, MAX_OF_SENDER)
        return taken.decoded

    def commit(self) -> None:
        """Keep what changed. Raises Unavailable."""
        self._kept.commit()

    def rollback(self) -> None:
        """Forget what changed since the last commit."""
        self._kept.rollback()

    def due(self) -> Due:
        """Give nothing: devices are asked for nothing."""
        return Due()

    def close(self) -> None:
        """Close the file."""
        self._kept.close()
