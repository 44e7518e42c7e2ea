"""States and availability of the devices behind a Zigbee2MQTT to records and presence. Pure.

What a message is tells its topic, below a base topic that is free: Zigbee2MQTT's documentation, "MQTT Topics and
Messages". A gateway speaks for the devices that its topics name; any other sender for itself.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

from ingest.protocols import objects, parse
from ingest.protocols.base import Context, Decoded
from ingest.protocols.json.decoder import unreadable
from ingest.protocols.objects import Said
from ingest.protocols.zigbee2mqtt import exposes

Naming = Callable[[str], str]  # friendly name -> external name

BASE = "zigbee2mqtt"
WORDS = {"online": True, "offline": False}
COMMANDS = frozenset(("set", "get"))  # or, of one attribute, the level before the last
OF_BRIDGE = frozenset(
    ("config", "converters", "definitions", "devices", "event", "extensions", "groups", "health", "info", "log",
     "logging", "networkmap", "request", "response", "state")
)  # fmt: skip


def decode(content: bytes, context: Context) -> Decoded:
    """Decode a single message; without what the bridge told before it, a device is called by its friendly name."""
    return take(content, context, name_of)


def take(content: bytes, context: Context, naming: Naming) -> Decoded:
    """Decode a device's state or availability; over a door of ours, a state. `naming` gives friendly ones' names."""
    levels = below_base(objects.own_topic(context))
    if is_of_devices(levels):
        return _devices(content, context, naming)
    if COMMANDS.intersection(levels[1:][-2:]) or _is_of_bridge(levels):
        return Decoded(is_event=True)
    if len(levels) > 1 and levels[-1] == "availability":
        return _availability(parse.trim(content), naming("/".join(levels[:-1])), context)
    device = naming("/".join(levels)) if levels and context.is_gateway else None
    return objects.read(content, context, "zigbee", partial(_state, device), may_be_empty=True)


def below_base(topic: str) -> list[str]:
    """Give the levels below the base topic: one level, or several of which one is `zigbee2mqtt`."""
    levels = topic.split("/")
    return levels[levels.index(BASE) + 1 if BASE in levels else 1 :]


def _is_of_bridge(levels: list[str]) -> bool:
    """Tell whether Zigbee2MQTT speaks of itself; anywhere, as a base topic may have levels that are not known here."""
    return any(one == "bridge" and other in OF_BRIDGE for one, other in pairwise(levels))


def name_of(friendly: str) -> str:
    """Give the external name that a friendly name is by itself."""
    return f"zigbee:{friendly}"


def is_of_devices(levels: list[str]) -> bool:
    """Tell whether the bridge tells of all its devices."""
    return levels[-2:] == ["bridge", "devices"]


def read_devices(content: bytes) -> list[dict[str, Any]]:
    """Give the devices that the bridge tells of, those that have a name.

    Raises:
        Unreadable: it is no JSON.
    """
    value, _ = parse.parse(parse.trim(content))
    devices = value if type(value) is list else []
    return [each for each in devices if type(each) is dict and type(each.get("friendly_name")) is str]


def _devices(content: bytes, context: Context, naming: Naming) -> Decoded:
    try:
        devices = read_devices(content)
    except parse.Unreadable as error:
        return unreadable(error)
    return Decoded(is_event=True, described=list(exposes.describe(devices, naming)) if context.is_gateway else [])


def _availability(content: bytes, name: str, context: Context) -> Decoded:
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
