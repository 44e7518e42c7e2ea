"""Replaying what is quarantined: the message is sorted again, as of its arrival, and only what was refused is new.

Doing it twice changes nothing: an entry is replayed once, and a crash between keeping and marking repeats the same
points at the same times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import msgspec

from ingest.gate import Known
from ingest.intake import Message, Sorted
from ingest.ports import Ports
from ingest.protocols import Protocol
from ingest.quarantine import Entry, Item, RawMessage, Refused, Selection
from wire import clock
from wire.errors import NotFound, PeerUnavailable, Unavailable
from wire.points import Reading

STORE_REFUSED = "application/vnd.headwater.reading+json"  # `source` of entries the writer makes: one Reading as JSON
PAGE = 500  # entries a commit
MAX_ENTRIES = 10_000  # of one request, so that it ends before a proxy gives up

_decoder = msgspec.json.Decoder(Reading)


class Failure(NamedTuple):
    """Why an entry still waits."""

    id: int
    code: str
    detail: str


class Replayed(NamedTuple):
    """Outcome of a replay; `more`: the selection holds entries that this request did not get to."""

    replayed: int
    failed: list[Failure]
    more: bool = False


class _Again(NamedTuple):
    """What an entry gives now: readings, and what is refused of it once more."""

    readings: list[Reading]
    refused: Refused | None = None
    failure: Failure | None = None


def encode_reading(reading: Reading) -> bytes:
    """Encode a reading that the store refused, as the content of its quarantined message."""
    return msgspec.json.encode(reading)


class Replayer:
    """Replays entries for an operator. Thread-safe."""

    def __init__(self, ports: Ports, protocols: dict[str, Protocol]) -> None:
        self._ports = ports
        self._protocols = protocols

    def replay_ids(self, ids: Sequence[int], *, tenant: str) -> Replayed:
        """Replay entries by id; those replayed before are passed over."""
        entries, failed = [], []
        for id_ in dict.fromkeys(ids):
            try:
                entries.append(self._ports.quarantine.get(id_, tenant=tenant))
            except NotFound as error:
                failed.append(Failure(id_, error.code, error.detail))
        replayed = 0
        for start in range(0, len(entries), PAGE):
            part = self._replay(entries[start : start + PAGE])
            replayed, failed = replayed + part.replayed, failed + part.failed
        return Replayed(replayed, failed)

    def replay_selection(self, selection: Selection) -> Replayed:
        """Replay what waits and fits the selection, newest first, up to MAX_ENTRIES."""
        total, before, seen = Replayed(0, []), None, 0
        while seen < MAX_ENTRIES:
            page = self._ports.quarantine.page(replace(selection, state="waiting"), before=before, limit=PAGE)
            if not page:
                return total
            part = self._replay(page)
            total = Replayed(total.replayed + part.replayed, total.failed + part.failed)
            before, seen = page[-1].id, seen + len(page)
        return total._replace(more=True)

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

    def _replay(self, entries: list[Entry]) -> Replayed:
        waiting = [entry for entry in entries if entry.replayed_ns is None]
        found = self._ports.gate.find({entry.device for entry in waiting if entry.device})
        if found.unanswered:
            raise PeerUnavailable("the registry is away; nothing was replayed")
        sorted_: dict[int, Sorted | Failure] = {}  # by message: its entries share the work
        again = []
        for entry in waiting:
            if entry.message not in sorted_:
                sorted_[entry.message] = self._sort(entry, found.known.get(entry.device))
            again.append(_choose(entry, sorted_[entry.message]))
        done = [entry.id for entry, each in zip(waiting, again, strict=True) if each.failure is None]
        self._keep(again)
        self._ports.quarantine.mark_replayed(done, clock.now_ns())
        return Replayed(len(done), [each.failure for each in again if each.failure is not None])

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

    def _sort(self, entry: Entry, device: Known | None) -> Sorted | Failure:
        if entry.raw is None or entry.raw_bytes > len(entry.raw):
            return Failure(entry.id, "too_large", f"only the head of its {entry.raw_bytes} bytes was kept")
        if device is None:
            return Failure(entry.id, "unknown_device", f"no device {entry.device}")
        if entry.source == STORE_REFUSED:
            return _read_reading(entry)
        protocol = self._protocols.get(entry.protocol)
        if protocol is None:
            return Failure(entry.id, "unsupported", f"no protocol {entry.protocol!r}")
        message = Message(device, protocol, entry.raw, entry.received_ns, entry.transport, entry.source)
        return self._ports.intake.sort(message, self._ports.gate.checker_of(device))


def _read_reading(entry: Entry) -> Sorted | Failure:
    try:
        return Sorted([_decoder.decode(entry.raw or b"")])
    except msgspec.DecodeError as error:
        return Failure(entry.id, "bad_structure", str(error))


def _choose(entry: Entry, found: Sorted | Failure) -> _Again:
    """Pick what the entry stands for: a whole message, one record, or one field of a record that was accepted."""
    if isinstance(found, Failure):
        return _Again([], None, found._replace(id=entry.id))
    readings, items = _of_record(entry, found)
    if not entry.is_whole:
        readings = [_only(reading, entry.field) for reading in readings if entry.field in reading.fields]
        items = [item for item in items if item.field == entry.field or item.is_whole]
    if readings:
        return _Again(readings, Refused(_raw_of(entry), items) if items else None)
    code, detail = (items[0].code, items[0].detail) if items else ("no_values", "nothing of it is left to keep")
    return _Again([], None, Failure(entry.id, code, detail))


def _of_record(entry: Entry, found: Sorted) -> tuple[list[Reading], list[Item]]:
    if entry.record is None or entry.source == STORE_REFUSED:
        return found.readings, found.items
    numbered = zip(found.records, found.readings, strict=True)
    readings = [reading for record, reading in numbered if record == entry.record]
    return readings, [item for item in found.items if item.record in (entry.record, None)]


def _raw_of(entry: Entry) -> RawMessage:
    return RawMessage(
        entry.device, entry.protocol, entry.transport, entry.raw or b"", entry.received_ns, entry.source,
        entry.tenant, entry.type, entry.type_version,
    )  # fmt: skip


def _only(reading: Reading, name: str | None) -> Reading:
    """Give a reading of one field; without boot_id and seq, under which the rest of it was stored already."""
    assert name is not None
    return replace(reading, fields={name: reading.fields[name]}, boot_id=None, seq=None)
