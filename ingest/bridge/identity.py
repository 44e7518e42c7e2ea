"""The name of the broker's session: a random one for each life of it, kept in a file beside the broker's state.

A broker that lost its state gives out the same message ids again. Copies sent twice are known by message id and
content, so without a name for each life, a new message of the same content could pass for a copy of an old one.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from chassis import logs

log = logs.get(__name__)
MAX_CHARS = 64


class SessionName:
    """Read once, renewed when the broker says that it begins a new session."""

    def __init__(self, path: Path | None) -> None:
        """`path` is where the name is kept; None: it lasts as long as this process."""
        self._path = path
        self.name = self._read()

    def renew(self) -> str:
        """Give a new name, durable when this returns; a name that cannot be kept costs at worst a visible copy."""
        self.name = secrets.token_hex(8)
        if self._path is not None:
            try:
                self._write(self._path)
            except OSError as error:
                log.warning("session_name_not_kept", reason=str(error))
        return self.name

    def forget(self) -> None:
        """Remove the file: nothing of this session is left with the broker."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _read(self) -> str:
        try:
            return self._path.read_text(errors="replace").strip()[:MAX_CHARS] if self._path is not None else ""
        except OSError:
            return ""

    def _write(self, path: Path) -> None:
        made = path.with_suffix(".new")
        with made.open("w") as file:
            file.write(self.name)
            file.flush()
            os.fsync(file.fileno())
        made.replace(path)
