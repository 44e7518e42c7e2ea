"""The point of a blob: size, SHA-256, type, and of a picture width and height. The blob itself is kept elsewhere."""

from __future__ import annotations

import hashlib
import re
from io import BytesIO

from ingest.protocols.base import Context, Decoded, Fault, Record
from ingest.protocols.media.pictures import Broken, Look, look
from wire import topics
from wire.points import FieldValue

MEASUREMENT = "media"
DEFAULT_CHANNEL = "default"
CHANNEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def decode(content: bytes, context: Context) -> Decoded:
    """Decode a blob that is whole in memory; see Decoder."""
    if not content:
        return Decoded(faults=[Fault(0, "no_values", "an empty blob")], is_unreadable=True)
    channel = channel_of(context.topic)
    if channel is None:
        return Decoded(faults=[Fault(0, "bad_topic", f"no channel: {context.topic[:80]}")], is_unreadable=True)
    try:
        seen = look(BytesIO(content), context.content_type)
    except Broken as error:
        return Decoded(faults=[Fault(0, "media_type", str(error))], is_unreadable=True)
    return Decoded([to_record(seen, len(content), hashlib.sha256(content).hexdigest(), channel)])


def channel_of(topic: str) -> str | None:
    """Give the channel of `devices/{id}/media/{channel}`; None: another topic, or a name that cannot be one."""
    parsed = topics.parse_device_topic(topic)
    if parsed is None or parsed.channel != "media":
        return DEFAULT_CHANNEL if not topic or (parsed and parsed[1:] == ("telemetry", "media")) else None
    return parsed.rest if CHANNEL.fullmatch(parsed.rest) else None


def to_record(seen: Look, size: int, sha256: str, channel: str, time_ns: int | None = None) -> Record:
    """Give the reading of a blob."""
    fields: dict[str, FieldValue] = {"media.size": size, "media.sha256": sha256, "media.type": seen.type}
    if seen.is_picture:
        fields |= {"media.width": seen.width, "media.height": seen.height}
    return Record(0, fields, time_ns, measurement=MEASUREMENT, tags={"channel": channel})
