"""Access by mosquitto's files: those of passwords and of rights are replaced whole, and SIGHUP has them read again."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from devices.broker.access_list import AccessList
from devices.broker.whole_file import holds, write_whole
from wire.claims import Claim


class Revocations(Protocol):
    """Our certificates that are no good any more; see `devices.x509.revocations.Revocations`."""

    def write(self) -> list[str] | None: ...
    def is_due(self) -> bool: ...
    def cut(self, devices: list[str]) -> None: ...


BROKER_NAME = "mosquitto"


class MosquittoFile:
    """A BrokerAuth for mosquitto on this machine: its password file, its access list, and SIGHUP to read them again."""

    def __init__(
        self,
        passwd_path: Path,
        services_path: Path | None,
        pid_path: Path | None,
        revocations: Revocations | None = None,
        access_list: AccessList | None = None,
    ) -> None:
        self._access_list = access_list
        self._passwd_path = passwd_path
        self._services_path = services_path
        self._pid_path = pid_path
        self._revocations = revocations
        self._must_signal = False
        self._to_cut: list[str] = []

    def grant(self, claims: Sequence[Claim]) -> None:
        """See BrokerAuth."""
        if self._access_list is not None and self._access_list.write(claims):
            self._must_signal = True

    def replace(self, users: Sequence[tuple[str, str]]) -> None:
        """See BrokerAuth. A file that would not change is left alone."""
        services = self._services_path.read_text() if self._services_path else ""
        if services and not services.endswith("\n"):
            services += "\n"
        content = (services + "".join(f"{name}:{digest}\n" for name, digest in users)).encode()
        if not holds(self._passwd_path, content):
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
