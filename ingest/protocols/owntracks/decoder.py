"""Locations of OwnTracks to records. Pure.

What a message is tells its `_type` (OwnTracks' documentation, "JSON"). Configurations hold passwords: nothing of a
message that speaks of one is kept. A gateway speaks for the phones that its topics name; any other sender for itself.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from ingest.protocols import objects
from ingest.protocols.base import Context, Decoded
from ingest.protocols.flatten import Refused
from ingest.protocols.objects import Said

OTHERS = frozenset(
    ("beacon", "card", "cmd", "lwt", "request", "status", "steps", "transition", "waypoint", "waypoints")
)
NO_FIELDS = ("_type", "tst", "topic")
SECRET = b"configuration"
TOLD = ("/cmd", "/dump")  # ends of topics on which configurations go to phones and come from them


def decode(content: bytes, context: Context) -> Decoded:
    """Decode a location."""
    topic = objects.own_topic(context)
    if SECRET in content or topic.endswith(TOLD):  # even what does not parse: the quarantine shows it
        return Decoded(is_event=True)
    return objects.read(content, context, "owntracks", partial(_open, topic, context))


def _open(topic: str, context: Context, value: dict[str, Any]) -> Said | None:
    kind = value.get("_type")
    if kind in OTHERS:
        return None
    if kind != "location":
        raise Refused("unsupported", "a `_type` that OwnTracks does not document, or that is encrypted")
    members = {name: member for name, member in value.items() if name not in NO_FIELDS}
    phone = topic.partition("/")[2]
    return Said(members, f"owntracks:{phone}" if context.is_gateway and phone else None, value.get("tst"), "s")
