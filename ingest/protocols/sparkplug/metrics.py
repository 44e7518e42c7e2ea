"""Metrics of one payload to records: by whom, of what name and type, from when. Pure but for the session it reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ingest.protocols import times
from ingest.protocols.base import MAX_DEPTH, MAX_FIELDS, MAX_KEY_BYTES, Context, Decoded, Description, Fault, Record
from ingest.protocols.flatten import Refused, is_name
from ingest.protocols.sparkplug import values
from ingest.protocols.sparkplug.names import Spoken
from ingest.protocols.sparkplug.session import NODE, Birth, Session
from wire import clock
from wire.points import HISTORICAL

MEASUREMENT = "sparkplug"
DEATH_NUMBER = "bdSeq"
CONTROL = "Node Control/"
QUALITY, GOOD = "Quality", 192
# What Ignition and Tahu call the unit, the limits and the text of a metric.
UNIT, LABEL = ("engUnit",), ("documentation", "Documentation")
LOW, HIGH = "engLow", "engHigh"


@dataclass(slots=True, frozen=True)
class Named:
    """A metric with the name and the data type that it has, or was declared to have."""

    index: int
    name: str
    datatype: int
    metric: Any


_NOTHING = Birth({}, {})


class UnknownAlias(Refused):
    """An alias that no birth of this session declared."""

    def __init__(self, alias: int) -> None:
        super().__init__("unknown_alias", f"alias {alias}, which no birth of this session declared")


class Metrics:
    """Collects the records of one payload."""

    def __init__(self, context: Context, spoken: Spoken, payload: Any) -> None:
        self.decoded = Decoded()
        self.has_unknown_alias = False
        self._context = context
        self._spoken = spoken
        self._payload = payload
        self._policy = times.policy_of(context.type) if context.type is not None else times.GUARDED
        self._records: dict[tuple[int | None, bool], Record] = {}

    def take(self, session: Session, *, is_birth: bool) -> None:
        """Read all metrics; a birth names and declares its own."""
        for index, metric in enumerate(self._payload.metrics):
            try:
                named = self._name(index, metric, None if is_birth else session)
                if is_birth and metric.HasField("properties"):
                    self._describe(named)
                if not is_control(named.name) and not metric.is_transient:
                    self._add(named)
            except UnknownAlias as error:
                self.has_unknown_alias = True
                self._fault(index, error)
            except Refused as error:
                self._fault(index, error)

    def _fault(self, index: int, error: Refused) -> None:
        self.decoded.faults.append(Fault(index, error.code, error.detail))

    def _name(self, index: int, metric: Any, session: Session | None) -> Named:
        name, datatype = values.text(metric.name), metric.datatype
        birth = session.births.get(self._spoken.device or NODE, _NOTHING) if session is not None else _NOTHING
        if not name and session is not None and metric.HasField("alias"):
            if metric.alias not in birth.aliases:
                raise UnknownAlias(metric.alias)
            name = self._tell(metric, "name", birth.aliases[metric.alias])
        if not is_name(name) or len(name.encode()) > MAX_KEY_BYTES:
            raise Refused("bad_name", f"a name is 1 to {MAX_KEY_BYTES} bytes without control characters")
        if not datatype and name in birth.types:
            datatype = self._tell(metric, "datatype", birth.types[name])
        return Named(index, name, datatype, metric)

    def _tell(self, metric: Any, field: str, known: Any) -> Any:
        """Write what the session knows into the message: if it is refused, it is kept as one that tells it itself."""
        setattr(metric, field, known)
        self.decoded.restated = self._payload.SerializeToString
        return known

    def _describe(self, named: Named) -> None:
        """Note what a birth tells of a metric beside its value."""
        told = dict(_properties(named.metric))
        unit, label = (next(filter(None, (_text(told.get(name)) for name in names)), "") for names in (UNIT, LABEL))
        low, high = _number(told.get(LOW)), _number(told.get(HIGH))
        if unit or label or low is not None or high is not None:
            whose = self._spoken.name
            self.decoded.described.append(Description(named.name, MEASUREMENT, whose, unit, label, "", low, high))

    def _add(self, named: Named) -> None:
        if named.metric.is_null:
            return
        fields = dict(_read(named, 0))
        quality = _quality(named.metric)
        if quality is not None and quality != GOOD:
            fields[f"{named.name}.quality"] = quality
        if len(fields) > MAX_FIELDS:
            raise Refused("too_many_fields", f"more than {MAX_FIELDS} values of one metric")
        if fields:
            self._record_of(named, len(fields)).fields.update(fields)

    def _record_of(self, named: Named, more: int) -> Record:
        """Give the record of a metric's time that has room for `more` fields."""
        metric, payload = named.metric, self._payload
        at_ms = metric.timestamp if metric.HasField("timestamp") else None
        if at_ms is None and payload.HasField("timestamp"):
            at_ms = payload.timestamp
        key = at_ms, metric.is_historical
        record = self._records.get(key)
        if record is None or len(record.fields) + more > MAX_FIELDS:
            record = Record(named.index, {}, measurement=MEASUREMENT, device=self._spoken.name)
            if at_ms is not None:
                self._place(record, at_ms)
            record.flags |= HISTORICAL if metric.is_historical else 0
            self._records[key] = record
            self.decoded.records.append(record)
        return record

    def _place(self, record: Record, at_ms: int) -> None:
        if at_ms > clock.MAX_NS // clock.NS_PER_MS:
            raise Refused("bad_time", "a time outside signed 64-bit ns")
        time_ns = at_ms * clock.NS_PER_MS
        try:
            record.time_ns, record.flags = times.place(time_ns, self._context.received_ns, self._policy)
        except times.OutsideWindow as error:
            raise Refused(error.code, error.detail) from None
        if record.time_ns is None:
            record.ahead_ns = time_ns - self._context.received_ns


