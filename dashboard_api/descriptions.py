"""What is known of fields beside their values: what devices told of them, and before it what their types say."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from chassis.peers import Peer
from wire.errors import HeadwaterError

ASKED_AT_ONCE = 1_000
NAMED = ("unit", "label", "kind", "min", "max", "description")
Known = dict[tuple[str, str], dict[str, Any]]  # by measurement and field; of a type's fields the measurement is ""


class Descriptions:
    """Asks the registry; thread-safe."""

    def __init__(self, registry: Peer) -> None:
        self._registry = registry

    def of(self, tenant: str, devices: Collection[str]) -> dict[str, Known] | None:
        """Give by device what is known of its fields; None: the registry is away."""
        ids, found = sorted(devices), dict[str, Known]()
        for start in range(0, len(ids), ASKED_AT_ONCE):
            asked = {"tenant": tenant, "devices": ids[start : start + ASKED_AT_ONCE]}
            try:
                answer = self._registry.call("POST", "/internal/descriptions:lookup", asked)
            except HeadwaterError:
                return None
            found |= {device: by_field(fields) for device, fields in answer["items"].items()}
        return found


def by_field(fields: Iterable[Mapping[str, Any]]) -> Known:
    """Give what was told of each field, without what was not said of it."""
    return {
        (each["measurement"], each["field"]): {name: each[name] for name in NAMED if each.get(name) not in (None, "")}
        for each in fields
    }


def describe(known: Known, measurement: str, field: str) -> dict[str, Any]:
    """Give what is known of a field: what the type says goes before what was told."""
    return known.get((measurement, field), {}) | known.get(("", field), {})
