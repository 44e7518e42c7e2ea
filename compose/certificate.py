"""The installation's own server certificate (`--tls`): whom it names, when it is looked at, who reads it anew.

`compose.issuer` makes it in a process of its own, so that the supervisor carries neither database nor cryptography.
"""

from __future__ import annotations

import fcntl
import os
import re
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from compose.child import python
from compose.config import LOOPBACK, UpConfig
from compose.folder import Folder, StartError

ISSUE_S = 60.0
LOOK_S = 86_400.0  # how often a running installation looks whether its certificate is to be renewed
_NAME = re.compile(r"[A-Za-z0-9:][A-Za-z0-9.:-]{0,252}", re.ASCII)
_SIOCGIFADDR = 0x8915  # linux/sockios.h: the IPv4 address of an interface

Tend = Callable[[int], None]


def ensure(folder: Folder, config: UpConfig, environ: Mapping[str, str]) -> UpConfig:
    """Make or renew the certificate where it is asked for; give the settings with its paths.

    Raises:
        StartError: it cannot be made.
    """
    if not config.tls:
        return config
    command = _command(folder, config)
    try:
        done = subprocess.run(
            command, env=_environment(folder, config, environ), capture_output=True, text=True, timeout=ISSUE_S,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise StartError(
            f"the certificate was not made within {ISSUE_S:.0f} s: the registry's database is busy"
        ) from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["nothing said"]
        raise StartError(f"the certificate for --tls cannot be made: {said[-1]}")
    return config.model_copy(update={"tls_cert": folder.tls_cert, "tls_key": folder.tls_key})


def renewing(folder: Folder, config: UpConfig, environ: Mapping[str, str]) -> Tend:
    """Give what is to be done now and then: start `compose.issuer` each LOOK_S, in the background."""
    command, env = _command(folder, config), _environment(folder, config, environ)
    looked_s, running = time.monotonic(), list[subprocess.Popen[bytes]]()

    def look(_pid: int) -> None:
        nonlocal looked_s
        running[:] = [each for each in running if each.poll() is None]
        if running or time.monotonic() - looked_s < LOOK_S:
            return
        looked_s = time.monotonic()
        running.append(subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL))

    return look


def rereading(folder: Folder) -> Tend:
    """Give what is to be done now and then with the pid of a server: have it read a renewed certificate."""
    known = _written_ns(folder)

    def look(pid: int) -> None:
        nonlocal known
        now = _written_ns(folder)
        if now != known:
            known = now
            os.kill(pid, signal.SIGHUP)  # nginx and mosquitto read it anew, and connections stay

    return look


def restarting(folder: Folder) -> Tend:
    """Give what is to be done now and then with the pid of the broker: end it when it is to trust another authority.

    mosquitto reads the authorities it trusts only when it starts; it saves its sessions before it ends.
    """
    path = folder.broker / "ca.pem"
    known = _content_of(path)

    def look(pid: int) -> None:
        nonlocal known
        now = _content_of(path)
        before, known = known, now
        if before and now and now != before:
            os.kill(pid, signal.SIGTERM)

    return look


def together(*tends: Tend) -> Tend:
    """Make one of several."""

    def look(pid: int) -> None:
        for tend in tends:
            tend(pid)

    return look


def names(config: UpConfig) -> list[str]:
    """Give the names and addresses by which this machine is reached, without asking the network."""
    own = [name.strip() for name in config.tls_names.split(",") if name.strip()]
    found = [*own, socket.gethostname(), "localhost", LOOPBACK, "::1", config.bind, *_addresses()]
    return [name for name in dict.fromkeys(found) if _NAME.fullmatch(name) and name not in ("0.0.0.0", "::")]


def _addresses() -> list[str]:
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, interface in socket.if_nameindex():
            with suppress(OSError):  # it has none
                answer = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack("256s", interface.encode()[:15]))
                found.append(socket.inet_ntoa(answer[20:24]))
    with suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        probe.connect(("2001:db8::1", 9))  # sends nothing; tells by which address this machine would go out
        found.append(probe.getsockname()[0])
    return found


def _command(folder: Folder, config: UpConfig) -> list[str]:
    return python("-P", "-m", "compose.issuer", str(folder.root), *names(config))


def _environment(folder: Folder, config: UpConfig, environ: Mapping[str, str]) -> dict[str, str]:
    own = {
        "REGISTRY": config.registry,
        "REGISTRY_KEY_FILE": str(folder.secrets / "registry.key"),
    }
    hidden = {f"HEADWATER_{name.removesuffix('_FILE')}{end}" for name in own for end in ("", "_FILE")}
    kept = {name: value for name, value in environ.items() if name not in hidden}
    return kept | {f"HEADWATER_{name}": value for name, value in own.items()}


def _content_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _written_ns(folder: Folder) -> int:
    try:
        return folder.tls_cert.stat().st_mtime_ns
    except OSError:
        return 0
