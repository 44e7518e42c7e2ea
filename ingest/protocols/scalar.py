"""Single values as texts, one a message: what protocols share whose topics name a field each. Knows none of them."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from ingest.protocols import parse
from ingest.protocols.base import Context, Decoded, Fault, Record
from ingest.protocols.flatten import check_text, is_name, number
from ingest.protocols.json.decoder import unreadable
from wire.points import FieldValue

Kind = Literal["any", "number", "flag", "text"]  # what the protocol says of the value; `any`: nothing

FLAGS = {"true": True, "false": False, "on": True, "off": False}
NOTHING = frozenset(("", "nan", "-nan", "u", "unknown", "unavailable", "none", "null"))  # of what should be a number
LONGEST_NUMBER = 40  # characters: far more than any 64-bit value needs
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,4})?", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d+", re.ASCII)


class Place(NamedTuple):
    """Which field of which device a value is of."""

    measurement: str
    field: str
    device: str | None  # external name; None: the sender's


def decode(content: bytes, place: Place, kind: Kind = "any") -> Decoded:
    """Decode a message that is one value."""
    if not is_name(place.field):
        return unreadable(parse.Unreadable("bad_name", "a name is 1 to 256 bytes without control characters"))
    try:
        text = text_of(content)
    except parse.Unreadable as error:
        return unreadable(error)
    value = read(text, kind)
    if value is None:
        return Decoded(is_event=True, absent=1)
    record = Record(0, {}, measurement=place.measurement, device=place.device)
    if isinstance(value, tuple):
        return Decoded([record], [Fault(0, *value, place.field)])
    record.fields[place.field] = value
    return Decoded([record])


def take(context: Context, place: Place) -> Place:
    """Give a place as it is for a sender: a gateway speaks for whom the topic names, any other for itself."""
    return place if context.is_gateway else place._replace(device=None)


def text_of(content: bytes) -> str:
    """Give the text that a message is.

    Raises:
        Unreadable: it is not UTF-8.
    """
    try:
        return parse.trim(content).decode()
    except UnicodeDecodeError as error:
        raise parse.Unreadable("bad_encoding", f"not UTF-8 at byte {error.start}") from None


def read(text: str, kind: Kind = "any") -> FieldValue | tuple[str, str] | None:
    """Read a value.

    Of `any` kind, a number is a float (whole ones of 2^53 and more stay exact), `true`, `false`, `on` and `off` in
    any case are flags, and all else is a text. A `number` or `flag` that is none is refused.

    Returns:
        The value; reason code and detail when it cannot be kept; None when the text says that there is none.
    """
    if kind == "text":
        return check_text(text) or text
    word = text.strip()
    lowered = word[:LONGEST_NUMBER].lower()
    if kind != "number" and lowered in FLAGS:
        return FLAGS[lowered]
    if kind != "flag" and len(word) <= LONGEST_NUMBER and _NUMBER.fullmatch(word):
        return number(int(word) if _WHOLE.fullmatch(word) else float(word), is_exact=True)
    if not word or (kind != "any" and lowered in NOTHING):
        return None
    if kind != "any":
        return "bad_value", "not a number" if kind == "number" else "neither true nor false, on nor off"
    return check_text(text) or text
