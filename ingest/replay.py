"""Replaying what is quarantined: the message is sorted again, as of its arrival, and only what was refused is new.

Doing it twice changes nothing: an entry is replayed once, and a crash between keeping and marking repeats the same
points at the same times.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, NamedTuple

import msgspec

from ingest.batches import route
from ingest.division import Again
from ingest.gate import Known
from ingest.intake import Sorted
from ingest.message import Message
from ingest.ports import Ports
from ingest.protocols import Protocol
from ingest.quarantine import Entry, Item, RawMessage, Refused, Selection
from ingest.readings import Reading
from ingest.validation import TypeChecker
from wire import clock
from wire.errors import NotFound, PeerUnavailable, Unavailable

STORE_REFUSED = "application/vnd.headwater.reading+json"  # `source` of entries the writer makes: one Reading as JSON
STORE = "store"  # their transport
PAGE = 5_000  # entries read at once
REHEARSED = 500  # entries read at once by a rehearsal
MAX_ENTRIES = 10_000  # of one request
TIME_S = 3.0  # after which a request stops, so that it ends before its caller gives up; `more` then tells
COMMIT_READINGS = 5_000  # held before they are kept
COMMIT_BYTES = 8 * 1024 * 1024  # of messages refused once more, likewise
MAX_STOPS = 64  # selections whose place is remembered


Judge = Callable[[Known], TypeChecker | None]


class Failure(NamedTuple):
    """Why an entry still waits."""

    id: int
    code: str
    detail: str


class Rehearsed(NamedTuple):
    """What would become of an entry; `code` None: all that it stands for would be accepted."""

    entry: Entry
    code: str | None
    detail: str


class Replayed(NamedTuple):
    """Outcome of a replay; `more`: the selection holds entries that this request did not get to."""

    replayed: int
    failed: list[Failure]
    more: bool = False
    duplicates: int = 0  # entries that had been replayed before


class _Again(NamedTuple):
    """What an entry gives now: readings, and what is refused of it once more."""

    readings: list[Reading]
    refused: Refused | None = None
    failure: Failure | None = None


def encode_reading(reading: Reading) -> bytes:
    """Encode a reading that the store refused, as the content of its quarantined message."""
    return msgspec.json.encode(msgspec.structs.asdict(reading))


def decode_reading(content: bytes) -> Reading:
    """Undo `encode_reading`; raises msgspec.MsgspecError."""
    members = msgspec.json.decode(content, type=dict[str, Any])
    known = [members[name] for name in Reading.__struct_fields__ if name in members]  # newer members come last
    return msgspec.convert(known, Reading)


@dataclass(slots=True)
class _Batch:
    """What one commit will keep."""

    again: list[_Again] = field(default_factory=list)
    done: list[int] = field(default_factory=list)
    readings: int = 0
    raw_bytes: int = 0

    def add(self, id_: int, each: _Again) -> None:
        """Take in what an entry gives."""
        self.again.append(each)
        if each.failure is None:
            self.done.append(id_)
        self.readings += len(each.readings)
        self.raw_bytes += len(each.refused.message.content) if each.refused else 0

    @property
    def is_full(self) -> bool:
        """Whether it is time to commit."""
        return self.readings >= COMMIT_READINGS or self.raw_bytes >= COMMIT_BYTES


class Replayer:
    """Replays entries for an operator. Thread-safe."""

    def __init__(self, ports: Ports, protocols: dict[str, Protocol], judge: Judge | None = None) -> None:
        """`judge` gives the checker of a device; without one, that of its type as it is in force."""
        self._ports = ports
        self._protocols = protocols
        self._checker_of = judge or ports.gate.checker_of
        self._stops: dict[Selection, int] = {}  # where a request of this selection ran out of its bounds

    def narrow(self, ids: Sequence[int], *, tenant: str, devices: Collection[str] | None) -> list[int]:
        """Give those of the entries that are of some devices; None: all."""
        if devices is None:
            return list(ids)
        found = []
        for id_ in ids:
            with suppress(NotFound):
                found.append(self._head(id_, tenant, devices).id)
        return found

    def _head(self, id_: int, tenant: str, devices: Collection[str] | None) -> Entry:
        entry = self._ports.quarantine.head(id_, tenant=tenant)
        if devices is not None and entry.device not in devices:
            raise NotFound(f"no quarantined entry {id_}")
        return entry

    def replay_ids(self, ids: Sequence[int], *, tenant: str, devices: Collection[str] | None = None) -> Replayed:
        """Replay entries by id; those replayed before are passed over. `devices`: others' are not there."""
        entries, failed = [], []
        for id_ in dict.fromkeys(ids):
            try:
                entries.append(self._head(id_, tenant, devices))
            except NotFound as error:
                failed.append(Failure(id_, error.code, error.detail))
        entries.sort(key=lambda entry: entry.id, reverse=True)  # those of one message side by side
        part, stop = self._replay(entries, time.monotonic() + TIME_S)
        duplicates = sum(entry.replayed_ns is not None for entry in entries)
        return Replayed(part.replayed, failed + part.failed, more=stop is not None, duplicates=duplicates)

    def replay_selection(self, selection: Selection) -> Replayed:
        """Replay what waits and fits the selection, newest first, within bounds.

        When a bound is met, the next request of the same selection goes on there: entries that fail again and again
        must not keep the older ones from their turn.
        """
        selection = replace(selection, state="waiting")
        before: int | None = self._stops.pop(selection, None)
        total, seen = Replayed(0, []), 0
        deadline_s = time.monotonic() + TIME_S
        while seen < MAX_ENTRIES:
            page = self._ports.quarantine.page(selection, before=before, limit=PAGE)
            if not page:
                return total
            part, stop = self._replay(page, deadline_s)
            total = Replayed(total.replayed + part.replayed, total.failed + part.failed)
            before, seen = page[-1].id if stop is None else stop + 1, seen + len(page)
            if stop is not None:
                break
        if len(self._stops) >= MAX_STOPS:
            self._stops.clear()
        if before is not None:
            self._stops[selection] = before
        return total._replace(more=True)

    def rehearse(self, selection: Selection, before: int | None = None) -> Iterator[Rehearsed]:
        """Tell what a replay would do to what waits (below a number), newest first; nothing is kept, stop any time.

        Of held devices and of those nobody registered it is told as if they were accepted.

        Raises:
            PeerUnavailable: a device is not known here and the registry is away.
        """
        while page := self._ports.quarantine.page(selection, before=before, limit=REHEARSED):
            found = self._ports.gate.find(_named_in(page))
            if found.unanswered:
                raise PeerUnavailable("the registry is away")
            for _message, group in groupby(page, key=lambda entry: entry.message):
                of_message = list(group)
                by_id = {entry.id: entry for entry in of_message}
                for id_, each in self._again(of_message, found.known, _as_accepted):
                    yield _rehearsed(by_id[id_], each)
            before = page[-1].id

    def discard_selection(self, selection: Selection) -> Replayed:
        """Delete for good what waits and fits the selection, newest first, up to MAX_ENTRIES."""
        discarded = 0
        while discarded < MAX_ENTRIES:
            page = self._ports.quarantine.page(replace(selection, state="waiting"), limit=PAGE)
            if not page:
                return Replayed(discarded, [])
            ids = [entry.id for entry in page]
            discarded += self._ports.quarantine.discard(ids, tenant=selection.tenant)
        return Replayed(discarded, [], more=True)

    def _replay(self, entries: list[Entry], deadline_s: float) -> tuple[Replayed, int | None]:
        """Replay one message, and others until the deadline; give also the first entry not tried.

        Holds one message at a time.
        """
        waiting = [entry for entry in entries if entry.replayed_ns is None]
        found = self._ports.gate.find(_named_in(waiting))
        if found.unanswered:
            raise PeerUnavailable("the registry is away; nothing was replayed")
        total, batch = Replayed(0, []), _Batch()
        stop: int | None = None
        for tried, (_message, group) in enumerate(groupby(waiting, key=lambda entry: entry.message)):
            of_message = list(group)
            if tried and time.monotonic() > deadline_s:
                stop = of_message[0].id
                break
            for id_, each in self._again(of_message, found.known, _as_then):
                batch.add(id_, each)
                if batch.is_full:
                    total, batch = self._commit(total, batch), _Batch()
        return self._commit(total, batch), stop

    def _again(
        self, entries: list[Entry], known: Mapping[str, Known], judge: Callable[[Known | None, Entry], Known | None]
    ) -> Iterator[tuple[int, _Again]]:
        """Sort a message again and give what each of its entries stands for; `judge` tells what a device is now."""
        try:
            whole = self._ports.quarantine.get(entries[0].id, tenant=entries[0].tenant)
        except NotFound:  # discarded since the page was read
            return
        sender = judge(known.get(whole.sender), entries[0])
        foreign = [entry for entry in entries if entry.device != entry.sender]
        if sender is None and foreign:  # it is gone; what it said of others is not
            own = [entry for entry in entries if entry.device == entry.sender]
            yield from self._again(own, known, judge) if own else ()
            entries, sender = foreign, Known(whole.sender, whole.tenant, True, None, True, (), 0.0)
        owners = {entry.record: judge(known.get(entry.device), entry) for entry in foreign}
        records = {entry.record for entry in entries}
        is_by_record = None not in records and all(entry.is_whole for entry in entries)
        again = Again(owners, records if is_by_record else None, self._checker_of)
        found = self._sort(whole, sender, again)
        parts = found if isinstance(found, Failure) else _Parts(found)
        given: set[int] = set()
        for entry in entries:
            chosen = _choose(replace(entry, raw=whole.raw), parts)
            ids = {id(reading) for reading in chosen.readings} if entry.is_whole else set()
            # A reading that was joined of several records comes with the first of them.
            yield entry.id, _Again([]) if ids and ids <= given else chosen
            given |= ids

    def _commit(self, total: Replayed, batch: _Batch) -> Replayed:
        self._keep(batch.again)
        self._ports.quarantine.mark_replayed(batch.done, clock.now_ns())
        failed = [each.failure for each in batch.again if each.failure is not None]
        return Replayed(total.replayed + len(batch.done), total.failed + failed)

    def _keep(self, again: list[_Again]) -> None:
        self._ports.intake.save()
        refused = [each.refused for each in again if each.refused is not None]
        kept = self._ports.quarantine.add(refused) if refused else []
        if any(each.state != "kept" for each in kept):
            self._ports.quarantine.undo([id_ for each in kept for id_ in each.ids])
            raise Unavailable("the quarantine is full; nothing was replayed", code="quarantine_full")
        readings = [reading for each in again for reading in each.readings]
        if readings:
            self._ports.commit.append(readings)

    def _sort(self, entry: Entry, device: Known | None, again: Again) -> Sorted | Failure:
        if entry.raw is None or entry.raw_bytes > len(entry.raw):
            return Failure(entry.id, "too_large", f"only the head of its {entry.raw_bytes} bytes was kept")
        if device is None:
            return Failure(entry.id, "unknown_device", f"no device {entry.sender}")
        if (code := _bar(entry, device)) is not None:
            return Failure(entry.id, code, f"{entry.sender} is no sender of this now")
        if _is_of_the_store(entry):
            return _read_reading(entry)
        protocol = self._protocols.get(entry.protocol)
        if protocol is None:
            return Failure(entry.id, "unsupported", f"no protocol {entry.protocol!r}")
        message = Message(device, protocol, entry.raw, entry.received_ns, entry.transport, entry.source)
        return self._ports.intake.sort(message, self._checker_of(device), again)


