"""Media of devices: the limits that gateway, broker and service share, and a blob as it is shown."""

from __future__ import annotations

from pydantic import BaseModel

from wire.points import TimeNs

MIB = 1024**2
DEFAULT_LIMIT_BYTES, MAX_LIMIT_BYTES = 32 * MIB, 4 * 1024 * MIB  # of one blob over HTTP
DEFAULT_MQTT_LIMIT_BYTES, MAX_MQTT_LIMIT_BYTES = 5 * MIB, 64 * MIB  # the broker holds a message whole in memory


class Media(BaseModel):
    """A blob that is kept: what it is, and where it is read."""

    id: int
    device: str
    channel: str
    time: TimeNs
    received: TimeNs
    size: int
    sha256: str
    type: str
    width: int | None
    height: int | None
    path: str
    thumbnail: str | None


class MediaPage(BaseModel):
    """Some of them, newest first, and the cursor of the next page."""

    items: list[Media]
    next: str | None


def content_path(media_id: int) -> str:
    """Give where the blob is read."""
    return f"/v1/media/{media_id}/content"
