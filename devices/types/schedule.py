"""Puts scheduled versions in force when their time comes; run by the one process that hosts the registry's threads."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol

from chassis import logs
from wire import clock
from wire.errors import Unavailable

log = logs.get(__name__)
LOOK_S = 0.5  # gates ask for changes as often: a version is in force everywhere within 1.1 s of its time


class DueRows(Protocol):
    """Where scheduled versions are kept; see `devices.types.store.TypeStore`."""

    def activate_due(self, now_ns: int) -> Sequence[tuple[str, int]]: ...


def run(types: DueRows, stopping: threading.Event) -> None:
    """Look twice a second until stopped; a database that is away is asked again."""
    while not stopping.wait(LOOK_S):
        try:
            done = types.activate_due(clock.now_ns())
        except Unavailable:
            continue
        for name, version in done:
            log.info("type_activated", type=name, version=version)
