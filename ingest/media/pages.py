"""Where a page of media ended, as text that nobody needs to read."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode

from ingest.media.index import Item
from wire.errors import BadRequest


def write_cursor(last: Item) -> str:
    """Name the last one of a page."""
    return urlsafe_b64encode(f"{last.time_ns}.{last.id}".encode()).decode()


def read_cursor(cursor: str | None) -> tuple[int, int] | None:
    """Give its time and number; None: from the newest on. Raises BadRequest."""
    if cursor is None:
        return None
    try:
        time_ns, _, media_id = urlsafe_b64decode(cursor.encode()).decode().partition(".")
        return int(time_ns), int(media_id)
    except ValueError:
        raise BadRequest("a cursor that is none of ours") from None
