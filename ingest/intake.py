"""From a received message to readings and refused items: decode, check against the device type, fix field types.

Knows no transport and no store; what it gives is not yet kept anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from chassis import logs
from chassis.metrics import Counter
from ingest import quick
from ingest.codecs import Codecs
from ingest.division import Again, Division, Part
from ingest.downlinks import Downlinks
from ingest.field_types import FieldTypes
from ingest.gate import Known
from ingest.message import Message
from ingest.protocols.base import MAX_FIELDS, Context, Decoded, Description, Fault, Record
from ingest.protocols.flatten import Refused
from ingest.quarantine import Item
from ingest.readings import Reading
from ingest.usage import Use
from ingest.validation import TypeChecker
from wire import clock
from wire.errors import Unavailable
from wire.points import FUTURE, HISTORICAL, REDELIVERED, RETAINED, SERVER_TIME, FieldValue

log = logs.get(__name__)
TIMES = Counter("headwater_ingest_times", "Readings whose time is not like the others'", ["judged"])
EVENTS = Counter("headwater_ingest_events", "Messages that rightly hold no reading", ["protocol"])
ABSENT = Counter("headwater_ingest_absent", "Values of which the sender says that there are none now", ["protocol"])
DROPPED = Counter("headwater_ingest_fields_dropped", "Fields dropped because the device type says so", ["type"])


@dataclass(slots=True)
class Sorted:
    """A message taken apart: readings to keep, items to quarantine."""

    readings: list[Reading] = field(default_factory=list)
    records: list[int] = field(default_factory=list)  # of each reading, its index in the message
    items: list[Item] = field(default_factory=list)
    is_readable: bool = True
    devices: frozenset[str] = frozenset()  # those that the sender spoke for
    trespasses: frozenset[str] = frozenset()  # names that it may not use
    joined: Mapping[int, int] | None = None  # records that became part of another one's reading -> that record
    presence: dict[str, bool] = field(default_factory=dict)  # devices that it told to be online, or not
    restated: Callable[[], bytes] | None = None  # see Decoded
    described: Sequence[Description] = ()  # what it tells of fields
    parts: list[Use] = field(default_factory=list)  # what of it was taken from other devices than the sender

    def uses(self, message: Message) -> list[Use]:
        """Give whose usage the message counts for: what is of no other device is its sender's."""
        return [message.use(self.count - sum(spent[1] for *_, spent in self.parts)), *self.parts]

    @property
    def is_news(self) -> bool:
        """Whether the registry is to hear of it: it is about other devices than its sender, or tells of fields."""
        return bool(self.devices or self.trespasses or self.presence or self.described)

    @property
    def count(self) -> int:
        """How many readings the message held."""
        return len(self.readings) + sum(item.is_whole for item in self.items)

    def own_count(self, sender: str) -> int:
        """How many of them are the sender's."""
        mine = sum(reading.device == sender for reading in self.readings)
        return mine + sum(item.is_whole and item.device is None for item in self.items)


