"""What devices tell of their fields, on its way to the registry: bounded, best effort, and only what is new."""

from __future__ import annotations

import math
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from ingest.gate import Known
from ingest.protocols.base import Description
from ingest.protocols.flatten import is_name
from wire.descriptions import MAX_KIND, MAX_LABEL, MAX_UNIT
from wire.external import is_external_name, plain_name

MAX_WAITING = 20_000  # fields
MAX_TOLD = 20_000  # fields of which it is remembered what the registry was told
AGAIN_S = 3_600.0  # after which all is told once more: the registry may have been set back

Key = tuple[str, int, str, str, str]  # sender, when it was registered, external name or "", measurement, field


class Descriptions:
    """Collects. Thread-safe; `take` and `settle` are called by one thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the three below
        self._waiting: dict[Key, dict[str, Any]] = {}
        self._told: dict[Key, dict[str, Any]] = {}  # what the registry was told
        self._since_s = time.monotonic()

    def note(self, sender: Known, described: Iterable[Description]) -> None:
        """Note what a sender told; what cannot be used of it is left out."""
        fresh = {}
        for one in described:
            name = "" if one.device is None or plain_name(one.device) == sender.id else one.device
            is_usable = is_name(one.field) and is_name(one.measurement) and (not name or is_external_name(name))
            said = _said(one) if is_usable else {}
            if said:
                fresh[sender.id, sender.born_ns, name, one.measurement, one.field] = said
        with self._lock:
            for key, said in fresh.items():
                if not said.items() <= self._told.get(key, {}).items() or key in self._waiting:
                    self._put(key, said)

    def take(self, most: int) -> dict[Key, dict[str, Any]]:
        """Give some of what the registry was not told yet."""
        with self._lock:
            return dict(list(self._waiting.items())[:most])

    def settle(self, taken: Mapping[Key, dict[str, Any]]) -> None:
        """Remember that the registry was told."""
        with self._lock:
            if len(self._told) + len(taken) > MAX_TOLD or time.monotonic() - self._since_s > AGAIN_S:
                self._told.clear()
                self._since_s = time.monotonic()
            for key, said in taken.items():
                self._told[key] = self._told.get(key, {}) | said
                if self._waiting.get(key) == said:
                    del self._waiting[key]

    def _put(self, key: Key, said: dict[str, Any]) -> None:
        if key in self._waiting or len(self._waiting) < MAX_WAITING:
            self._waiting[key] = self._waiting.get(key, {}) | said


def to_body(taken: Mapping[Key, dict[str, Any]]) -> dict[str, Any]:
    """Give the body of a report: what was told, by sender and name."""
    grouped: defaultdict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for (device, _, name, measurement, field), said in taken.items():
        grouped[device, name].append({"measurement": measurement, "field": field} | said)
    return {"told": [{"device": device, "name": name, "fields": fields} for (device, name), fields in grouped.items()]}


def _said(one: Description) -> dict[str, Any]:
    """Give what a description says, in bounds."""
    texts = {"unit": (one.unit, MAX_UNIT), "label": (one.label, MAX_LABEL), "kind": (one.kind, MAX_KIND)}
    bounds = {"min": one.low, "max": one.high}
    said: dict[str, Any] = {name: plain for name, given in texts.items() if (plain := _plain(*given))}
    return said | {name: bound for name, bound in bounds.items() if bound is not None and math.isfinite(bound)}


def _plain(text: str, most: int) -> str:
    """Make a text one short line of characters that can be shown."""
    return "".join(mark for mark in text[: 4 * most] if mark.isprintable())[:most].strip()
