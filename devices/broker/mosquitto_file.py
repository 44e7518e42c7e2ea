"""Access by mosquitto's files: a password file that is replaced whole, and SIGHUP to read it again."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from chassis import logs


class Revocations(Protocol):
    """Our certificates that are no good any more; see `devices.x509.revocations.Revocations`."""

    def write(self) -> list[str] | None: ...
    def is_due(self) -> bool: ...
    def cut(self, devices: list[str]) -> None: ...


log = logs.get(__name__)
BROKER_NAME = "mosquitto"


class MosquittoFile:
    """A BrokerAuth for mosquitto on this machine: its password file, and SIGHUP to read it again."""

    def __init__(
        self,
        passwd_path: Path,
        services_path: Path | None,
        pid_path: Path | None,
        revocations: Revocations | None = None,
    ) -> None:
        self._passwd_path = passwd_path
        self._services_path = services_path
        self._pid_path = pid_path
        self._revocations = revocations
        self._must_signal = False
        self._to_cut: list[str] = []

    def replace(self, users: Sequence[tuple[str, str]]) -> None:
        """See BrokerAuth. A file that would not change is left alone."""
        services = self._services_path.read_text() if self._services_path else ""
        if services and not services.endswith("\n"):
            services += "\n"
        content = (services + "".join(f"{name}:{digest}\n" for name, digest in users)).encode()
        if not _holds(self._passwd_path, content):
            write_whole(self._passwd_path, content)
            self._must_signal = True
        self.review()

    def review(self) -> None:
        """See BrokerAuth: write the list of revoked certificates when it changed."""
        self._note_revoked()
        self.settle()

    def settle(self) -> None:
        """See BrokerAuth: signal a broker that was not ready for it yet, and keep the list of revocations fresh."""
        if self._revocations and self._revocations.is_due():
            self._note_revoked()
        if not self._must_signal:
            return
        pid = _read_pid(self._pid_path)
        if pid is None or not _is_broker(pid):
            self._must_signal = False  # a broker that starts later reads the new file
        elif _catches_hangup(pid):
            os.kill(pid, signal.SIGHUP)
            self._must_signal = False
        if self._revocations and not self._must_signal:
            devices, self._to_cut = self._to_cut, []
            self._revocations.cut(devices)

    def _note_revoked(self) -> None:
        revoked = self._revocations.write() if self._revocations else None
        if revoked is not None:
            self._must_signal = True
            self._to_cut += revoked


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() == content
    except FileNotFoundError:
        return False


def write_whole(path: Path, content: bytes) -> None:
    """Put a new file in the place of the old one: a reader sees all of one or of the other, also after a crash."""
    fresh = path.with_name(path.name + ".new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        _like(file.fileno(), path)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _like(descriptor: int, path: Path) -> None:
    """Give owner and mode of the old file to the new one: a broker that gave up root must be able to read it."""
    try:
        old = path.stat()
    except FileNotFoundError:
        return
    os.fchmod(descriptor, old.st_mode & 0o777)
    if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
        try:
            os.fchown(descriptor, old.st_uid, old.st_gid)
        except PermissionError:
            log.warning("broker_file_owner_kept", path=str(path))


def _read_pid(path: Path | None) -> int | None:
    try:
        text = path.read_text().strip() if path else ""
    except OSError:
        return None
    return int(text) if text.isdigit() and int(text) > 1 else None


def _is_broker(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() == BROKER_NAME
    except OSError:
        return False


def _catches_hangup(pid: int) -> bool:
    """Tell whether the process has its handler for SIGHUP: a broker that is only starting would die of it."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    caught = next((line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:")), "0")
    return bool(int(caught, 16) >> (signal.SIGHUP - 1) & 1)