class Intake:
    """Sorts messages. Thread-safe. `save` must return before anything sorted is acknowledged."""

    def __init__(
        self,
        field_types: FieldTypes,
        division: Division | None = None,
        codecs: Codecs | None = None,
        downlinks: Downlinks | None = None,
        *,
        is_rehearsal: bool = False,
    ) -> None:
        """Without a `division` every message is its sender's; without `codecs` bytes stay what they are.

        `downlinks`: are told where devices take commands, and how these ended.
        `is_rehearsal`: what it sorts is judged, not kept: nothing of it is remembered or counted.
        """
        self._field_types = field_types
        self._division = division
        self._codecs = codecs
        self._downlinks = downlinks
        self._is_rehearsal = is_rehearsal

    def rehearsal(self) -> Intake:
        """Give one that judges as this one does and leaves no trace."""
        return Intake(self._field_types, self._division, self._codecs, is_rehearsal=True)

    def sort(self, message: Message, checker: TypeChecker | None, again: Again | None = None) -> Sorted:
        """Take a message apart; a decoder that fails makes it an item, never an exception.

        Raises:
            PeerUnavailable: what a name in it stands for is not known here and the registry is away.
            Unavailable: what it says of a command cannot be kept.
        """
        try:
            return self._take_apart(message, checker, again)
        except Unavailable:
            raise
        except Exception:  # a poison message would otherwise be delivered again for ever
            log.trace("decoder_fault", protocol=message.protocol.name, device=message.device.id)
            return Sorted(items=[Item(None, "internal", "an error of ours; it was logged")])

    def _take_apart(self, message: Message, checker: TypeChecker | None, again: Again | None) -> Sorted:
        decoded = message.protocol.decode(message.content, self._context(message, checker, again))
        if decoded.absent and not self._is_rehearsal:
            ABSENT.labels(message.protocol.name).inc(decoded.absent)
        division = self._division
        if division is not None and any(record.device is not None for record in decoded.records):
            found = self._sort_parts(division, message, decoded, again)
        else:
            found = self._sort_part(message, checker, decoded)
        if division is not None and decoded.presence and not self._is_rehearsal:
            found.presence = division.presence(message.device, decoded.presence)
        if self._downlinks is not None and division is not None and again is None:
            _tell(self._downlinks, division, message.device, decoded)
        found.restated = decoded.restated
        found.described = () if self._is_rehearsal else decoded.described
        return found

    def _context(self, message: Message, checker: TypeChecker | None, again: Again | None) -> Context:
        device, division = message.device, self._division
        return Context(
            message.received_ns, checker.spec if checker else None, topic=message.source, transport=message.transport,
            is_retained=message.is_retained, is_gateway=device.is_gateway, sender=f"{device.tenant}/{device.id}",
            names=division.names(device, again) if division is not None else frozenset(),
        )  # fmt: skip

    def _sort_parts(self, division: Division, message: Message, decoded: Decoded, again: Again | None) -> Sorted:
        """Sort each part as its own device's message."""
        merged = Sorted()
        for part in division.divide(message, decoded, again, may_admit=not self._is_rehearsal):
            if part.code is not None:
                _stop(part, message.device.id, merged)
                continue
            checker = division.checker_of(part.device, again)
            theirs = msgspec.structs.replace(message, device=part.device)
            found = self._sort_part(theirs, checker, part.decoded)
            merged.readings += found.readings
            merged.records += found.records
            merged.joined = {**(merged.joined or {}), **found.joined} if found.joined else merged.joined
            is_own = part.device.id == message.device.id
            merged.items += found.items if is_own else [item._replace(device=part.device.id) for item in found.items]
            if not is_own:
                merged.devices |= {part.device.id}
                merged.parts.append((part.device.tenant, part.device.type or "", part.device.id, (0, found.count, 0)))
        merged.items.sort(key=lambda item: -1 if item.record is None else item.record)
        return merged

    def _sort_part(self, message: Message, checker: TypeChecker | None, decoded: Decoded) -> Sorted:
        """Sort what is of one device."""
        self._open(message, checker, decoded)
        return _Sorting(message, checker, self._field_types, is_rehearsal=self._is_rehearsal).run(decoded)

    def _open(self, message: Message, checker: TypeChecker | None, decoded: Decoded) -> None:
        """Let the codec of the device type decode the bytes that records carry."""
        if self._codecs is None or not any(record.payload is not None for record in decoded.records):
            return
        taken = []
        for record in decoded.records:
            try:
                faults = self._codecs.open(record, checker.spec if checker else None, message.received_ns)
            except Refused as error:
                decoded.faults.append(Fault(record.index, error.code, error.detail))
                continue
            decoded.faults += [Fault(record.index, fault.code, fault.detail, fault.name) for fault in faults]
            taken.append(record)
        decoded.records = taken

    def sort_record(self, message: Message, record: Record) -> Sorted:
        """Give the reading of a record that was made elsewhere, of fields that no device type knows of."""
        return _Sorting(message, None, self._field_types, is_rehearsal=self._is_rehearsal).run(Decoded([record]))

    def read(self, message: Message, checker: TypeChecker | None) -> list[Reading] | None:
        """Give the readings of an ordinary message; None sends it to `sort`, which takes any."""
        return quick.read(message, checker, self._field_types)

    def save(self) -> None:
        """Record the types of new fields durably. Raises Unavailable."""
        self._field_types.save()


def _tell(downlinks: Downlinks, division: Division, sender: Known, decoded: Decoded) -> None:
    if decoded.places and sender.is_gateway:
        downlinks.note(f"{sender.tenant}/{sender.id}", decoded.places)
    if decoded.answers:
        downlinks.take(division.answers(sender, decoded.answers))


def _stop(part: Part, sender: str, merged: Sorted) -> None:
    """Let the records of a part wait in the quarantine."""
    assert part.code is not None
    device = None if part.device.id == sender else part.device.id
    merged.items += [Item(record.index, part.code, part.detail, device=device) for record in part.decoded.records]
    if device is not None:
        merged.devices |= {device}
    if part.code == "identity_mismatch":
        merged.trespasses |= {record.device for record in part.decoded.records if record.device is not None}


