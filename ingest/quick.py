"""The quick way of ordinary JSON readings: from bytes to what the spool keeps, without an object between the two.

It decides nothing by itself. What is not ordinary (None) goes the exact way of `ingest.intake`, which says what is
wrong with it; where it does take a message, the exact way gives the same readings (tests/ingest/test_quick.py).
"""

from __future__ import annotations

from typing import Any

import orjson

from chassis import logs
from ingest.field_types import FieldTypes, Types
from ingest.message import Message
from ingest.protocols import times
from ingest.protocols.base import MAX_FIELDS, MAX_MESSAGE_BYTES, MAX_RECORDS
from ingest.protocols.flatten import ROUNDED_FROM, SHORT, Refused
from ingest.protocols.json.decoder import open_object
from ingest.readings import Reading
from ingest.validation import UNTYPED, Rules, TypeChecker
from wire.points import REDELIVERED, SERVER_TIME, FieldValue

log = logs.get(__name__)
MEASUREMENT = "telemetry"
PROTOCOLS = ("json", "ndjson")


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
    if rules.takes_others:
        others = field_types.plain_types((message.device.tenant, message.device.id, MEASUREMENT))
        types = others | types if types else others
    try:
        values = _values(message)
        if type(values) is dict:
            return [_read(values, 0, message, rules, types)]
        return [_read(value, index, message, rules, types) for index, value in enumerate(values)] or None
    except NOT_ORDINARY:
        return None
    except Exception:  # poison, as in `Intake.sort`; the exact way says what is wrong with it
        log.fault("quick_way_fault", device=message.device.id)
        return None


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
