"""Line protocol to records: a record a line, whose neighbours do not touch it. Knows no device and no store.

The unit of times is said by the path that the message came by (`SOURCE`), else by the device type, else it is ns.
"""

from __future__ import annotations

import math

from ingest.protocols import parse, times
from ingest.protocols.base import MAX_FIELDS, MAX_MESSAGE_BYTES, MAX_RECORDS, Context, Decoded, Fault, Record
from ingest.protocols.flatten import Refused, check_text
from ingest.protocols.json.decoder import nothing, place, take_identity, too_many_records
from ingest.protocols.line import grammar
from wire import clock
from wire.points import INT64_MAX, INT64_MIN, UINT64_MAX, FieldValue

SOURCE = "precision="  # what a path tells the decoder, with a key of UNITS behind it
UNITS = {  # ns
    "n": 1, "ns": 1, "u": 1_000, "us": 1_000, "\u00b5": 1_000, "ms": clock.NS_PER_MS, "s": clock.NS_PER_S,
    "m": 60 * clock.NS_PER_S, "h": 3_600 * clock.NS_PER_S,
}  # fmt: skip
SCHEME = "line:"  # of the names that lines have for devices
NAMING_TAGS = ("device", "device_id", "host", "id")  # the first of them names whom a gateway speaks for
MAX_STRING_BYTES = 128 * 1024
MAX_DIGITS = 20  # of an integer within 64 bits, with its sign
WORDS = dict.fromkeys(("t", "T", "true", "True", "TRUE"), True) | dict.fromkeys(
    ("f", "F", "false", "False", "FALSE"), False
)
NONFINITE = frozenset(("nan", "inf", "+inf", "-inf", "infinity", "+infinity", "-infinity"))

_EXACT = times.policy_of(None, is_exact=True)
_Kept = FieldValue | tuple[str, str]  # a value, or the reason code and detail of one that cannot be kept


def decode(content: bytes, context: Context) -> Decoded:
    """Decode lines; the index of a record is the number of its line, from 0."""
    content = parse.trim(content)
    if content.count(b"\n") >= MAX_RECORDS:
        return too_many_records()
    reader = _Reader(context)
    try:
        text, is_damaged = content.decode(), False
    except UnicodeDecodeError:
        text, is_damaged = content.decode(errors="surrogateescape"), True
    for index, line in grammar.lines(text):
        try:
            reader.take(index, line, is_damaged=is_damaged)
        except Refused as error:
            reader.decoded.faults.append(Fault(index, error.code, error.detail))
    return reader.decoded if reader.decoded.records or reader.decoded.faults else nothing()


class _Reader:
    def __init__(self, context: Context) -> None:
        self.decoded = Decoded()
        self._received_ns = context.received_ns
        self._is_gateway = context.is_gateway
        self._unit_ns = _unit_of(context)
        self._policy = times.policy_of(context.type, is_exact=True) if context.type is not None else _EXACT

    def take(self, index: int, line: str, *, is_damaged: bool) -> None:
        """Add the record of a line, and the faults of its fields.

        Raises:
            Refused: nothing of it can be kept.
        """
        if len(line) > MAX_MESSAGE_BYTES:
            raise Refused("too_large", f"a line of more than {MAX_MESSAGE_BYTES} bytes")
        if is_damaged and any("\ud800" <= mark <= "\udfff" for mark in line):
            raise Refused("bad_encoding", "not UTF-8")
        measurement, tags, fields, time = grammar.parse(line)
        if len(fields) > MAX_FIELDS:
            raise Refused("too_many_fields", f"more than {MAX_FIELDS} fields")
        record = Record(index, {}, measurement=measurement, tags=tags)
        if self._is_gateway:
            _name_device(record)
        faults = [fault for field in fields if (fault := _put(record, field))]
        if time:
            place(record, self._to_ns(time), self._received_ns, self._policy)
        if "boot_id" in record.fields and "seq" in record.fields:
            record.boot_id, record.seq = take_identity(record.fields)
        self.decoded.faults += faults
        self.decoded.records.append(record)

    def _to_ns(self, time: str) -> int:
        time_ns = int(time) * self._unit_ns if len(time) <= MAX_DIGITS else clock.MAX_NS + 1
        if not clock.MIN_NS <= time_ns <= clock.MAX_NS:
            raise Refused("bad_time", "time outside signed 64-bit ns")
        return time_ns


def _unit_of(context: Context) -> int:
    unit = context.topic.removeprefix(SOURCE) if context.topic.startswith(SOURCE) else ""
    if not unit and context.type is not None:
        unit = context.type.time_unit  # `auto` is no unit here: what says none is ns
    return UNITS.get(unit, 1)


def _name_device(record: Record) -> None:
    tag = next((tag for tag in NAMING_TAGS if tag in record.tags), None)
    if tag is not None:
        record.tags = dict(record.tags)  # those of a line are shared
        record.device = SCHEME + record.tags.pop(tag)


def _put(record: Record, field: grammar.Field) -> Fault | None:
    """Add a field to a record; the last of one name wins. Give the fault of one that cannot be kept."""
    name, number = grammar.field_name(field[0]), field[1]
    if not name:
        shown = field[0].encode(errors="replace")[:256].decode(errors="ignore")
        return Fault(record.index, "bad_name", "a name is 1 to 256 bytes without control characters", shown)
    if number and -math.inf < (value := float(number)) < math.inf:
        record.fields[name] = value
        return None
    kept = _read(*field[1:])
    if type(kept) is tuple:
        return Fault(record.index, *kept, name)
    record.fields[name] = kept  # type: ignore[assignment]
    return None


def _read(number: str, signed: str, unsigned: str, word: str, string: str) -> _Kept:
    if string:
        text = grammar.unquote(string)
        return check_text(text, MAX_STRING_BYTES) or text
    if signed:
        return _integer(signed, INT64_MIN, INT64_MAX)
    if unsigned:
        return _integer(unsigned, 0, UINT64_MAX)
    if number or word.lower() in NONFINITE:
        return "nonfinite", "not a finite number"
    if word in WORDS:
        return WORDS[word]
    raise Refused("bad_syntax", f"{word[:40]!r} is no number, string or boolean")


def _integer(digits: str, least: int, most: int) -> _Kept:
    value = int(digits) if len(digits) <= MAX_DIGITS else UINT64_MAX + 1
    return value if least <= value <= most else ("out_of_range", f"an integer outside {least} to {most}")
