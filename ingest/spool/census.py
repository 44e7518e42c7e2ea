"""Whose the readings are that wait in the spools, counted by tenant from the frames themselves. Changes nothing.

What was counted is remembered, so a long backlog is read once: then only what came since, and the rest of the segment
in which the writer went on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import msgspec

from ingest.spool import frames, segments
from ingest.spool.reader import Position, slot_folders

MOST_READINGS = 300_000  # of closed segments that are counted anew for one answer, in 0.3 s (1 us each)
_BEHIND = 2**63  # above each number of a reading


class Waiting(NamedTuple):
    """Readings of one tenant that wait; `oldest_ns` is when the first of them, in a frame, was received."""

    readings: int
    oldest_ns: int


class Tally(NamedTuple):
    """What was counted of a segment, as far as a number."""

    waiting: dict[str, Waiting]
    end: int
    offset: int  # in the file, of that number


Key = tuple[str, str, int, int]  # folder of a slot, its id, first number of a segment, and the one counted from
Counted = dict[Key, Tally]


class _Owned(msgspec.Struct, array_like=True, gc=False):
    """The head of an `ingest.readings.Reading`, as far as its tenant; what is not asked for is passed over."""

    device: msgspec.Raw
    measurement: msgspec.Raw
    time_ns: int
    received_ns: int
    fields: msgspec.Raw
    tags: msgspec.Raw = msgspec.Raw()
    flags: int = 0
    boot_id: msgspec.Raw = msgspec.Raw()
    seq: int | None = None
    protocol: msgspec.Raw = msgspec.Raw()
    tenant: str = "default"


class _AbsentError(Exception):
    """No whole frame where one is due."""


_decoder = msgspec.msgpack.Decoder(list[_Owned])
_TENANT = attrgetter("tenant")


def census(root: Path, positions: Mapping[str, Position], counted: Counted | None = None) -> dict[str, Waiting] | None:
    """Count the readings behind the positions by tenant.

    Args:
        root: the spools' folder.
        positions: the writer's, by slot.
        counted: what is known from before; grows with each call, by closed segments up to MOST_READINGS.

    Returns:
        None: it cannot be told now. Not all of a long backlog is counted yet, or a frame is not there: it is damaged,
        or the writer consumed and deleted it meanwhile, and then newer positions help.
    """
    counted = {} if counted is None else counted
    try:
        slots = [(folder, positions.get(f"{folder.parent.name}/{folder.name}")) for folder in slot_folders(root)]
        spans = [span for slot in slots for span in _spans_behind(*slot)]
        if not _count_closed(spans, counted):
            return None
        tallies = {span.key: _advance(span, counted.get(span.key)) for span in spans}
    except (_AbsentError, OSError, msgspec.MsgspecError):
        return None
    for key in counted.keys() - tallies.keys():
        counted.pop(key, None)
    counted |= tallies
    return _sum(tally.waiting for tally in tallies.values())


class _Span(NamedTuple):
    """Readings in one segment of a slot that wait: numbers from `start` to before `end`."""

    folder: Path
    slot_id: str
    first: int  # of the segment
    start: int
    end: int
    offset: int  # in the file, at or before that of `start`
    is_closed: bool  # nothing comes to it, and nothing of it was consumed

    @property
    def key(self) -> Key:
        return str(self.folder), self.slot_id, self.first, self.start


def _spans_behind(folder: Path, position: Position | None) -> Iterator[_Span]:
    """Give the parts of a slot's segments from the position to the mark."""
    mark = segments.read_mark(folder)
    firsts = segments.first_numbers(folder)  # after the mark: see the rules of ingest.spool.segments
    if mark is None:
        return
    if position is None or position.slot_id != mark.slot_id:
        position = Position(mark.slot_id, min([mark.number, *firsts[:1]]))  # where the writer will begin
    number = position.number
    for first, after in pairwise([*firsts, _BEHIND]):
        if after > number and number < mark.number:
            end, offset = min(after, mark.number), position.offset if position.segment == first else 0
            yield _Span(folder, mark.slot_id, first, number, end, offset, number <= first and after <= mark.number)
            number = end
    if number < mark.number:
        raise _AbsentError


def _count_closed(spans: Sequence[_Span], counted: Counted) -> bool:
    """Count closed segments that were not yet; tell whether all were."""
    left = MOST_READINGS
    for span in spans:
        if not span.is_closed or span.key in counted:
            continue
        if left <= 0:
            return False
        counted[span.key] = _advance(span, None)
        left -= span.end - span.start
    return True


def _advance(span: _Span, known: Tally | None) -> Tally:
    """Count what is not known yet of a span."""
    if known is not None and known.end == span.end:
        return known
    before = known or Tally({}, span.start, span.offset)
    counts, oldest_ns, size = Counter[str](), dict[str, int](), 0
    content = _load(segments.segment_path(span.folder, span.first), before.offset)
    for frame in _frames(content, before.end, span.end):
        readings = _decoder.decode(frame.body)
        counts.update(map(_TENANT, readings))
        first_ns = {each.tenant: each.received_ns for each in reversed(readings)}
        oldest_ns |= {name: min(ns, oldest_ns.get(name, ns)) for name, ns in first_ns.items()}
        size = frame.end
    more = {name: Waiting(count, oldest_ns[name]) for name, count in counts.items()}
    return Tally(_sum((before.waiting, more)), span.end, before.offset + size)


def _sum(tallies: Iterable[Mapping[str, Waiting]]) -> dict[str, Waiting]:
    found: dict[str, Waiting] = {}
    for tally in tallies:
        for name, more in tally.items():
            held = found.get(name, Waiting(0, more.oldest_ns))
            found[name] = Waiting(held.readings + more.readings, min(held.oldest_ns, more.oldest_ns))
    return found


def _frames(content: memoryview, number: int, end: int) -> Iterator[frames.Frame]:
    """Give the frames from a number to an end; those before were consumed."""
    offset = 0
    while number < end:
        frame = frames.read(content, offset)
        if frame is None or frame.first > number:
            raise _AbsentError
        offset = frame.end
        if frame.first == number:
            number += frame.readings
            yield frame


def _load(path: Path, offset: int) -> memoryview:
    with path.open("rb") as file:
        file.seek(offset)
        return memoryview(file.read())
