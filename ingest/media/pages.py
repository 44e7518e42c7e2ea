"""Where a page of media ended, as text that nobody needs to read."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode

from ingest.media.index import Item
from wire.errors import BadRequest

MAX_INTEGER = 2**63 - 1  # of SQLite


def write_cursor(last: Item) -> str:
    """Name the last one of a page."""
    return urlsafe_b64encode(f"{last.time_ns}.{last.id}".encode()).decode()


def read_cursor(cursor: str | None) -> tuple[int, int] | None:
    """Give its time and number; None: from the newest on. Raises BadRequest."""
    if cursor is None:
        return None
    try:
        time_ns, _, media_id = urlsafe_b64decode(cursor.encode()).decode().partition(".")
        found = int(time_ns), int(media_id)
    except ValueError:
        found = (MAX_INTEGER, -1)
    if not 0 <= found[1] <= MAX_INTEGER or abs(found[0]) > MAX_INTEGER:
        raise BadRequest("a cursor that is none of ours")
    return found
