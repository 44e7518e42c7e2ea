"""Ports: is one free, and which inner ones to use (those of the last run where they still are)."""

from __future__ import annotations

import errno
import json
import random
import socket
from collections.abc import Iterable
from pathlib import Path

from compose.config import LOOPBACK
from compose.folder import StartError, write_private

# Below Linux' ephemeral range: an outgoing connection must not sit on the port of a service that restarts.
FIRST, LAST = 20_000, 32_000
TRIES = 200


def check_free(host: str, port: int, option: str) -> None:
    """Make sure that a port can be bound.

    Raises:
        StartError: it cannot; the text names the port and the option that changes it.
    """
    fault = _bind_fault(host, port)
    if fault is None:
        return
    if fault == errno.EADDRINUSE:
        raise StartError(
            f"port {port} on {host} is taken by another program; stop that one, or choose another port:"
            f" {option} {_next_free(host, port)}",
        )
    if fault == errno.EACCES:
        raise StartError(f"port {port} needs root rights; choose one above 1023 with {option}")
    raise StartError(f"{host} is not an address of this machine; choose another with --bind")


def choose(names: Iterable[str], memory: Path) -> dict[str, int]:
    """Give each name a free port on the loopback, the one of last time if it is still free, and remember them."""
    try:
        last = json.loads(memory.read_text())
    except (OSError, ValueError):
        last = {}
    chosen: dict[str, int] = {}
    for name in names:
        port = last.get(name, 0) if isinstance(last, dict) else 0
        is_usable = isinstance(port, int) and FIRST <= port <= LAST and port not in chosen.values()
        chosen[name] = port if is_usable and is_free(LOOPBACK, port) else pick(chosen.values())
    write_private(memory, json.dumps(chosen))
    return chosen


def is_free(host: str, port: int) -> bool:
    """Tell whether a port can be bound now."""
    return _bind_fault(host, port) is None


def pick(avoid: Iterable[int] = (), host: str = LOOPBACK) -> int:
    """Pick a free port."""
    taken = set(avoid)
    for _ in range(TRIES):
        port = random.randint(FIRST, LAST)  # noqa: S311 - no secret
        if port not in taken and is_free(host, port):
            return port
    raise StartError(f"no free port between {FIRST} and {LAST} on {host}")


def _next_free(host: str, port: int) -> int:
    """Find a port to propose."""
    return next((other for other in range(port + 1, min(port + 100, 65_536)) if is_free(host, other)), 0)


def _bind_fault(host: str, port: int) -> int | None:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror:
        return errno.EADDRNOTAVAIL
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do: TIME_WAIT is not taken
        try:
            probe.bind(address)
            probe.listen(1)
        except OSError as error:
            return error.errno
    return None
