r"""Nested JSON values to named fields, by the rules all JSON-like protocols share.

Keys are joined by `.`, a `.` inside a key is written `\.`, array elements are `.0`, `.1`; null and empty containers
give no field. Numbers are floats as long as a float holds them exactly.
"""

from __future__ import annotations

import math
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from ingest.protocols.base import MAX_ARRAY, MAX_DEPTH, MAX_FIELDS, MAX_KEY_BYTES, MAX_STRING_BYTES
from ingest.protocols.times import Inexact
from wire.points import INT64_MIN, UINT64_MAX, FieldValue

EXACT_BELOW = 2**53  # from here on neighbouring integers share a float
ROUNDED_FROM = float(2**63)  # orjson turns integers outside 64 bits into floats without a word
SHORT = MAX_STRING_BYTES // 4  # no string of so few characters is over the limit
KNOWN_KEYS = 4_096  # keys of a fleet repeat; a device with random keys only costs itself the cache

_FIRST_PRINTABLE, _DELETE = " ", "\x7f"


class FieldFault(NamedTuple):
    """Why one field of a record is not taken."""

    name: str
    code: str
    detail: str


class Refused(Exception):  # noqa: N818 - an answer about the record
    """Why a whole record is not taken; `code` is a reason code."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code, self.detail = code, detail


def flatten(
    members: dict[str, Any], *, is_exact: bool = False, is_typed: bool = False
) -> tuple[dict[str, FieldValue], list[FieldFault]]:
    """Give the fields of an object, and the faults of those that cannot be taken.

    `is_typed`: the source tells integers from floats, so integers stay what they are.

    Raises:
        Refused: too deep or too many fields.
        Inexact: a float may be a rounded integer; parse exactly and call again with `is_exact`.
    """
    walk = _Walk(is_exact=is_exact, is_typed=is_typed)
    fields = walk.fields
    for key, value in members.items():
        kind, name = type(value), segment(key) if len(key) <= MAX_KEY_BYTES else ""
        if not name:
            walk.refuse(key, "bad_name", "a name is 1 to 256 bytes without control characters")
        elif kind is float and -ROUNDED_FROM < value < ROUNDED_FROM:
            fields[name] = value
        elif kind is int and -EXACT_BELOW < value < EXACT_BELOW:
            fields[name] = value if is_typed else float(value)
        elif kind is bool or (kind is str and len(value) <= SHORT and value.isascii()):
            fields[name] = value
        else:
            walk.put(name, value, 1)
    walk.check_count()
    return fields, walk.faults


@lru_cache(maxsize=KNOWN_KEYS)  # callers hand in no long keys, so the cache stays small
def segment(key: str) -> str:
    """Give a key as one part of a field's name; empty when no name may hold it."""
    return key.replace(".", "\\.") if is_name(key) else ""


def is_name(name: str) -> bool:
    """Tell whether a text can name a field."""
    if len(name) > MAX_KEY_BYTES:
        return False
    if name.isascii() and name.isprintable():  # nearly every name: a tenth of the walk below
        return bool(name)
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return False
    return 0 < size <= MAX_KEY_BYTES and not any(mark < _FIRST_PRINTABLE or mark == _DELETE for mark in name)


def check_text(value: str, limit_bytes: int = MAX_STRING_BYTES) -> tuple[str, str] | None:
    """Give the reason code and detail of a text that cannot be a value, or None."""
    if len(value) <= SHORT and value.isascii():
        return None
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        return "bad_encoding", "a lone surrogate is no character"
    if size > limit_bytes:
        return "too_large", f"a text of {size} bytes, limit {limit_bytes}"
    return None


def number(value: float | Decimal, *, is_exact: bool, is_typed: bool = False) -> FieldValue | tuple[str, str]:
    """Give a number as a field keeps it, or the reason code and detail of one that cannot be kept.

    Raises:
        Inexact: see flatten.
    """
    if type(value) is int:
        if -EXACT_BELOW < value < EXACT_BELOW:
            return value if is_typed else float(value)
        return value if INT64_MIN <= value <= UINT64_MAX else ("out_of_range", "an integer outside 64 bits")
    as_float = float(value)
    if not math.isfinite(as_float):
        return "nonfinite", "not a finite number"
    if not is_exact and abs(as_float) >= ROUNDED_FROM:
        raise Inexact
    return as_float


