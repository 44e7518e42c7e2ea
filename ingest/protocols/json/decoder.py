"""Plain JSON to records: objects, `{"ts", "values"}`, arrays of either, NDJSON. Knows no device and no store."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from ingest.protocols import parse, times
from ingest.protocols.base import MAX_MESSAGE_BYTES, MAX_RECORDS, Context, Decoded, Fault, Record
from ingest.protocols.flatten import Refused, flatten, is_name
from ingest.protocols.times import Inexact
from wire.devices import DeviceType
from wire.points import INT64_MAX, UNCERTAIN

TIME_KEYS = ("ts", "time", "timestamp", "Time")
ENVELOPE_KEYS = frozenset(("ts", "values", "boot_id", "seq"))  # an object with any other key is one of plain fields
MAX_BOOT_ID_CHARS = 64
KNOWN_BOOTS = 4_096

Opened = tuple[dict[str, Any], Any, str | None, int | None]  # fields, time, boot_id, seq
Take = Callable[[Any, int, bool], None]


def decode(content: bytes, context: Context) -> Decoded:
    """Decode one value, or NDJSON where the bytes are several lines of values."""
    reader = Reader(context)
    content = parse.trim(content)
    try:
        read_value(content, reader.decoded, reader.take)
    except parse.Unreadable as error:
        if error.code == "trailing_data" and parse.are_lines(content):
            return decode_lines(content, context)
        return unreadable(error)
    return reader.decoded


def decode_lines(content: bytes, context: Context) -> Decoded:
    """Decode NDJSON: one object a line; a line that does not parse does not touch its neighbours."""
    reader = Reader(context)
    decoded, take = reader.decoded, reader.take
    index = -1
    for index, line in enumerate(parse.lines(parse.trim(content))):
        if index >= MAX_RECORDS:
            return too_many_records()
        try:
            value, is_exact = parse.parse(line.rstrip(parse.JUNK)) if len(line) <= MAX_MESSAGE_BYTES else _refuse_line()
            take_once_more(line, value, index, take, is_exact=is_exact)
        except parse.Unreadable as error:
            decoded.faults.append(Fault(index, error.code, error.detail))
    return decoded if index >= 0 else nothing()


def read_value(content: bytes, decoded: Decoded, take: Take) -> None:
    """Hand the records of one JSON value to `take`; used by all protocols that are JSON objects or arrays of them.

    Raises:
        Unreadable: it is not one JSON object or array.
    """
    if not content:
        raise parse.Unreadable("no_values", "an empty message")
    value, is_exact = parse.parse(content)
    try:
        take_all(value, take, is_exact=is_exact, size=len(content))
    except Inexact:
        decoded.records.clear()
        decoded.faults.clear()
        take_all(parse.parse_exactly(content), take, is_exact=True, size=len(content))


def take_once_more(line: bytes, value: Any, index: int, take: Take, *, is_exact: bool) -> None:
    """Hand a value to `take`, and once more after an exact parse when it holds a number that may be rounded.

    Raises:
        Unreadable: the exact parse found what the quick one did not mind.
    """
    try:
        take(value, index, is_exact)
    except Inexact:
        take(parse.parse_exactly(line), index, True)


def unreadable(error: parse.Unreadable) -> Decoded:
    """Give the outcome of a message that cannot be read at all."""
    return Decoded(faults=[Fault(0, error.code, error.detail)], is_unreadable=True)


def nothing() -> Decoded:
    """Give the outcome of a message without any record."""
    return unreadable(parse.Unreadable("no_values", "no reading in it"))


def too_many_records() -> Decoded:
    """Give the outcome of a message with more records than one may hold."""
    return unreadable(parse.Unreadable("too_large", f"more than {MAX_RECORDS} readings in one message"))


def take_all(value: Any, take: Take, *, is_exact: bool, size: int) -> None:
    """Hand the records of a parsed value, an object or an array of `size` bytes, to `take`.

    Raises:
        Unreadable: it is neither, or larger than one may be.
        Inexact: see Reader.take.
    """
    if type(value) is list:
        _check_array(value)
        for index, element in enumerate(value):
            take(element, index, is_exact)
        return
    if type(value) is not dict:
        raise parse.Unreadable("bad_structure", "neither an object nor an array of objects")
    if size > MAX_MESSAGE_BYTES:
        raise parse.Unreadable("too_large", f"one object of {size} bytes, limit {MAX_MESSAGE_BYTES}")
    take(value, 0, is_exact)


def _check_array(elements: list[Any]) -> None:
    if not elements:
        raise parse.Unreadable("no_values", "an empty array")
    if len(elements) > MAX_RECORDS:
        raise parse.Unreadable("too_large", f"more than {MAX_RECORDS} readings in one message")


def _refuse_line() -> tuple[Any, bool]:
    raise parse.Unreadable("too_large", f"a line of more than {MAX_MESSAGE_BYTES} bytes")


class Reader:
    """Turns parsed values into records, by the device type's words on time where there are any."""

    def __init__(self, context: Context, *, is_typed: bool = False) -> None:
        """`is_typed`: the source tells integers from floats."""
        spec = context.type
        self.decoded = Decoded()
        self._is_typed = is_typed
        self._received_ns = context.received_ns
        self._time_keys = time_keys_of(spec)
        self._unit: times.Unit = spec.time_unit if spec is not None else "auto"
        self._policy = times.policy_of(spec) if spec is not None else times.GUARDED

    def take(self, value: Any, index: int, is_exact: bool) -> None:
        """Add the record or the faults that a parsed value gives.

        Raises:
            Inexact: a number may have been rounded; parse exactly and come again.
        """
        try:
            self._take(value, index, is_exact=is_exact)
        except Refused as error:
            self.decoded.faults.append(Fault(index, error.code, error.detail))

    def _take(self, value: Any, index: int, *, is_exact: bool) -> None:
        if type(value) is not dict:
            raise Refused("bad_structure", "a reading is a JSON object")
        record = Record(index, {})
        members, token, record.boot_id, record.seq = open_object(value, self._time_keys)
        if token is not None:
            self._set_time(record, token, is_exact=is_exact)
        record.fields, faults = flatten(members, is_exact=is_exact, is_typed=self._is_typed)
        self.decoded.faults += [Fault(index, fault.code, fault.detail, fault.name) for fault in faults]
        if not record.fields and not faults:
            raise Refused("no_values", "the reading holds no values")
        self.decoded.records.append(record)

    def _set_time(self, record: Record, token: Any, *, is_exact: bool) -> None:
        try:
            time_ns, is_certain = times.read(token, self._unit, is_exact=is_exact)
        except ValueError as error:
            raise Refused("bad_time", str(error)) from None
        place(record, time_ns, self._received_ns, self._policy)
        if not is_certain:
            record.flags |= UNCERTAIN


