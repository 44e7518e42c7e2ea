"""Thumbnails, made when somebody looks and kept beside the blobs. What decodes pictures is a process of its own."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from chassis.metrics import Counter
from ingest.media.index import Item
from ingest.media.turns import Turns
from wire.errors import NotFound, TooManyRequests

MADE = Counter("headwater_media_thumbnails", "Thumbnails made, by outcome", ["outcome"])
AT_ONCE, WAITING = 1, 8  # a page asks for a dozen; threads must be left for the cameras
PATIENCE_S = 20.0
MOST_BYTES = 64 * 1024 * 1024  # of a picture: it is held in memory
MAX_BROKEN = 10_000  # pictures remembered that have none
SUFFIX = ".jpg"

Read = Callable[[str, int, int], Iterable[bytes]]


class Thumbnails:
    """Gives them. Thread-safe."""

    def __init__(self, folder: Path, read: Read, turns: Turns, most_pixels: int) -> None:
        """`read` gives a part of a blob (see `ingest.media.blobs.Blobs`), which `turns` keep from being removed."""
        self._folder = folder / "thumbnails"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._read = read
        self._turns = turns
        self._most_pixels = most_pixels
        self._turn = threading.BoundedSemaphore(AT_ONCE)
        self._places = threading.BoundedSemaphore(AT_ONCE + WAITING)
        self._broken: set[str] = set()

    def get(self, item: Item) -> bytes:
        """Give a JPEG.

        Raises:
            NotFound: of this there is none: no picture, too large a one, or a broken one.
            TooManyRequests: too many are being made.
        """
        pixels = (item.width or 0) * (item.height or 0)
        is_fit = 0 < pixels <= self._most_pixels and item.size <= MOST_BYTES
        if not is_fit or item.sha256 in self._broken:
            raise NotFound(f"no thumbnail of media {item.id}", code="no_thumbnail")
        path = self._folder / f"{item.sha256}{SUFFIX}"
        with suppress(FileNotFoundError):
            return path.read_bytes()
        if not self._places.acquire(blocking=False):
            raise TooManyRequests("many thumbnails are being made", retry_after_s=2)
        try:
            with self._turn, self._turns.putting(item.sha256):  # else it could outlive its blob
                return path.read_bytes() if path.exists() else self._make(item, path)
        finally:
            self._places.release()

    def remove(self, sha256: str) -> None:
        """Remove that of a blob that goes."""
        (self._folder / f"{sha256}{SUFFIX}").unlink(missing_ok=True)

    def _make(self, item: Item, path: Path) -> bytes:
        content = b"".join(self._read(item.sha256, 0, item.size))
        command = [sys.executable, "-P", "-m", "ingest.media.thumbnail", str(self._most_pixels)]
        try:
            done = subprocess.run(command, input=content, capture_output=True, timeout=PATIENCE_S, check=True, env={})
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            MADE.labels("failed").inc()
            if len(self._broken) >= MAX_BROKEN:
                self._broken.clear()
            self._broken.add(item.sha256)
            raise NotFound(f"media {item.id} cannot be read as a picture", code="no_thumbnail") from None
        MADE.labels("made").inc()
        fresh = path.with_suffix(f".{threading.get_ident()}.new")
        try:
            fresh.write_bytes(done.stdout)
            fresh.replace(path)  # not synced: it can be made again
        except OSError:  # on a full disk it is made each time
            fresh.unlink(missing_ok=True)
        return done.stdout
