"""The registry's directory, remembered for a few seconds: who is online, of which type, with which tags."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from chassis.peers import Peer
from dashboard_api.service import Entry
from wire.devices import TENANT
from wire.errors import BadRequest, PeerUnavailable

FRESH_S = 3.0  # presence on a page may be this old; 10,000 devices cost the registry one listing per 3 s
CHOSEN_FRESH_S = 0.8  # what a query finds: with `feed.RECHECK_S` less than the 2 s that are promised
STALE_S = 300.0  # how long groupings go on while the registry is away
PAGE = 5_000
MAX_DEVICES = 1_000_000
MAX_CHOSEN = 30_000  # devices of one query: as many as a store takes by name
MAX_QUERIES = 64  # remembered; each is asked again after CHOSEN_FRESH_S


class PeerDirectory:
    """Reads the directory from the devices service, one reader at a time."""

    def __init__(self, registry: Peer) -> None:
        self._registry = registry
        self._lock = threading.Lock()  # guards _entries, _read_s
        self._chosen_lock = threading.Lock()  # guards _chosen
        self._chosen: dict[tuple[str, str, str], tuple[float, tuple[str, ...]]] = {}
        self._entries: dict[str, dict[str, Entry]] = {}  # by tenant
        self._read_s = -STALE_S

    def entries(self, tenant: str) -> Mapping[str, Entry]:
        """See service.Directory."""
        with self._lock:
            return self._fresh().get(tenant, {})

    def chosen(self, tenant: str, query: str, scope: str = "") -> Sequence[str]:
        """See service.Directory. The registry finds; only the ids that fit cross the wire, once in CHOSEN_FRESH_S."""
        with self._chosen_lock:
            read_s, ids = self._chosen.get((tenant, query, scope), (-STALE_S, ()))
        age_s = time.monotonic() - read_s
        if age_s < CHOSEN_FRESH_S:
            return ids
        try:
            ids = self._choose(tenant, query, scope)
        except PeerUnavailable:
            if age_s >= STALE_S:
                raise
            return ids
        with self._chosen_lock:
            self._chosen.pop((tenant, query, scope), None)
            self._chosen[tenant, query, scope] = (time.monotonic(), ids)
            if len(self._chosen) > MAX_QUERIES:
                del self._chosen[next(iter(self._chosen))]
        return ids

    def _choose(self, tenant: str, query: str, scope: str) -> tuple[str, ...]:
        ids: list[str] = []
        asked: dict[str, Any] = {"tenant": tenant, "query": query, "scope": scope, "limit": PAGE}
        while len(ids) <= MAX_CHOSEN:
            page = self._registry.call("POST", "/internal/devices:select", asked)
            ids += page["ids"]
            if not page["next"]:
                return tuple(ids)
            asked["after"] = page["next"]
        raise BadRequest(f"the query finds more than {MAX_CHOSEN} devices, the limit here", fields=["q"])

    def _fresh(self) -> dict[str, dict[str, Entry]]:
        age_s = time.monotonic() - self._read_s
        if age_s < FRESH_S:
            return self._entries
        try:
            self._entries = self._read()
        except PeerUnavailable:
            if age_s >= STALE_S:
                raise
            return self._entries
        self._read_s = time.monotonic()
        return self._entries

    def _read(self) -> dict[str, dict[str, Entry]]:
        entries: dict[str, dict[str, Entry]] = {}
        cursor, read = "", 0
        while read < MAX_DEVICES:
            asked = urlencode({"limit": PAGE} | ({"cursor": cursor} if cursor else {}))
            page = self._registry.call("GET", f"/internal/directory?{asked}")
            for item in page["devices"]:
                entry = Entry(item["id"], item.get("type"), item.get("tags") or {}, bool(item["online"]))
                entries.setdefault(item.get("tenant", TENANT), {})[entry.id] = entry
            read += len(page["devices"])
            cursor = page.get("next") or ""
            if not cursor:
                break
        return entries
