"""Which version of which device type a point was judged by: the registry knows the numbers that points carry."""

from __future__ import annotations

import threading
from collections.abc import Set as AbstractSet
from typing import Any
from urllib.parse import urlencode

from chassis.peers import Peer
from wire.errors import PeerUnavailable

MAX_KNOWN = 10_000  # a number never changes its meaning, so what is known stays known
ASKED_AT_ONCE = 500


class Judges:
    """Names versions; thread-safe."""

    def __init__(self, registry: Peer) -> None:
        self._registry = registry
        self._lock = threading.Lock()  # guards _known
        self._known: dict[int, dict[str, Any]] = {}

    def name(self, ids: AbstractSet[int]) -> dict[int, dict[str, Any]]:
        """Give `{"id","type","version"}` of each; type and version are None while the registry is away."""
        with self._lock:
            found = {id_: self._known[id_] for id_ in ids if id_ in self._known}
        missing = sorted(ids - found.keys())
        for start in range(0, len(missing), ASKED_AT_ONCE):
            found |= self._ask(missing[start : start + ASKED_AT_ONCE])
        return {id_: found.get(id_, {"id": id_, "type": None, "version": None}) for id_ in ids}

    def _ask(self, ids: list[int]) -> dict[int, dict[str, Any]]:
        try:
            answer = self._registry.call("GET", f"/internal/type-versions?{urlencode({'id': ids}, doseq=True)}")
        except PeerUnavailable:
            return {}
        fresh = {item["id"]: item for item in answer["items"]}
        with self._lock:
            if len(self._known) + len(fresh) > MAX_KNOWN:
                self._known.clear()
            self._known |= fresh
        return fresh
