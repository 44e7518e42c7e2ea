"""Notifications and states of Shelly devices (Gen2 and later) to records. Pure.

Which it is tells the end of the topic; the prefix before it is free (Shelly's documentation, "MQTT", `topic_prefix`).
A notification says whose it is (`src`); of all else the prefix tells. A gateway speaks for them; any other sender for
itself.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from ingest.protocols import objects, parse
from ingest.protocols.base import Context, Decoded
from ingest.protocols.flatten import Refused
from ingest.protocols.json.decoder import unreadable
from ingest.protocols.objects import Said

NOTIFICATIONS = "/events/rpc"
WORDS = {b"true": True, b"false": False}
STATUS = ("NotifyStatus", "NotifyFullStatus")
_DEVICE_ID = re.compile(r"[a-z0-9]+-[0-9a-f]{12}")  # shellyplus1pm-aabbccddeeff: the prefix, unless it was changed


def decode(content: bytes, context: Context) -> Decoded:
    """Decode a notification, the state of a component, or the last will; over a door of ours, a notification."""
    topic = objects.own_topic(context)
    if not topic or topic.endswith(NOTIFICATIONS):
        return objects.read(content, context, "shelly", partial(_notified, context), may_be_empty=True)
    before, _, last = topic.rpartition("/")
    if last == "online":
        return _online(parse.trim(content), before, context)
    prefix, _, kind = before.rpartition("/")
    if kind != "status" or not prefix:
        return Decoded(is_event=True)
    device = f"shelly:{id_of(prefix)}" if context.is_gateway else None
    return objects.read(content, context, "shelly", partial(_state, device, last), may_be_empty=True)


def id_of(prefix: str) -> str:
    """Give the id that a prefix ends with, else all of it."""
    last = prefix.rpartition("/")[2]
    return last if _DEVICE_ID.fullmatch(last) else prefix


def _online(content: bytes, prefix: str, context: Context) -> Decoded:
    is_online = WORDS.get(content)
    if is_online is None:
        return unreadable(parse.Unreadable("bad_value", "online says true or false"))
    name = f"shelly:{id_of(prefix)}"
    # Of a prefix that is no id, only a name that is known tells a device: it must not become a second child.
    is_named = context.is_gateway and (_DEVICE_ID.fullmatch(id_of(prefix)) is not None or name in context.names)
    return objects.tell_presence(name if is_named else None, is_online, context)


def _notified(context: Context, frame: dict[str, Any]) -> Said | None:
    method, source, params = frame.get("method"), frame.get("src"), frame.get("params")
    if method == "NotifyEvent":
        return None
    if method not in STATUS:
        raise Refused("unsupported", f"a notification is one of {', '.join(STATUS)}, NotifyEvent")
    if type(params) is not dict or type(source) is not str:
        raise Refused("bad_structure", "a notification has a src and an object of params")
    members = {named(key): _without_id(value) for key, value in params.items() if key != "ts"}
    return Said(members, f"shelly:{source}" if context.is_gateway else None, params.get("ts"), "s")


def _state(device: str | None, component: str, value: dict[str, Any]) -> Said:
    return Said({named(component): _without_id(value)}, device)


def named(component: str) -> str:
    """Give `switch0` for `switch:0`."""
    return component.replace(":", "", 1)


def _without_id(value: Any) -> Any:
    """Take the number of a component out of its state: its name tells it."""
    return {key: member for key, member in value.items() if key != "id"} if type(value) is dict else value
