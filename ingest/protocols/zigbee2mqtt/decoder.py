"""States and availability of the devices behind a Zigbee2MQTT to records and presence. Pure.

What a message is tells its topic, below a base topic that is free: Zigbee2MQTT's documentation, "MQTT Topics and
Messages". A gateway speaks for the devices that its topics name; any other sender for itself.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

from ingest.protocols import objects, parse
from ingest.protocols.base import Context, Decoded
from ingest.protocols.json.decoder import unreadable
from ingest.protocols.objects import Said
from ingest.protocols.zigbee2mqtt import exposes

BASE = "zigbee2mqtt"
WORDS = {"online": True, "offline": False}
COMMANDS = frozenset(("set", "get"))  # or, of one attribute, the level before the last
OF_BRIDGE = frozenset(
    ("config", "converters", "definitions", "devices", "event", "extensions", "groups", "health", "info", "log",
     "logging", "networkmap", "request", "response", "state")
)  # fmt: skip


def decode(content: bytes, context: Context) -> Decoded:
    """Decode a device's state or availability; over a door of ours, a state."""
    levels = below_base(objects.own_topic(context))
    if levels[-2:] == ["bridge", "devices"]:
        return _devices(content, context)
    if COMMANDS.intersection(levels[1:][-2:]) or _is_of_bridge(levels):
        return Decoded(is_event=True)
    if len(levels) > 1 and levels[-1] == "availability":
        return _availability(parse.trim(content), name_of(levels[:-1]), context)
    device = name_of(levels) if context.is_gateway else None
    return objects.read(content, context, "zigbee", partial(_state, device), may_be_empty=True)


def below_base(topic: str) -> list[str]:
    """Give the levels below the base topic: one level, or several of which one is `zigbee2mqtt`."""
    levels = topic.split("/")
    return levels[levels.index(BASE) + 1 if BASE in levels else 1 :]


def _is_of_bridge(levels: list[str]) -> bool:
    """Tell whether Zigbee2MQTT speaks of itself; anywhere, as a base topic may have levels that are not known here."""
    return any(one == "bridge" and other in OF_BRIDGE for one, other in pairwise(levels))


def name_of(levels: list[str]) -> str | None:
    """Give the external name of the device with the friendly name of these levels; None: of none."""
    return f"zigbee:{'/'.join(levels)}" if levels else None


def _devices(content: bytes, context: Context) -> Decoded:
    try:
        value, _ = parse.parse(parse.trim(content))
    except parse.Unreadable as error:
        return unreadable(error)
    is_told = context.is_gateway and type(value) is list
    return Decoded(is_event=True, described=list(exposes.describe(value)) if is_told else [])


def _availability(content: bytes, name: str | None, context: Context) -> Decoded:
    try:
        is_online = WORDS.get(_word_of(content))
    except parse.Unreadable as error:
        return unreadable(error)
    if is_online is None:
        return unreadable(parse.Unreadable("bad_value", "availability is online or offline"))
    return objects.tell_presence(name, is_online, context)


def _word_of(content: bytes) -> str:
    """Give the word of `online`, or of `{"state": "online"}`; empty: there is none. Raises Unreadable."""
    word: Any = content.decode("ascii", "replace")
    if content.startswith(b"{"):
        value, _ = parse.parse(content)
        word = value.get("state")
    return word if isinstance(word, str) else ""


def _state(device: str | None, value: dict[str, Any]) -> Said:
    members = {name: member for name, member in value.items() if name != "last_seen"}
    return Said(members, device, value.get("last_seen"))
