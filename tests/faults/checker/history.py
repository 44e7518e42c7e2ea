"""The checker's own ledger: what was sent and what was acknowledged, on disk. Shares no code with the product.

FOLDER/history.txt, one entry a line: `sent DEVICE BOOT SEQ TIME_MS` (0: no time of its own), `acked DEVICE BOOT SEQ`,
`note UNIX_S TEXT`. A reading is fsynced as sent before it leaves; an acknowledgement is written when it is seen and
fsynced with the next entry, so a checker that dies can only have promised less than it was promised.
"""

from __future__ import annotations

import os
import threading
import time
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

FILE = "history.txt"


class Key(NamedTuple):
    device: str
    boot: str
    seq: int

    @property
    def value(self) -> float:
        """What the reading says: known from its key, so that a stored row can be checked for damage."""
        return zlib.crc32(f"{self.device}/{self.boot}/{self.seq}".encode()) / 8


class History:
    """Append-only and thread-safe."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._descriptor = os.open(folder / FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._lock = threading.Lock()
        self.count_sent = self.count_acked = 0

    def sent(self, keys: Iterable[Key], time_ms: int) -> None:
        lines = [f"sent {key.device} {key.boot} {key.seq} {time_ms}\n" for key in keys]
        with self._lock:
            os.write(self._descriptor, "".join(lines).encode())
            os.fsync(self._descriptor)
            self.count_sent += len(lines)

    def acked(self, keys: Iterable[Key]) -> None:
        lines = [f"acked {key.device} {key.boot} {key.seq}\n" for key in keys]
        with self._lock:
            os.write(self._descriptor, "".join(lines).encode())
            self.count_acked += len(lines)

    def note(self, text: str) -> None:
        with self._lock:
            os.write(self._descriptor, f"note {time.time():.3f} {text}\n".encode())

    def close(self) -> None:
        os.fsync(self._descriptor)
        os.close(self._descriptor)


class Account(NamedTuple):
    sent: set[Key]
    acked: set[Key]


def load(folder: Path) -> Account:
    account = Account(set(), set())
    for line in (folder / FILE).read_text().splitlines():
        word, *rest = line.split(" ")
        if word in ("sent", "acked") and len(rest) >= 3:  # the last line of a killed checker may be torn
            getattr(account, word).add(Key(rest[0], rest[1], int(rest[2])))
    return account
