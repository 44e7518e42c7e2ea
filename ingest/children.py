"""Devices that a gateway speaks for: whose they are, and what becomes of those nobody knows.

Every door that carries the data of others comes here, whatever its protocol: a gateway's rights end at its own
children and at the prefixes of its rules. The registry decides about unknown ones; its refusals are remembered shortly.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import NamedTuple

from ingest.gate import Gate, Known
from wire import topics

REFUSED_S = 2.0  # how long a refusal is not asked for again: changed rules hold within that
MAX_REFUSED = 20_000


class Found(NamedTuple):
    """Children of many gateways: those that may be spoken for, and why the others may not."""

    known: dict[tuple[str, str], Known]  # by gateway and child
    refused: dict[tuple[str, str], str]  # code; `peer_unavailable`: the registry could not be asked


class Children:
    """Finds the children of gateways; thread-safe."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._lock = threading.Lock()  # guards _refused
        self._refused: dict[tuple[str, str], tuple[float, str]] = {}  # -> until, monotonic; code

    def find(self, wanted: Iterable[tuple[Known, str]]) -> Found:
        """Find each gateway's child, each pair named once; those that its rules let in are registered on the way."""
        pairs = list(wanted)
        found = self._gate.find({child for _, child in pairs if topics.is_device_id(child)})
        known: dict[tuple[str, str], Known] = {}
        refused: dict[tuple[str, str], str] = {}
        unknown: dict[str, list[str]] = {}
        for gateway, child in pairs:
            device = found.known.get(child)
            if code := _trespass(gateway, child, device):
                refused[gateway.id, child] = code
            elif device is not None:
                known[gateway.id, child] = device
            elif child in found.unanswered:
                refused[gateway.id, child] = "peer_unavailable"
            elif not self._is_remembered(gateway.id, child, refused):
                unknown.setdefault(gateway.id, []).append(child)
        for gateway_id, children in unknown.items():
            self._admit(gateway_id, children, known, refused)
        return Found(known, refused)

    def _admit(
        self,
        gateway: str,
        children: list[str],
        known: dict[tuple[str, str], Known],
        refused: dict[tuple[str, str], str],
    ) -> None:
        codes = self._gate.admit_children(gateway, children)
        if codes is None:
            refused |= {(gateway, child): "peer_unavailable" for child in children}
            return
        admitted = [child for child in children if child not in codes]
        found = self._gate.find(admitted)
        for child in admitted:
            device = found.known.get(child)
            if device is not None and device.parent == gateway:
                known[gateway, child] = device
            else:  # taken by somebody else meanwhile, or the registry went away just now
                code = "peer_unavailable" if child in found.unanswered else "identity_mismatch"
                refused[gateway, child] = code
        for child, code in codes.items():
            refused[gateway, child] = code
            self._remember(gateway, child, code)

    def _is_remembered(self, gateway: str, child: str, refused: dict[tuple[str, str], str]) -> bool:
        until_s, code = self._refused.get((gateway, child), (0.0, ""))
        if time.monotonic() >= until_s:
            return False
        refused[gateway, child] = code
        return True

    def _remember(self, gateway: str, child: str, code: str) -> None:
        with self._lock:
            if len(self._refused) >= MAX_REFUSED:
                self._refused.clear()
            self._refused[gateway, child] = (time.monotonic() + REFUSED_S, code)


def _trespass(gateway: Known, child: str, device: Known | None) -> str | None:
    """Give the code when the gateway may not speak for this id, as far as that is known here."""
    if not gateway.is_gateway or not topics.is_device_id(child):
        return "identity_mismatch"
    if gateway.prefixes and not child.startswith(gateway.prefixes):
        return "identity_mismatch"
    if device is not None and (device.parent != gateway.id or device.tenant != gateway.tenant):
        return "identity_mismatch"
    if gateway.is_held or not gateway.is_active:
        return "device_disabled"
    return "device_disabled" if device is not None and not device.is_active else None
