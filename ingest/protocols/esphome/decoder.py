"""States of ESPHome's components to records. Pure.

A topic is `{prefix}/{component}/{object id}/state`, or one more level before `state` for a part of a component; the
prefix is free and may have several levels (ESPHome's documentation, "MQTT Client Component"). A gateway speaks for the
nodes that the prefixes name; any other sender for itself.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

from ingest.protocols import objects, parse, scalar
from ingest.protocols.base import Context, Decoded
from ingest.protocols.flatten import segment
from ingest.protocols.json.decoder import unreadable
from ingest.protocols.objects import Said
from ingest.protocols.scalar import Kind, Place

MEASUREMENT = "esphome"
WORDS = {b"online": True, b"offline": False}
KINDS: dict[str, Kind] = {
    "sensor": "number", "number": "number", "binary_sensor": "flag", "switch": "flag",
    "text_sensor": "text", "text": "text", "select": "text", "event": "text", "datetime": "text",
    "alarm_control_panel": "text", "button": "any", "climate": "any", "cover": "any", "fan": "any", "light": "any",
    "lock": "text", "update": "any", "valve": "any",
}  # fmt: skip


def decode(content: bytes, context: Context) -> Decoded:
    """Decode the state of a component, or the word on a node's presence; over a door of ours, an object of values."""
    topic = objects.own_topic(context)
    if not topic:
        return objects.read(content, context, MEASUREMENT, Said)
    prefix, _, last = topic.rpartition("/")
    if last == "status" and prefix:
        is_online = WORDS.get(parse.trim(content))
        if is_online is None:
            return unreadable(parse.Unreadable("bad_value", "status is online or offline"))
        return objects.tell_presence(f"esphome:{prefix}", is_online, context)
    found = find(topic)
    if found is None:
        return Decoded(is_event=True)
    place, kind = scalar.take(context, found.place), found.kind
    if content.lstrip()[:1] == b"{":  # a light: its state is an object
        return objects.read(
            content, context, MEASUREMENT, partial(_state, found.names, place.device), may_be_empty=True
        )
    return scalar.decode(content, place, kind)


class Found(NamedTuple):
    """What a topic says of the value on it."""

    place: Place
    kind: Kind
    names: list[str]  # levels of the topic that make the field


def find(topic: str) -> Found | None:
    """Tell of what value a topic is the state; None: of none.

    A sensor's field is its object id, any other's `{component}.{object id}`: a sensor and a switch may share one.
    """
    levels = topic.split("/")
    # the component is the last level that is one, with one or two before `state`, and a prefix
    at = next((at for at in (len(levels) - 3, len(levels) - 4) if at > 0 and levels[at] in KINDS), None)
    if at is None or levels[-1] != "state":
        return None
    component = levels[at]
    names = levels[at + 1 if component == "sensor" else at : -1]
    parts = [segment(name) for name in names]
    place = Place(MEASUREMENT, ".".join(parts) if all(parts) else "", f"esphome:{'/'.join(levels[:at])}")
    return Found(place, KINDS[component] if at == len(levels) - 3 else "any", names)


def _state(names: list[str], device: str | None, value: dict[str, Any]) -> Said:
    members = value
    for name in reversed(names):
        members = {name: members}
    return Said(members, device)