def _named_in(entries: Iterable[Entry]) -> set[str]:
    return {device for entry in entries for device in (entry.device, entry.sender) if device}


def _rehearsed(entry: Entry, again: _Again) -> Rehearsed:
    if again.failure is not None:
        return Rehearsed(entry, again.failure.code, again.failure.detail)
    if again.refused is not None:
        return Rehearsed(entry, again.refused.items[0].code, again.refused.items[0].detail)
    return Rehearsed(entry, None, "")


def _as_then(device: Known | None, entry: Entry) -> Known | None:
    """Give the device as it was when the message came: what it sent stays with the tenant of that time.

    A message of a device that was not registered yet had no tenant: it goes to whoever has the device now.
    """
    if device is None or entry.code == "unknown_device":
        return device
    return device._replace(tenant=entry.tenant)


def _as_accepted(device: Known | None, entry: Entry) -> Known | None:
    """Give the device as it will be once somebody registers or accepts it."""
    if device is None and entry.code == "unknown_device":
        return Known(entry.sender, entry.tenant, True, None, False, (), 0.0)
    then = _as_then(device, entry)
    return then._replace(is_held=False) if then is not None else None


def _bar(entry: Entry, device: Known) -> str | None:
    """Give the code when a message may not become data of this device."""
    if device.is_held:
        return "device_held"
    is_foreign = entry.transport == "mqtt" and route(entry.source)[2] not in ("", device.id)
    return "identity_mismatch" if is_foreign else None


