"""External names: what protocols call devices that are not ours, `<scheme>:<name>`, and the ids made of them. Pure.

They are kept as they came and compared byte for byte: `spb:Plant A/Line 1/Pump 7`, `senml:urn:dev:ow:10e2073a01080063`.
"""

from __future__ import annotations

import re
import unicodedata
from hashlib import sha256

MAX_NAME_BYTES = 256  # of UTF-8, with the scheme
MAX_MADE = 57  # characters of a made id: room for a dash and 6 digits
DIGITS = (0, 6, 32)  # of the name's hash, in the order in which ids are tried
WORDED_BY = {
    "spb": "sparkplug",
    "lora": "lorawan",
}  # schemes whose devices get their commands in the words of a protocol's service
_FORM = re.compile(r"([a-z][a-z0-9_]{0,31}):(.+)", re.DOTALL)
_ODD = re.compile(r"[^A-Za-z0-9_.-]")


def is_external_name(text: str) -> bool:
    """Tell whether the text is an external name: a scheme, a name, of bounded length, without control characters."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:  # a lone surrogate is no character
        return False
    if size > MAX_NAME_BYTES or _FORM.fullmatch(text) is None:
        return False
    return text.isprintable() or not any(unicodedata.category(character) == "Cc" for character in text)


def plain_name(name: str) -> str:
    """Give an external name without its scheme."""
    return name.partition(":")[2]


def scheme_of(name: str) -> str:
    """Give the scheme of an external name."""
    return name.partition(":")[0]


def to_device_id(name: str, digits: int = 0) -> str:
    """Make a device id of an external name.

    Args:
        name: an external name.
        digits: how many of the hexadecimal digits of the name's SHA-256 end it, because it is taken without them.
    """
    scheme, _, plain = name.partition(":")
    made = _ODD.sub("-", plain.replace("/", ".")).lstrip("_.-")[: min(MAX_MADE, 63 - digits)] or scheme
    return f"{made}-{sha256(name.encode()).hexdigest()[:digits]}" if digits else made
