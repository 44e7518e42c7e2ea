"""Blobs on disk by the SHA-256 of their content: one that comes twice is kept once. Knows no device.

A blob is here or not, never half: it is written beside, synced, renamed, and its folder synced.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Protocol

from wire.errors import NotFound, TooLarge, Unavailable

CHUNK_BYTES = 64 * 1024
STALE_S = 3_600.0  # a blob that is still on its way after so long is on no way any more
LOOK_BYTES = 8 * 1024 * 1024  # between two looks at the free disk while a blob comes
RETRY_AFTER_S = 60


class Arrived:
    """A blob whole in a file of its own, not yet kept."""

    def __init__(self, path: Path, file: BinaryIO, sha256: str, size: int) -> None:
        self.path = path
        self.file = file  # open for reading
        self.sha256 = sha256
        self.size = size


class Blobs(Protocol):
    """Where blobs are kept."""

    def keep(self, arrived: Arrived) -> None:
        """Keep it durably; one that is there already stays. Raises Unavailable."""
        ...

    def read(self, sha256: str, start: int, length: int) -> Iterator[bytes]:
        """Give a part of one, in pieces. Raises NotFound, Unavailable, before the first."""
        ...

    def remove(self, sha256: str) -> None:
        """Remove one, if it is there. Raises Unavailable."""
        ...


class Arrivals:
    """Takes blobs in, each into a file of its own, with no more memory than a piece of it."""

    def __init__(self, folder: Path, floor_bytes: int) -> None:
        """`floor_bytes` of the disk are left free for others."""
        self._folder = folder / "incoming"
        self._floor_bytes = floor_bytes
        self._folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def take(self, pieces: Iterable[bytes], limit_bytes: int) -> Iterator[Arrived]:
        """Write a blob as it comes; what nobody kept is gone at the end.

        Raises:
            TooLarge: more than `limit_bytes`.
            Unavailable: the disk has no room.
        """
        try:
            with tempfile.NamedTemporaryFile(dir=self._folder, buffering=0, delete=False) as file:
                path = Path(file.name)
                try:
                    digest, size = self._write(file, pieces, limit_bytes)  # type: ignore[arg-type]
                    yield Arrived(path, file, digest, size)  # type: ignore[arg-type]
                finally:
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise disk_trouble(error) from error

    def _write(self, file: BinaryIO, pieces: Iterable[bytes], limit_bytes: int) -> tuple[str, int]:
        digest, size, looked_at = hashlib.sha256(), 0, -LOOK_BYTES
        for piece in pieces:
            size += len(piece)
            if size > limit_bytes:
                raise TooLarge(f"a blob of more than {limit_bytes} bytes, limit {limit_bytes}")
            if size - looked_at > LOOK_BYTES:
                looked_at = size
                self._demand_room(limit_bytes=min(limit_bytes, LOOK_BYTES))
            digest.update(piece)
            file.write(piece)
        os.fsync(file.fileno())
        return digest.hexdigest(), size

    def _demand_room(self, limit_bytes: int) -> None:
        if self._floor_bytes and shutil.disk_usage(self._folder).free - limit_bytes < self._floor_bytes:
            detail = f"the disk of the media has less than {self._floor_bytes} bytes free"
            raise Unavailable(detail, code="media_disk_full", retry_after_s=RETRY_AFTER_S)

    def forget_stale(self) -> None:
        """Remove what a killed process left of blobs that never arrived."""
        before_s = time.time() - STALE_S
        for path in self._folder.iterdir():
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < before_s:
                    path.unlink()


class DiskBlobs:
    """Blobs in `blobs/<two digits>/<sha256>`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "blobs"
        for number in range(256):  # all at once: of one made later nobody else knows whether it is durable
            (self._folder / f"{number:02x}").mkdir(parents=True, exist_ok=True)
        for each in (self._folder, folder, folder.parent):
            _sync(each)

    def keep(self, arrived: Arrived) -> None:
        """See Blobs."""
        path = self._path(arrived.sha256)
        try:
            # A copy that is there already is put there anew: nobody knows whether its folder was synced.
            arrived.path.replace(path)
            _sync(path.parent)
        except OSError as error:
            raise disk_trouble(error) from error

    def read(self, sha256: str, start: int, length: int) -> Iterator[bytes]:
        """See Blobs."""
        try:
            file = self._path(sha256).open("rb")
        except FileNotFoundError:
            raise NotFound("the blob is gone") from None
        except OSError as error:
            raise disk_trouble(error) from error
        return _pieces(file, start, length)

    def remove(self, sha256: str) -> None:
        """See Blobs."""
        try:
            self._path(sha256).unlink(missing_ok=True)
        except OSError as error:
            raise disk_trouble(error) from error

    def _path(self, sha256: str) -> Path:
        return self._folder / sha256[:2] / sha256


def disk_trouble(error: OSError) -> Unavailable:
    """Give what a sender is told."""
    detail = f"the media's disk: {error.strerror or error}"
    return Unavailable(detail, code="media_disk_full", retry_after_s=RETRY_AFTER_S)


def _pieces(file: BinaryIO, start: int, length: int) -> Iterator[bytes]:
    with file:
        file.seek(start)
        while length > 0 and (piece := file.read(min(CHUNK_BYTES, length))):
            length -= len(piece)
            yield piece


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
