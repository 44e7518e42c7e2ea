"""The quick way of ordinary JSON readings: from bytes to what the spool keeps, without an object between the two.

It decides nothing by itself. What is not ordinary (None) goes the exact way of `ingest.intake`, which says what is
wrong with it; where it does take a message, the exact way gives the same readings (tests/ingest/test_quick.py).

Quickest of all are envelopes of plain numbers, `{"ts":1760000000000,"boot_id":"b7","seq":4,"values":{"t":21.5}}`, of
fields known as floats: msgspec parses them into what they are, all lines of a body at once (1.2 us less a reading).
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import orjson

from chassis import logs
from ingest.field_types import FieldTypes, Types
from ingest.message import Message
from ingest.protocols import times
from ingest.protocols.base import MAX_FIELDS, MAX_MESSAGE_BYTES, MAX_RECORDS
from ingest.protocols.flatten import ROUNDED_FROM, SHORT, Refused
from ingest.protocols.json.decoder import MAX_BOOT_ID_CHARS, is_known_name, open_object
from ingest.readings import Reading
from ingest.validation import UNTYPED, Rules, TypeChecker
from wire.points import INT64_MAX, REDELIVERED, SERVER_TIME, FieldValue

log = logs.get(__name__)
MEASUREMENT = "telemetry"
PROTOCOLS = ("json", "ndjson")


ENVELOPE = b'{"ts":'  # how one begins as nearly all encoders write it; others take the way of any JSON
LINE_BREAK = b"}\n{"  # between two objects; inside one it is never JSON
BootId = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_BOOT_ID_CHARS)]
Seq = Annotated[int, msgspec.Meta(ge=0, le=INT64_MAX)]
Number = Annotated[float, msgspec.Meta(gt=-ROUNDED_FROM, lt=ROUNDED_FROM)]


class Envelope(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A reading of plain numbers with its time, and its own number if it has one."""

    ts: int
    values: Annotated[dict[str, Number], msgspec.Meta(min_length=1, max_length=MAX_FIELDS)]
    boot_id: BootId | None = None
    seq: Seq | None = None


_envelopes = msgspec.json.Decoder(Envelope)


class _Odd(Exception):  # noqa: N818 - a signal: take the exact way
    """Something is not ordinary."""


NOT_ORDINARY = (
    _Odd,
    Refused,
    times.Inexact,
    times.OutsideWindow,
    ValueError,
)  # orjson's and the times' are ValueErrors


def read(message: Message, checker: TypeChecker | None, field_types: FieldTypes) -> list[Reading] | None:
    """Give the readings of a message all of which is ordinary: to be kept as they are."""
    if message.is_retained or message.protocol.name not in PROTOCOLS:
        return None
    rules = checker.rules if checker is not None else UNTYPED
    types = rules.types
    floats = rules.floats
    if rules.takes_others:
        shape = field_types.shape((message.device.tenant, message.device.id, MEASUREMENT))
        types, floats = (shape.plain | types, floats) if types else (shape.plain, shape.floats)
    try:
        if floats and message.content.startswith(ENVELOPE) and (read := _read_envelopes(message, rules, floats)):
            return read
        values = _values(message)
        if type(values) is dict:
            return [_read(values, 0, message, rules, types)]
        return [_read(value, index, message, rules, types) for index, value in enumerate(values)] or None
    except NOT_ORDINARY:
        return None
    except Exception:  # poison, as in `Intake.sort`; the exact way says what is wrong with it
        log.trace("quick_way_fault", device=message.device.id)
        return None


def _read_envelopes(message: Message, rules: Rules, floats: frozenset[str]) -> list[Reading] | None:
    """Give the readings of envelopes whose fields are all known as floats; None when something else is among them."""
    try:
        if message.protocol.name == "ndjson":
            envelopes = _decode_lines(message.content)
        elif len(message.content) <= MAX_MESSAGE_BYTES:
            envelopes = [_envelopes.decode(message.content)]
        else:
            return None
    except (msgspec.DecodeError, ValueError):
        return None
    return _take(envelopes, message, rules, floats) if envelopes else None


def _decode_lines(content: bytes) -> list[Envelope]:
    """Decode lines of one envelope each; none when a value may lie across lines, or a line is very long."""
    content = content.removesuffix(b"\n")
    lines = content.count(b"\n") + 1
    if lines > MAX_RECORDS or content.count(LINE_BREAK) != lines - 1:
        return []
    if len(content) > MAX_MESSAGE_BYTES < max(map(len, content.split(b"\n"))):
        return []
    envelopes: list[Envelope] = _envelopes.decode_lines(content)
    return envelopes if len(envelopes) == lines else []  # more: two in one line


