"""Keeps apart who puts a content in place and who removes it, also among processes. A killed one holds nothing."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ingest.media.blobs import disk_trouble


class Turns:
    """Many may put the same content in place at once; who removes it is alone. Thread-safe.

    One lock is shared by the contents whose SHA-256 begin with the same two digits.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "turns"
        self._folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def putting(self, sha256: str) -> Iterator[None]:
        """Let nobody remove it. Raises Unavailable."""
        with self._open(sha256) as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            yield

    @contextmanager
    def removing(self, sha256: str) -> Iterator[bool]:
        """Let nobody put it in place; tell whether nobody is at it. Raises Unavailable."""
        with self._open(sha256) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                is_ours = False
            else:
                is_ours = True
            yield is_ours

    def _open(self, sha256: str) -> BinaryIO:
        try:
            return (self._folder / sha256[:2]).open("ab")
        except OSError as error:
            raise disk_trouble(error) from error
