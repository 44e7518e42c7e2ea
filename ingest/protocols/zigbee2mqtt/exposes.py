"""What Zigbee2MQTT tells of its devices' values in `bridge/devices`: units, names and ranges. Pure.

Zigbee2MQTT's documentation, "Exposes". What a device only takes, and never says, is no field.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ingest.protocols.base import MAX_FIELDS, Description
from ingest.protocols.flatten import segment

MEASUREMENT = "zigbee"
SAID = 1  # the bit of `access` of what is in a device's state
MAX_DESCRIBED = 20_000  # of a message
MAX_DEPTH = 4


def describe(devices: Iterable[dict[str, Any]], naming: Callable[[str], str]) -> Iterator[Description]:
    """Give what is told of the fields of all devices; `naming` gives the names of friendly ones."""
    left = MAX_DESCRIBED
    for device in devices:
        told = list(_of_device(device, naming))[: min(MAX_FIELDS, left)]
        left -= len(told)
        yield from told


def _of_device(device: dict[str, Any], naming: Callable[[str], str]) -> Iterator[Description]:
    definition = device.get("definition")
    if type(definition) is dict:
        yield from _walk(definition.get("exposes"), naming(device["friendly_name"]), (), 1)


def _walk(exposes: Any, device: str, before: tuple[str, ...], depth: int) -> Iterator[Description]:
    """Go through features; those of a composite are members of its own object, those of a light are not."""
    for expose in exposes if type(exposes) is list and depth <= MAX_DEPTH else ():
        if type(expose) is not dict:
            continue
        own = expose.get("property")
        names = (*before, segment(own)) if type(own) is str else before
        if type(expose.get("features")) is list:
            yield from _walk(expose["features"], device, names, depth + 1)
        elif names != before and all(names) and _is_said(expose.get("access")):
            yield _describe(expose, device, ".".join(names))


def _is_said(access: Any) -> bool:
    return type(access) is not int or bool(access & SAID)


def _describe(expose: dict[str, Any], device: str, field: str) -> Description:
    unit, label, kind = (_text(expose.get(name)) for name in ("unit", "label", "name"))
    low, high = (_bound(expose.get(name)) for name in ("value_min", "value_max"))
    return Description(field, MEASUREMENT, device, unit=unit, label=label, kind=kind, low=low, high=high)


def _text(value: Any) -> str:
    return value if type(value) is str else ""


def _bound(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) and abs(value) < 2**63 else None