def is_control(name: str) -> bool:
    """Tell whether a metric runs the session and is no telemetry."""
    return name == DEATH_NUMBER or name.startswith(CONTROL)


def declared(payload: Any) -> Birth:
    """Give what a birth's metrics declare; what cannot be a name is left out."""
    types: dict[str, int] = {}
    aliases: dict[int, str] = {}
    for metric in payload.metrics:
        if not isinstance(metric.name, str) or not metric.name:
            continue
        types[metric.name] = metric.datatype
        if metric.HasField("alias"):
            aliases[metric.alias] = metric.name
    return Birth(types, aliases)


def death_number(payload: Any) -> int | None:
    """Give bdSeq, which ties a death to its birth: typed Int64 or UInt64, in either field; None: there is none."""
    for metric in payload.metrics:
        if metric.name == DEATH_NUMBER and metric.WhichOneof("value") in ("int_value", "long_value"):
            return int(getattr(metric, metric.WhichOneof("value")))
    return None


def _read(named: Named, depth: int) -> Iterator[tuple[str, Any]]:
    """Give the values of a metric: one, or those of a template's members as `name/member`."""
    metric = named.metric
    if metric.WhichOneof("value") != "template_value":
        yield named.name, values.read(metric, named.datatype)
        return
    if metric.template_value.is_definition:
        return
    if depth >= MAX_DEPTH:
        raise Refused("too_deep", f"templates nested more than {MAX_DEPTH} deep")
    for member in metric.template_value.metrics:
        if member.is_null:
            continue
        name = f"{named.name}/{values.text(member.name)}"
        if not member.name or not is_name(name):
            raise Refused("bad_name", "a template's member without a name")
        yield from _read(Named(named.index, name, member.datatype, member), depth + 1)


def _quality(metric: Any) -> int | None:
    for key, value in _properties(metric):
        if key == QUALITY and isinstance(value, int) and not isinstance(value, bool):
            return value
    return None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _properties(metric: Any) -> Iterator[tuple[str, Any]]:
    """Give those properties of a metric that have a plain value."""
    properties = metric.properties
    for key, value in zip(properties.keys, properties.values, strict=False):
        carried = value.WhichOneof("value")
        if carried is not None and not value.is_null:
            yield key, getattr(value, carried)