def place(record: Record, time_ns: int, received_ns: int, policy: times.Policy) -> None:
    """Give a record its time.

    Raises:
        Refused: the device type does not take it.
    """
    try:
        record.time_ns, record.flags = times.place(time_ns, received_ns, policy)
    except times.OutsideWindow as error:
        raise Refused(error.code, error.detail) from None
    if record.time_ns is None:
        record.ahead_ns = time_ns - received_ns


def time_keys_of(spec: DeviceType | None) -> tuple[str, ...]:
    """Give the names under which a plain object may hold its time, the first found being it."""
    return (spec.time_key,) if spec is not None and spec.time_key else TIME_KEYS


def open_object(value: dict[str, Any], time_keys: tuple[str, ...]) -> Opened:
    """Tell an object's members that are fields from its time (None: it has none), boot_id and seq. May change it.

    Raises:
        Refused: an envelope whose boot_id or seq cannot be one.
    """
    members = value.get("values")
    if type(members) is dict and ENVELOPE_KEYS.issuperset(value) and ("ts" in value or _has_identity(value)):
        return members, value.get("ts"), *_identity_of(value)
    token = next((value.pop(key) for key in time_keys if key in value), None)
    return value, token, *(take_identity(value) if _has_identity(value) else (None, None))


def _has_identity(value: dict[str, Any]) -> bool:
    return "seq" in value and "boot_id" in value


def _identity_of(envelope: dict[str, Any]) -> tuple[str | None, int | None]:
    boot_id, seq = envelope.get("boot_id"), envelope.get("seq")
    if (boot_id is not None and not _is_boot_id(boot_id)) or (seq is not None and not _is_seq(seq)):
        raise Refused("bad_value", "boot_id is a text of 1 to 64 characters or an integer, seq an integer from 0")
    return (None, None) if boot_id is None or seq is None else (str(boot_id), seq)


def take_identity(members: dict[str, Any]) -> tuple[str | None, int | None]:
    """Take boot_id and seq out of members that hold both, when they can be such."""
    if _is_boot_id(members["boot_id"]) and _is_seq(members["seq"]):
        return str(members.pop("boot_id")), members.pop("seq")
    return None, None  # then they are fields like others


def _is_boot_id(value: Any) -> bool:
    if type(value) is str:
        return len(value) <= MAX_BOOT_ID_CHARS and is_known_name(value)
    return type(value) is int and -INT64_MAX <= value <= INT64_MAX


is_known_name = lru_cache(maxsize=KNOWN_BOOTS)(is_name)  # a device sends the same one again and again


def _is_seq(value: Any) -> bool:
    return type(value) is int and 0 <= value <= INT64_MAX
