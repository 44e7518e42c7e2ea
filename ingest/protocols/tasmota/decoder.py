"""Tasmota's messages to records: SENSOR at the root, STATE under `state.`; all else it says is no reading.

Which it is tells the last level of the topic, whatever the levels before it are: FullTopic is free (Tasmota's
documentation, "MQTT"). A gateway speaks for the devices that its topics name; any other sender for itself.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from ingest.protocols import objects, parse
from ingest.protocols.base import Context, Decoded
from ingest.protocols.json.decoder import unreadable
from ingest.protocols.objects import Said

WORDS = {b"Online": True, b"Offline": False}
PREFIXES = ("tele", "stat")
NO_FIELDS = ("Time", "Epoch", "TempUnit")
_OLD_TIME = re.compile(r"(\d{4})\.(\d\d)\.(\d\d) (\d\d:\d\d:\d\d)")  # firmware before 6.0


def decode(content: bytes, context: Context) -> Decoded:
    """Decode one object of SENSOR or STATE, or a last will; over a door of ours, SENSOR."""
    topic = objects.own_topic(context)
    kind, device = topic.rpartition("/")[2] if topic else "SENSOR", _name_of(topic)
    if kind == "LWT":
        is_online = WORDS.get(parse.trim(content))
        if is_online is None:
            return unreadable(parse.Unreadable("bad_value", "the last will says Online or Offline"))
        return objects.tell_presence(device, is_online, context)
    if kind not in ("SENSOR", "STATE"):
        return Decoded(is_event=True)
    prefix = "state" if kind == "STATE" else ""
    return objects.read(content, context, "tasmota", partial(_open, device if context.is_gateway else None, prefix))


def _name_of(topic: str) -> str | None:
    """Give the external name of the device that a topic names: its levels without prefix and kind; None: no name."""
    levels = topic.split("/")[:-1]
    if levels and levels[0] in PREFIXES:
        levels = levels[1:]
    elif levels and levels[-1] in PREFIXES:
        levels = levels[:-1]
    return f"tasmota:{'/'.join(levels)}" if levels else None


def _open(device: str | None, prefix: str, value: dict[str, Any]) -> Said:
    members = {name: member for name, member in value.items() if name not in NO_FIELDS}
    named = {prefix: members} if prefix else members
    token = value.get("Epoch", value.get("Time"))
    if isinstance(token, str):
        token = _OLD_TIME.sub(r"\1-\2-\3T\4", token)
    return Said(named, device, token, "s" if "Epoch" in value else "auto")