def compact(value: Any, *, is_exact: bool) -> str | tuple[str, str]:
    """Give a container as compact JSON text, or the reason code and detail of one that cannot be kept.

    Raises:
        Inexact: see flatten.
    """
    fault = _find_odd(value, 1, is_exact=is_exact)
    if fault:
        return fault
    try:
        text = orjson.dumps(value, default=float).decode()
    except TypeError:  # lone surrogates, in a key or a value
        return "bad_encoding", "a lone surrogate is no character"
    return check_text(text) or text


def _find_odd(value: Any, depth: int, *, is_exact: bool) -> tuple[str, str] | None:
    if depth > MAX_DEPTH:
        raise Refused("too_deep", f"nested more than {MAX_DEPTH} deep")
    if type(value) in (float, int, Decimal):
        kept = number(value, is_exact=is_exact)
        return kept if isinstance(kept, tuple) else None
    if type(value) not in (dict, list):
        return None
    members = value.values() if type(value) is dict else value
    found = (_find_odd(member, depth + 1, is_exact=is_exact) for member in members)
    return next((fault for fault in found if fault), None)


class _Walk:
    """Fields and faults of one record while its containers are walked."""

    def __init__(self, *, is_exact: bool, is_typed: bool) -> None:
        self.fields: dict[str, FieldValue] = {}
        self.faults: list[FieldFault] = []
        self.is_exact, self.is_typed = is_exact, is_typed

    def put(self, name: str, value: Any, depth: int) -> None:
        """Add whatever a value inside a container at `depth` gives."""
        kind = type(value)
        if kind is dict:
            self._put_object(name, value, depth + 1)
        elif kind is list:
            self._put_array(name, value, depth + 1)
        elif value is not None:
            self._put_scalar(name, value)

    def refuse(self, name: str, code: str, detail: str) -> None:
        """Note that a field is not taken."""
        shown = name.encode(errors="replace")[:MAX_KEY_BYTES].decode(errors="ignore")
        self.faults.append(FieldFault(shown, code, detail))
        self.check_count()

    def check_count(self) -> None:
        """Stop at too many fields, before a large message makes many more."""
        if len(self.fields) + len(self.faults) > MAX_FIELDS:
            raise Refused("too_many_fields", f"more than {MAX_FIELDS} fields")

    def _put_object(self, name: str, members: dict[str, Any], depth: int) -> None:
        _check_depth(depth)
        for key, value in members.items():
            part = segment(key) if len(key) <= MAX_KEY_BYTES else ""
            if part:
                self.put(f"{name}.{part}", value, depth)
            else:
                self.refuse(f"{name}.{key}", "bad_name", "a name is 1 to 256 bytes without control characters")

    def _put_array(self, name: str, elements: list[Any], depth: int) -> None:
        _check_depth(depth)
        if len(elements) > MAX_ARRAY and not any(type(element) in (dict, list) for element in elements):
            self._keep(name, compact(elements, is_exact=self.is_exact))
            return
        for position, element in enumerate(elements):
            self.put(f"{name}.{position}", element, depth)

    def _put_scalar(self, name: str, value: Any) -> None:
        if type(value) is str:
            self._keep(name, check_text(value) or value)
        elif type(value) is bool:
            self._keep(name, value)
        else:
            self._keep(name, number(value, is_exact=self.is_exact, is_typed=self.is_typed))

    def _keep(self, name: str, value: FieldValue | tuple[str, str]) -> None:
        if isinstance(value, tuple):
            self.refuse(name, *value)
        elif not is_name(name):
            self.refuse(name, "bad_name", f"a name of more than {MAX_KEY_BYTES} bytes")
        else:
            self.fields[name] = value
            self.check_count()


def _check_depth(depth: int) -> None:
    if depth > MAX_DEPTH:
        raise Refused("too_deep", f"nested more than {MAX_DEPTH} deep")
