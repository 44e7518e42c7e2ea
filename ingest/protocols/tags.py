"""What a tag of a series may be, whatever protocol it comes by."""

from __future__ import annotations

from ingest.protocols.flatten import Refused, is_name

MAX_TAGS = 64
MAX_TAG_BYTES = 1_024  # of a tag's value


def check_tag(key: str, value: str) -> None:
    """Raise Refused for what cannot be a tag."""
    if not is_name(key):
        raise Refused("bad_name", "the key of a tag is 1 to 256 bytes without control characters")
    if len(value.encode(errors="replace")) > MAX_TAG_BYTES or not _is_plain(value):
        raise Refused("bad_value", f"the value of a tag is 1 to {MAX_TAG_BYTES} bytes without control characters")


def _is_plain(text: str) -> bool:
    return (text.isascii() and text.isprintable()) or not any(mark < " " or mark == "\x7f" for mark in text)
