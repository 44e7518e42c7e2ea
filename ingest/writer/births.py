"""Whether a device is still the one it was when a reading of it was let in.

A gate hears a moment late that a device was deleted and another one was added under its id. Until then it lets readings
of the new one in under the birth of the old one, where their numbers would be taken for copies. So before a numbered
reading is dropped as a copy, the registry is asked what changed: one question for all readings received before it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from chassis.peers import Peer
from ingest.readings import Reading
from wire import clock
from wire.devices import Changes, LookupResult
from wire.errors import HeadwaterError

ANSWER_S = 1.0  # the writer waits meanwhile
AWAY_S = 10.0  # until a registry that did not answer is asked again
MAX_CHANGED = 100_000  # devices; about 100 bytes each. What is forgotten here is found by `departures` a moment later


class Births:
    """Knows when devices were registered that changed lately. Used by one thread."""

    def __init__(self, registry: Peer, revision: int, *, now_ns: Callable[[], int] = clock.now_ns) -> None:
        """`revision`: how far the registry was read for devices that are no more."""
        self._registry = registry
        self._revision = revision
        self._now_ns = now_ns
        self._asked_ns = 0
        self._next_s = 0.0
        self._born: dict[str, int | None] = {}  # of devices that changed; None: not looked up yet

    def of(self, reading: Reading) -> int:
        """Give the birth of the device that sent it; as the reading says where nothing else is known."""
        if reading.received_ns >= self._asked_ns and time.monotonic() >= self._next_s:
            self._ask(self._follow)
        if reading.device in self._born and self._born[reading.device] is None:
            self._ask(lambda: self._look_up(reading.device))
        born_ns = self._born.get(reading.device) or 0
        return born_ns if 0 < reading.born_ns < born_ns <= reading.received_ns else reading.born_ns

    def _ask(self, question: Callable[[], None]) -> None:
        try:
            question()
        except HeadwaterError:
            self._next_s = time.monotonic() + AWAY_S

    def _follow(self) -> None:
        asked_ns = self._now_ns()
        answer = self._registry.call("GET", f"/internal/changes?since={self._revision}")
        changes = Changes.model_validate(answer)
        if len(self._born) + len(changes.devices) > MAX_CHANGED:
            self._born.clear()
        self._born |= dict.fromkeys(changes.devices[-MAX_CHANGED:])
        self._revision, self._asked_ns = changes.revision, asked_ns

    def _look_up(self, device: str) -> None:
        answer = self._registry.call("POST", "/internal/devices:lookup", {"ids": [device]})
        found = LookupResult.model_validate(answer).devices
        self._born[device] = found[0].created_ns if found else 0
