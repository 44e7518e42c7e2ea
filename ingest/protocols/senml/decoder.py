"""SenML (RFC 8428) in JSON and CBOR to records: one for each of its records that has a value. Knows no device.

Times are kept as given. A name is divided into a device and a field: the device is the longest part of it, up to its
end or to a `:`, `/` or `.`, that the sender may name; else all before the last of these.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from ingest.protocols import parse, times
from ingest.protocols.base import MAX_RECORDS, Context, Decoded, Fault, Record
from ingest.protocols.cbor.decoder import parse as parse_cbor
from ingest.protocols.flatten import Refused, check_text, is_name, number
from ingest.protocols.json.decoder import nothing, place, unreadable
from ingest.protocols.parse import Unreadable
from ingest.protocols.times import EXACT_DIGITS, Inexact
from wire import clock
from wire.points import FieldValue

SCHEME = "senml:"
VERSION = 10
ABSOLUTE_FROM = 2**28  # s; a smaller time is one relative to now
MAX_EXPONENT = 400  # powers of ten that a sum may need
MAX_TIME = 10**11  # s, beyond signed 64-bit ns: stops huge exponents before they become integers
CBOR_LABELS = {-1: "bver", -2: "bn", -3: "bt", -4: "bu", -5: "bv", -6: "bs", 0: "n", 1: "u", 2: "v", 3: "vs", 4: "vb",
               5: "s", 6: "t", 7: "ut", 8: "vd"}  # fmt: skip
BASES = ("bn", "bt", "bu", "bv", "bs")
VALUES = ("v", "vs", "vb", "vd")
ENTRIES = frozenset((*VALUES, "n", "u", "s", "t", "ut"))  # a record without any of these only sets bases
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9:./_-]*")
_SEPARATOR = re.compile(r"[:/.]")
_DATA = re.compile(r"[A-Za-z0-9_-]*")

Pack = list[dict[str, Any]]
Place = tuple[str | None, str]  # external name of the device, the rest of the name


def decode(content: bytes, context: Context) -> Decoded:
    """Decode a pack of JSON."""
    content = parse.trim(content)
    if not content:
        return nothing()
    try:
        value, is_exact = parse.parse(content)
        pack = _open(value, _text_labels)
        try:
            return _Resolver(context, is_exact=is_exact).resolve(pack)
        except Inexact:
            return _Resolver(context, is_exact=True).resolve(_open(parse.parse_exactly(content), _text_labels))
    except Unreadable as error:
        return unreadable(error)


def decode_cbor(content: bytes, context: Context) -> Decoded:
    """Decode a pack of CBOR."""
    if not content:
        return nothing()
    try:
        return _Resolver(context, is_exact=True).resolve(_open(parse_cbor(content), _cbor_labels))
    except Unreadable as error:
        return unreadable(error)


def _open(value: Any, label: Callable[[Any], dict[str, Any]]) -> Pack:
    """Give a pack's records by their labels' names.

    Raises:
        Unreadable: it is no pack, or one of which not a part may be read.
    """
    if type(value) is not list:
        raise Unreadable("bad_structure", "a SenML pack is an array of records")
    if len(value) > MAX_RECORDS:
        raise Unreadable("too_large", f"more than {MAX_RECORDS} records in one pack")
    pack = [label(record) for record in value]
    for record in pack:
        _demand_known(record)
    if not pack:
        raise Unreadable("no_values", "an empty array")
    return pack


def _text_labels(record: Any) -> dict[str, Any]:
    if type(record) is not dict:
        raise Unreadable("bad_structure", "a SenML record is an object")
    return record


def _cbor_labels(record: Any) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise Unreadable("bad_structure", "a SenML record is a map")
    return {_label(key): value for key, value in record.items()}


def _label(key: Any) -> str:
    if type(key) is int:
        return CBOR_LABELS.get(key, f"#{key}")  # one that is not known is ignored
    return key if type(key) is str else "#"


def _demand_known(record: dict[str, Any]) -> None:
    version = record.get("bver", VERSION)
    if type(version) is not int or not 0 < version <= VERSION:
        raise Unreadable("version", f"this is not SenML of version {VERSION} or before")
    for label in record:
        if label[-1:] == "_":
            raise Unreadable("must_understand", f"label {label[:32]!r} must be understood, and is not")


class _Resolver:
    """Applies the bases of a pack to its records (RFC 8428 s. 4.6)."""

    def __init__(self, context: Context, *, is_exact: bool) -> None:
        self._context = context
        self._is_exact = is_exact
        self._received_ns = context.received_ns
        self._policy = times.policy_of(context.type, is_exact=True)
        self._bases: dict[str, Any] = {}
        self._places: dict[str, Place] = {}

    def resolve(self, pack: Pack) -> Decoded:
        """Give the records and faults of a pack.

        Raises:
            Inexact: a number may have been rounded; parse exactly and come again.
        """
        decoded, bases = Decoded(joins=True), self._bases
        for index, entry in enumerate(pack):
            for label in BASES:
                if label in entry:
                    bases[label] = entry[label]
            if ENTRIES.isdisjoint(entry):
                continue
            try:
                decoded.records.append(self._resolve(entry, index))
            except Refused as error:
                decoded.faults.append(Fault(index, error.code, error.detail))
        return decoded if decoded.records or decoded.faults else nothing()

    def _resolve(self, entry: dict[str, Any], index: int) -> Record:
        name = _text(self._bases.get("bn", ""), "bn") + _text(entry.get("n", ""), "n")
        device, rest = self._places.get(name) or self._place(name)
        field = rest or _text(entry.get("u", self._bases.get("bu", "")), "u") or "value"
        if not is_name(field):
            raise Refused("bad_name", "a field's name is 1 to 256 bytes without control characters")
        record = Record(index, self._fields(entry, field), device=device)
        self._set_time(record, entry)
        return record

    def _place(self, name: str) -> Place:
        if _NAME.fullmatch(name) is None:
            raise Refused("bad_name", "a name begins with a letter or digit and goes on with these or : . / _ -")
        ends = [match.start() for match in _SEPARATOR.finditer(name)]
        known = (end for end in (len(name), *reversed(ends)) if SCHEME + name[:end] in self._context.names)
        end = next(known, ends[-1] if ends else None)
        found: Place = (None, name) if end is None else (SCHEME + name[:end], name[end + 1 :])
        self._places[name] = found
        return found

    def _fields(self, entry: dict[str, Any], field: str) -> dict[str, FieldValue]:
        given = [label for label in VALUES if label in entry]
        if len(given) > 1:
            raise Refused("bad_value", f"{' and '.join(given)}: a record has one value")
        if not given and "s" not in entry:
            raise Refused("no_values", "a record without a value")
        fields: dict[str, FieldValue] = {}
        if given:
            fields[field] = self._value(given[0], entry[given[0]])
        if "s" in entry:
            total = f"{field}.sum"
            if not is_name(total):
                raise Refused("bad_name", "a field's name of more than 256 bytes")
            fields[total] = self._sum(entry["s"], "bs", "s")
        return fields

    def _value(self, label: str, value: Any) -> FieldValue:
        if label == "v":
            return self._sum(value, "bv", "v")
        if label == "vb":
            if type(value) is not bool:
                raise Refused("bad_value", "vb is true or false")
            return value
        if label == "vd":
            return _data(value)
        text = _text(value, "vs")
        if (fault := check_text(text)) is not None:
            raise Refused(*fault)
        return text

    def _sum(self, value: Any, base_label: str, label: str) -> FieldValue:
        """Give a number with its base added, as decimals: 20 + 0.1 is 20.1."""
        base = self._bases.get(base_label, 0)
        _demand_number(value, label)
        _demand_number(base, base_label)
        if base != 0:
            value = value + base if type(value) is int and type(base) is int else _add(value, base, label)
        kept = number(value, is_exact=self._is_exact)
        if isinstance(kept, tuple):
            raise Refused(*kept)
        return kept

    def _set_time(self, record: Record, entry: dict[str, Any]) -> None:
        time, base = entry.get("t", 0), self._bases.get("bt", 0)
        for number_, label in ((time, "t"), (base, "bt")):
            _demand_number(number_, label, "bad_time")
            if type(number_) is float and not self._is_exact and len(repr(number_)) > EXACT_DIGITS:
                raise Inexact
        seconds = time + base if type(time) is int and type(base) is int else _add(time, base, "t", "bad_time")
        if not -MAX_TIME < seconds < MAX_TIME:
            raise Refused("bad_time", "a time outside signed 64-bit ns")
        if seconds == 0:
            return  # that of arrival
        time_ns = int(seconds * clock.NS_PER_S)
        if seconds < ABSOLUTE_FROM:
            time_ns += self._received_ns
            record.is_relative = True
        if not clock.MIN_NS <= time_ns <= clock.MAX_NS:
            raise Refused("bad_time", "a time outside signed 64-bit ns")
        place(record, time_ns, self._received_ns, self._policy)


def _text(value: Any, label: str) -> str:
    if type(value) is not str:
        raise Refused("bad_value", f"{label} is a text")
    return value


def _demand_number(value: Any, label: str, code: str = "bad_value") -> None:
    if type(value) not in (int, float, Decimal):
        raise Refused(code, f"{label} is a number")


def _add(value: Any, base: Any, label: str, code: str = "nonfinite") -> Decimal:
    first, second = _decimal(value), _decimal(base)
    if not first.is_finite() or not second.is_finite() or max(first.adjusted(), second.adjusted()) > MAX_EXPONENT:
        raise Refused(code, f"{label} is not a number that a float can hold")
    return first + second


def _decimal(value: Any) -> Decimal:
    return value if type(value) is Decimal else Decimal(repr(value) if type(value) is float else value)


def _data(value: Any) -> str:
    """Give binary data as base64url text without padding."""
    if isinstance(value, bytes):
        return urlsafe_b64encode(value).decode().rstrip("=")
    text = _text(value, "vd").rstrip("=")
    if _DATA.fullmatch(text) is None:
        raise Refused("bad_value", "vd is base64url text")
    return text
