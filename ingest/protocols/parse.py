"""JSON text to values: quick with orjson, exact with the standard library when orjson fails or would round.

Knows nothing of readings. Every failure is an Unreadable with a reason code; nothing else escapes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from typing import Any

import orjson

BOM = b"\xef\xbb\xbf"
JUNK = b"\x00\r\n"  # ESP firmware sends the NUL that ends its string; orjson rejects it
MAX_INTEGER_DIGITS = 40  # more than any 64-bit value needs; int() of thousands of digits costs quadratic time
UNREADABLE_INTEGER: int = 10**MAX_INTEGER_DIGITS  # stands for any integer that is longer: outside every range


class Unreadable(Exception):  # noqa: N818 - it is an answer about the bytes, not a fault of ours
    """Bytes that are not one JSON value; `code` is a reason code."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code, self.detail = code, detail


def trim(content: bytes) -> bytes:
    """Take off one byte order mark and the NUL, CR and LF at the end."""
    return content.removeprefix(BOM).rstrip(JUNK)


def parse(content: bytes) -> tuple[Any, bool]:
    """Parse one value; tell whether it was parsed exactly (see `parse_exactly`).

    Raises:
        Unreadable: it is not one JSON value.
    """
    try:
        return orjson.loads(content), False
    except orjson.JSONDecodeError:
        return parse_exactly(content), True


def parse_exactly(content: bytes) -> Any:
    """Parse with NaN and Infinity allowed, integers of any size as int, and fractions as Decimal.

    Raises:
        Unreadable: it is not one JSON value.
    """
    try:
        return json.loads(content.decode(), parse_float=_fraction, parse_int=_integer)
    except UnicodeDecodeError as error:
        raise Unreadable("bad_encoding", f"not UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise Unreadable("too_deep", "nested deeper than any reading may be") from None
    except json.JSONDecodeError as error:
        code = "trailing_data" if error.msg.startswith("Extra data") else "bad_syntax"
        raise Unreadable(code, f"not JSON: {error.msg} at character {error.pos}") from None
    except ValueError as error:
        raise Unreadable("bad_syntax", f"not JSON: {str(error)[:200]}") from None


def lines(content: bytes) -> Iterable[bytes]:
    """Give the lines of NDJSON that are not blank."""
    return (line for line in content.split(b"\n") if line and not line.isspace())


def are_lines(content: bytes) -> bool:
    """Tell whether bytes that are not one value look like NDJSON: their first line is a value of its own."""
    head, newline, _ = content.lstrip().partition(b"\n")
    try:
        return bool(newline) and isinstance(parse(head)[0], dict)
    except Unreadable:
        return False


def _fraction(text: str) -> Decimal | float:
    try:
        return Decimal(text)
    except InvalidOperation:  # an exponent of 19 digits
        return float(text)


def _integer(text: str) -> int:
    if len(text) <= MAX_INTEGER_DIGITS:
        return int(text)
    return -UNREADABLE_INTEGER if text[0] == "-" else UNREADABLE_INTEGER
