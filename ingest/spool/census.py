"""Whose the readings are that wait in the spools, counted by tenant from the frames themselves. Changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import pairwise
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import msgspec

from ingest.spool import frames, segments
from ingest.spool.reader import Position, pending_of, slot_folders

MOST_READINGS = 100_000  # that are counted, in 0.1 s (1 us each): of a longer backlog it is not told whose it is
_BEHIND = 2**63  # above each number of a reading


class Waiting(NamedTuple):
    """Readings of one tenant that wait; `oldest_ns` is when the first of them, in a frame, was received."""

    readings: int
    oldest_ns: int | None


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


def census(root: Path, positions: Mapping[str, Position]) -> dict[str, Waiting] | None:
    """Count the readings behind the positions by tenant.

    None: it cannot be told now. More wait than MOST_READINGS, or a frame is not there: it is damaged, or the writer
    consumed and deleted it meanwhile, and then newer positions help.
    """
    slots = [(folder, positions.get(f"{folder.parent.name}/{folder.name}")) for folder in slot_folders(root)]
    if sum(pending_of(*slot) for slot in slots) > MOST_READINGS:
        return None
    counts, oldest_ns = Counter[str](), dict[str, int]()
    try:
        for slot in slots:
            for body in _bodies_behind(*slot):
                readings = _decoder.decode(body)
                counts.update(map(_TENANT, readings))
                first_ns = {each.tenant: each.received_ns for each in reversed(readings)}
                oldest_ns |= {name: min(ns, oldest_ns.get(name, ns)) for name, ns in first_ns.items()}
    except (_AbsentError, OSError, msgspec.MsgspecError):
        return None
    return {name: Waiting(count, oldest_ns[name]) for name, count in counts.items()}


def _bodies_behind(folder: Path, position: Position | None) -> Iterator[memoryview]:
    """Give the bodies of a slot's frames from the position to the mark."""
    mark = segments.read_mark(folder)
    firsts = segments.first_numbers(folder)  # after the mark: see the rules of ingest.spool.segments
    if mark is None:
        return
    if position is None or position.slot_id != mark.slot_id:
        position = Position(mark.slot_id, min([mark.number, *firsts[:1]]))  # where the writer will begin
    number = position.number
    for first, after in pairwise([*firsts, _BEHIND]):
        if after > number and number < mark.number:
            offset = position.offset if position.segment == first else 0
            content = _load(segments.segment_path(folder, first), offset)
            for frame in _frames(content, number, min(after, mark.number)):
                yield frame.body
                number = frame.first + frame.readings
    if number < mark.number:
        raise _AbsentError


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