class _Sorting:
    """The state of sorting one message."""

    def __init__(
        self, message: Message, checker: TypeChecker | None, field_types: FieldTypes, *, is_rehearsal: bool
    ) -> None:
        self._message = message
        self._checker = checker
        self._bring = field_types.rehearse if is_rehearsal else field_types.fit
        self._counts = not is_rehearsal
        self._sorted = Sorted()
        self._content: int | None = None
        self._flags = (REDELIVERED if message.is_redelivered else 0) | (RETAINED if message.is_retained else 0)

    def run(self, decoded: Decoded) -> Sorted:
        by_record: dict[int, list[Fault]] = {}
        for fault in decoded.faults:
            if fault.field is None:
                index = None if decoded.is_unreadable else fault.index
                self._sorted.items.append(Item(index, fault.code, fault.detail))
            else:
                by_record.setdefault(fault.index, []).append(fault)
        self._sorted.is_readable = not decoded.is_unreadable
        records = decoded.records
        if decoded.joins:
            records, self._sorted.joined = join(records)
            for index, first in self._sorted.joined.items():
                by_record.setdefault(first, []).extend(by_record.pop(index, ()))
        for record in records:
            self._take(record, by_record.get(record.index, ()) if by_record else ())
        if decoded.is_event and self._counts:
            EVENTS.labels(self._message.protocol.name).inc()
        if not self._sorted.readings and not self._sorted.items and not decoded.is_event:
            self._sorted.items.append(Item(None, "no_values", "no reading in it"))
        return self._sorted

    def _take(self, record: Record, faults: tuple[()] | list[Fault]) -> None:
        if self._message.is_retained and record.time_ns is None:
            self._sorted.items.append(Item(record.index, "retained", "an old message without a time of its own"))
            return
        items = [Item(fault.index, fault.code, fault.detail, fault.field, is_whole=False) for fault in faults]
        fields = record.fields
        if self._checker is not None:
            fields = self._check(self._checker, record, items)
            if record.ahead_ns is not None and fields:
                fields = self._tell_skew(self._checker.spec.time_skew_field, record, fields, items)
        else:
            self._fit(record, fields, items)
        if fields:
            self._sorted.items += items
            self._sorted.readings.append(self._reading(record, fields))
            self._sorted.records.append(record.index)
        else:  # nothing is left of the reading: one item for all of it, with the first reason
            first = items[0] if items else Item(record.index, "no_values", "no field of it is kept")
            self._sorted.items.append(first._replace(is_whole=True))

    def _check(self, checker: TypeChecker, record: Record, items: list[Item]) -> dict[str, FieldValue]:
        verdict = checker.check(record.fields)
        if verdict.missing is not None:
            name, code, detail = verdict.missing
            items.append(Item(record.index, code, detail, name))
            return {}
        if verdict.dropped and self._counts:
            DROPPED.labels(checker.spec.name).inc(verdict.dropped)
        items += [Item(record.index, code, detail, name, is_whole=False) for name, code, detail in verdict.faults]
        if checker.spec.unknown_fields != "accept" or verdict.fields.keys() <= checker.declared:
            return verdict.fields
        free = {name: value for name, value in verdict.fields.items() if name not in checker.declared}
        self._fit(record, free, items)
        return {name: value for name, value in verdict.fields.items() if name in checker.declared} | free

    def _tell_skew(
        self, name: str | None, record: Record, fields: dict[str, FieldValue], items: list[Item]
    ) -> dict[str, FieldValue]:
        """Add the field that says by how much a device's clock was off, where the device type names one."""
        if name is None or record.ahead_ns is None:
            return fields
        told: dict[str, FieldValue] = {name: record.ahead_ns / clock.NS_PER_S}
        self._fit(record, told, items)
        return fields | told

    def _fit(self, record: Record, fields: dict[str, FieldValue], items: list[Item]) -> None:
        series = (self._message.device.tenant, self._message.device.id, record.measurement)
        conflicts = self._bring(series, fields, is_typed=self._message.protocol.is_typed)
        items += [Item(record.index, each.code, each.detail, each.field, is_whole=False) for each in conflicts]

    def _reading(self, record: Record, fields: dict[str, FieldValue]) -> Reading:
        message, device = self._message, self._message.device
        time_ns, flags, content = record.time_ns, record.flags | self._flags, 0
        if record.flags and self._counts:
            _count_time(record)
        if time_ns is None:
            # Records of one message without a time stay apart: the same time would make them one point.
            time_ns, flags = message.received_ns + record.index, flags | SERVER_TIME
        if (flags & SERVER_TIME or record.is_relative) and message.mid > 0 and not _is_numbered(record):
            content = self._hash_content()
        return Reading(
            device.id, record.measurement, time_ns, message.received_ns, fields, record.tags, flags,
            record.boot_id, record.seq, message.protocol.name, device.tenant, message.delivery, content,
            self._checker.spec.version_id if self._checker is not None else 0, device.born_ns,
        )  # fmt: skip

    def _hash_content(self) -> int:
        if self._content is None:
            self._content = self._message.hash_content()
        return self._content


def join(records: Sequence[Record]) -> tuple[list[Record], dict[int, int]]:
    """Make one record of those of one measurement, time and tags; of a field sent twice the last value holds.

    Returns:
        The records, and for each that became part of one before it, that one's index.
    """
    found: list[Record] = []
    places: dict[tuple[object, ...], Record] = {}
    joined: dict[int, int] = {}
    for record in records:
        tags = tuple(sorted(record.tags.items())) if record.tags else ()
        key = (record.measurement, record.time_ns, record.flags, tags, record.boot_id, record.seq)
        first = places.get(key)
        if first is None or len(first.fields) + len(record.fields) > MAX_FIELDS:
            places[key] = record
            found.append(record)
        else:
            first.fields.update(record.fields)
            joined[record.index] = first.index
    return found, joined


def _is_numbered(record: Record) -> bool:
    return record.seq is not None and record.boot_id is not None


def _count_time(record: Record) -> None:
    if record.ahead_ns is not None:
        TIMES.labels("clamped").inc()
    elif record.flags & FUTURE:
        TIMES.labels("ahead").inc()
    elif record.flags & HISTORICAL:
        TIMES.labels("late").inc()