def _take(envelopes: list[Envelope], message: Message, rules: Rules, floats: frozenset[str]) -> list[Reading] | None:
    """Give the readings when all are ordinary; their times all lie in one unit, that of the first."""
    device, protocol, delivery = message.device, message.protocol.name, message.delivery
    device_id, tenant, flags = device.id, device.tenant, REDELIVERED if message.is_redelivered else 0
    received_ns, (back_ns, ahead_ns) = message.received_ns, rules.reach
    first_ns, last_ns = received_ns - back_ns, received_ns + ahead_ns
    first_ns = max(first_ns, times.YEAR_2000_NS)
    unit_ns = times.ns_per(envelopes[0].ts, rules.unit)
    is_bound = bool(rules.required or rules.bounds)
    readings = []
    for envelope in envelopes:
        fields: dict[str, Any] = envelope.values
        time_ns, boot_id = envelope.ts * unit_ns, envelope.boot_id
        if not (first_ns <= time_ns <= last_ns and floats.issuperset(fields)):
            return None
        if (boot_id is None) is not (envelope.seq is None) or (boot_id is not None and not is_known_name(boot_id)):
            return None
        if is_bound and not _keeps(fields, rules):
            return None
        reading = Reading(
            device_id, MEASUREMENT, time_ns, received_ns, fields, {}, flags,
            boot_id, envelope.seq, protocol, tenant, delivery, 0, rules.judged_by, device.born_ns,
        )  # fmt: skip
        readings.append(reading)
    return readings


def _keeps(fields: dict[str, float], rules: Rules) -> bool:
    if not rules.required <= fields.keys():
        return False
    return all(low <= fields[name] <= high for name, low, high in rules.bounds if name in fields)


def _values(message: Message) -> Any:
    """Give one object, or several values."""
    content = message.content
    if message.protocol.name == "ndjson":
        lines = content.removesuffix(b"\n").split(b"\n")
        if len(lines) > MAX_RECORDS or (len(content) > MAX_MESSAGE_BYTES < max(map(len, lines))):
            raise _Odd
        return map(orjson.loads, lines)
    value = orjson.loads(content)
    if type(value) is dict and len(content) <= MAX_MESSAGE_BYTES:
        return value
    if type(value) is list and len(value) <= MAX_RECORDS:
        return value
    raise _Odd


def _read(value: Any, index: int, message: Message, rules: Rules, types: Types) -> Reading:
    if type(value) is not dict:
        raise _Odd
    fields, token, boot_id, seq = open_object(value, rules.time_keys)
    received_ns, content = message.received_ns, 0
    flags = REDELIVERED if message.is_redelivered else 0
    time_ns = None if token is None else _read_time(token, received_ns, rules)
    _fit(fields, rules, types)
    if time_ns is None:
        time_ns, flags = received_ns + index, flags | SERVER_TIME
        if message.mid > 0 and seq is None:
            content = message.hash_content()
    return Reading(
        message.device.id, MEASUREMENT, time_ns, received_ns, fields, {}, flags,
        boot_id, seq, message.protocol.name, message.device.tenant, message.delivery, content,
        rules.judged_by, message.device.born_ns,
    )  # fmt: skip


def _read_time(token: Any, received_ns: int, rules: Rules) -> int | None:
    time_ns, is_certain = times.read(token, rules.unit, is_exact=False)
    placed_ns, flags = times.place(time_ns, received_ns, rules.policy)
    if flags or not is_certain:
        raise _Odd
    return placed_ns


def _fit(fields: dict[str, Any], rules: Rules, types: Types) -> None:
    """Bring the values to the types their fields have; every value that needs a second look is odd."""
    if not 0 < len(fields) <= MAX_FIELDS or not rules.required <= fields.keys():
        raise _Odd
    for name, value in fields.items():
        wanted = types.get(name)
        if wanted is not float or type(value) is not float or not -ROUNDED_FROM < value < ROUNDED_FROM:
            fields[name] = _bring(value, wanted)
    for name, low, high in rules.bounds:
        if name in fields and not low <= fields[name] <= high:
            raise _Odd


def _bring(value: Any, wanted: type | None) -> FieldValue:
    kind = type(value)
    if kind is int and (wanted is float or wanted is int):
        return float(value) if wanted is float else int(value)
    if kind is wanted and (kind is bool or (kind is str and len(value) <= SHORT and value.isascii())):
        return bool(value) if kind is bool else str(value)
    raise _Odd