def _is_of_the_store(entry: Entry) -> bool:
    # Not by the source alone: over HTTP that is a Content-Type, and a device could name any other as the sender.
    return entry.transport == STORE and entry.source == STORE_REFUSED


def _read_reading(entry: Entry) -> Sorted | Failure:
    try:
        return Sorted([decode_reading(entry.raw or b"")])
    except msgspec.MsgspecError as error:
        return Failure(entry.id, "bad_structure", str(error))


class _Parts:
    """A sorted message by record, so that its thousands of entries find theirs without a search."""

    def __init__(self, found: Sorted) -> None:
        self._all = found
        self._readings: defaultdict[int | None, list[Reading]] = defaultdict(list)
        self._items: defaultdict[int | None, list[Item]] = defaultdict(list)
        for record, reading in zip(found.records, found.readings, strict=False):
            self._readings[record].append(reading)
        for item in found.items:
            self._items[item.record].append(item)

    def of(self, entry: Entry) -> tuple[list[Reading], Sequence[Item]]:
        """Give what belongs to the entry's record; all, when it stands for the whole message."""
        if entry.record is None or _is_of_the_store(entry):
            return self._all.readings, self._all.items
        first = (self._all.joined or {}).get(entry.record, entry.record)
        places = dict.fromkeys((entry.record, first, None))
        return self._readings.get(first, []), [item for place in places for item in self._items.get(place, ())]


def _choose(entry: Entry, found: _Parts | Failure) -> _Again:
    """Pick what the entry stands for: a whole message, one record, or one field of a record that was accepted."""
    if isinstance(found, Failure):
        return _Again([], None, found._replace(id=entry.id))
    readings, items = found.of(entry)
    if not entry.is_whole:
        readings = [_only(reading, entry.field) for reading in readings if entry.field in reading.fields]
        items = [item for item in items if item.field == entry.field or item.is_whole]
    if readings:
        return _Again(readings, Refused(_raw_of(entry), items) if items else None)
    code, detail = (items[0].code, items[0].detail) if items else ("no_values", "nothing of it is left to keep")
    return _Again([], None, Failure(entry.id, code, detail))


def _raw_of(entry: Entry) -> RawMessage:
    return RawMessage(
        entry.sender, entry.protocol, entry.transport, entry.raw or b"", entry.received_ns, entry.source,
        entry.tenant, entry.type, entry.type_version,
    )  # fmt: skip


def _only(reading: Reading, name: str | None) -> Reading:
    """Give a reading of one field; without boot_id and seq, under which the rest of it was stored already."""
    assert name is not None
    return msgspec.structs.replace(reading, fields={name: reading.fields[name]}, boot_id=None, seq=None)
