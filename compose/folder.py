"""The data folder: where everything of an installation lies, who holds it, and whether it can be written."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from pathlib import Path

PRIVATE = 0o700
LOCK_TRIES, LOCK_PAUSE_S = 10, 0.03


class StartError(Exception):
    """Something outside stops the start; the text is one line for a person."""


class Folder:
    """Paths of an installation."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()
        self.lock = self.root / "lock"
        self.secrets = self.root / "secrets"
        self.run = self.root / "run"
        self.broker = self.root / "broker"
        self.gateway = self.run / "nginx"
        self.state = self.run / "state.json"
        self.ports = self.run / "ports.json"
        self.tls_cert = self.root / "tls" / "server.pem"  # our own, with --tls
        self.tls_key = self.secrets / "tls.key"

    def prepare(self) -> None:
        """Make the folders and check that they can be written.

        Raises:
            StartError: they cannot.
        """
        if any(ord(char) < ord(" ") for char in str(self.root)):
            raise StartError("the path of the data folder holds a control character; choose another with --data")
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            for private in (self.secrets, self.run, self.broker, self.gateway):
                private.mkdir(mode=PRIVATE, exist_ok=True)
                private.chmod(PRIVATE)
            with tempfile.TemporaryFile(dir=self.run) as probe:
                probe.write(b"1")
                probe.flush()
        except OSError as error:
            reason = error.strerror or str(error)
            raise StartError(
                f"the data folder {self.root} cannot be written ({reason}); choose another with --data",
            ) from None

    def hold(self) -> int:
        """Take the folder for this process until it ends; give the lock's descriptor.

        Raises:
            StartError: another process holds it.
        """
        try:
            descriptor = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StartError(f"the data folder {self.root} cannot be written ({error.strerror})") from None
        if not _lock(descriptor):
            holder = os.read(descriptor, 20).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise StartError(
                f"headwater already runs on the data folder {self.root} (pid {holder});"
                " stop it first, or choose another folder with --data",
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return descriptor

    def is_held(self) -> bool:
        """Tell whether a supervisor runs on this folder."""
        try:
            descriptor = os.open(self.lock, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False


def _lock(descriptor: int) -> bool:
    """Take the lock; several tries, because `is_held` of another process has it for a moment."""
    for _ in range(LOCK_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(LOCK_PAUSE_S)
        else:
            return True
    return False


def write_private(path: Path, content: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    fresh.rename(path)
