"""Reading the spools: whole frames below the mark, in order, with every lost reading counted. Writes no segment.

The place in a slot is a reading number; the offset beside it only saves the search. Damage (a flipped bit, a vanished
segment) costs the frames it hit: the reader goes on at the next undamaged one, and the distance of the numbers tells
how many readings are gone.
"""

from __future__ import annotations

import os
import time
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import msgspec

from chassis import ending, logs
from ingest.readings import Reading
from ingest.spool import frames, segments

log = logs.get(__name__)
CHUNK_BYTES = 1024 * 1024
TURN_BYTES = 16 * 1024 * 1024  # of long readings, a turn takes fewer: decoded they cost several times as much memory
DISCOVER_S = 0.25  # how long a new slot may stay unseen
ADOPT_S = 2.0  # a restarted service takes its slot back within about a second; only then is it ours to recover
REST_S = 2.0  # until a slot that could not be read is tried again
KEPT_DAMAGED = 4  # damaged segments kept per slot, for a person to look at


class Position(NamedTuple):
    """How far a slot is consumed."""

    slot_id: str
    number: int
    segment: int = -1
    offset: int = 0


@dataclass(slots=True)
class Taken:
    """Readings of one turn over all slots, and where that leaves each slot."""

    readings: list[Reading] = field(default_factory=list)
    origins: list[tuple[str, int]] = field(default_factory=list)  # of each frame: name, index of its first reading
    positions: dict[str, Position] = field(default_factory=dict)
    damaged: int = 0
    consumed: int = 0  # before, by a writer that nobody remembers
    size_bytes: int = 0

    @contextmanager
    def as_a_whole(self) -> Iterator[None]:
        """Take in all that one slot gives, or when that fails nothing of it."""
        counts = self.damaged, self.consumed, self.size_bytes
        readings, origins = len(self.readings), len(self.origins)
        try:
            yield
        except BaseException:
            del self.readings[readings:], self.origins[origins:]
            self.damaged, self.consumed, self.size_bytes = counts
            raise


class SlotReader:
    """Reads one slot. One thread, but `position` may be looked at from others."""

    def __init__(self, folder: Path, position: Position | None) -> None:
        self.folder = folder
        self.name = f"{folder.parent.name}/{folder.name}"
        self.position = position
        self._damaged_segments: set[int] = set()
        self.reached_ns = 0  # when what was taken last was received; at first, what waits
        self._adopted: tuple[int, int] | None = None  # newest segment and its size when last recovered
        self.rests_until_s = 0.0  # monotonic: it could not be read

    def read(self, limit: int, into: Taken | None = None) -> Taken:
        """Take the next whole frames, at most `limit` readings unless the first frame alone is larger."""
        taken = into or Taken()
        mark = segments.read_mark(self.folder)
        if mark is None or (self.position is not None and self.position[:2] == mark):
            return taken
        firsts = segments.first_numbers(self.folder)  # after the mark: see the rules of ingest.spool.segments
        position = self._start(mark, firsts)
        self._count_known(position, taken)
        before_count = len(taken.readings)
        until = before_count + limit
        while position.number < mark.number and len(taken.readings) < until and taken.size_bytes < TURN_BYTES:
            before = position
            position = self._read_chunk(position, _bounds(firsts, position.number, mark.number), taken, until)
            if position == before:
                break
        if position != self.position:
            self.position = taken.positions[self.name] = position
        if len(taken.readings) > before_count:
            self.reached_ns = taken.readings[-1].received_ns
        return taken

    def pending(self) -> int:
        """Readings that are durable and not yet consumed."""
        mark = segments.read_mark(self.folder)
        if mark is None:
            return 0
        return mark.number - _number_in(self.position, mark)

    def drop_consumed(self) -> None:
        """Delete segments that are consumed; the newest stays, its name carries the count."""
        if self.position is None:
            return
        firsts = segments.first_numbers(self.folder)
        for first, after in pairwise(firsts):
            if after <= self.position.number:
                self._drop(first)

    def adopt(self) -> None:
        """Recover the slot when its process is gone and left more than the mark covers."""
        mark = segments.read_mark(self.folder)
        if mark is not None and not self._is_behind(mark):
            return
        if not segments.adopt(self.folder):
            return
        self._adopted = self._newest()
        mark = segments.read_mark(self.folder)
        position = self.position
        if mark and position and position.slot_id == mark.slot_id and position.number > mark.number:
            log.error("spool_went_back", slot=self.name, consumed=position.number, found=mark.number)
            self.position = Position(mark.slot_id, mark.number)

    def _is_behind(self, mark: segments.Mark) -> bool:
        position = self.position
        if position is None or position[:2] != mark:
            return position is not None and position.number > mark.number
        newest = self._newest()
        if newest is None or newest == self._adopted:  # nothing was added since: what is there cannot be read
            return False
        return newest[1] > (position.offset if position.segment == newest[0] else 0)

    def _newest(self) -> tuple[int, int] | None:
        with suppress(FileNotFoundError):
            for first in segments.first_numbers(self.folder)[-1:]:
                return first, segments.segment_path(self.folder, first).stat().st_size
        return None

    def _start(self, mark: segments.Mark, firsts: list[int]) -> Position:
        if self.position is not None and self.position.slot_id == mark.slot_id:
            return self.position
        if self.position is not None:
            log.warning("spool_slot_replaced", slot=self.name, consumed=self.position.number)
        return Position(mark.slot_id, min(firsts[0], mark.number) if firsts else mark.number)

    def _count_known(self, position: Position, taken: Taken) -> None:
        """Count what a writer consumed that remembered it in a file that is no more: its segments are deleted."""
        if self.position is None and position.number:
            log.warning("spool_position_lost", slot=self.name, consumed=position.number)
            taken.consumed += position.number

    def _read_chunk(self, position: Position, bounds: _Bounds, taken: Taken, until: int) -> Position:
        if bounds.first is None:
            return self._lose(position, bounds.end, "segment_missing", taken)
        offset = position.offset if position.segment == bounds.first else 0
        here = Position(position.slot_id, position.number, bounds.first, offset)
        after = self._take_frames(here, bounds.end, taken, until)
        return self._resync(here, bounds.end, taken) if after is None else after

    def _take_frames(self, position: Position, end: int, taken: Taken, until: int) -> Position | None:
        """Take the whole frames of one chunk, as far as the limit allows; None when none stands where one is due."""
        content = memoryview(_load(segments.segment_path(self.folder, position.segment), position.offset))
        number, offset = position.number, 0
        while number < end:
            frame = frames.read(content, offset)
            if frame is None or frame.first > number:
                return position._replace(number=number, offset=position.offset + offset) if offset else None
            if frame.first == number:
                if taken.readings and len(taken.readings) + frame.readings > until:
                    break
                self._take_frame(frame, position.slot_id, taken)
                number += frame.readings
            offset = frame.end  # frames of smaller numbers were consumed before
        return position._replace(number=number, offset=position.offset + offset)

    def _take_frame(self, frame: frames.Frame, slot_id: str, taken: Taken) -> None:
        try:
            readings = frames.decode(frame.body)
        except msgspec.MsgspecError as error:  # written so, by another version or a fault of ours
            taken.damaged += frame.readings
            log.error("spool_readings_lost", slot=self.name, readings=frame.readings, error=str(error))  # noqa: TRY400 - no trace: known
            return
        taken.origins.append((f"{slot_id}:{frame.first}", len(taken.readings)))
        taken.readings += readings
        taken.size_bytes += len(frame.body)

    def _resync(self, position: Position, end: int, taken: Taken) -> Position:
        """Go on behind damage; `end` is the number that follows this segment."""
        content = memoryview(_load_all(segments.segment_path(self.folder, position.segment), position.offset))
        whole = frames.read(content, 0)
        found = (0, whole) if whole and whole.first >= position.number else frames.find(content, 0, position.number)
        self._damaged_segments.add(position.segment)
        if found is None or found[1].first + found[1].readings > end:
            return self._lose(position, end, "frame_damaged", taken)
        place = position.offset + found[0]
        return self._lose(position, found[1].first, "frame_damaged", taken)._replace(offset=place)

    def _lose(self, position: Position, number: int, why: str, taken: Taken) -> Position:
        lost = number - position.number  # 0: the same damage, met again on the way to the number that is due
        taken.damaged += lost
        if lost:
            log.error("spool_readings_lost", slot=self.name, why=why, segment=position.segment, readings=lost)
        return position._replace(number=number)

    def _drop(self, first: int) -> None:
        path = segments.segment_path(self.folder, first)
        if first not in self._damaged_segments:
            path.unlink(missing_ok=True)
            return
        path.replace(path.with_suffix(".damaged"))
        for old in sorted(self.folder.glob("*.damaged"))[:-KEPT_DAMAGED]:
            old.unlink()


class SpoolReader:
    """Reads all slots of all protocols in turn, from where each was left."""

    def __init__(self, root: Path, positions: Mapping[str, Position]) -> None:
        self._root = root
        self._positions = positions
        self._slots: dict[str, SlotReader] = {}
        self._discovered_s = self._adopted_s = -DISCOVER_S

    def take(self, limit: int) -> Taken:
        """Take up to `limit` readings, first from the slot of which the oldest were taken last time.

        Slots with backlogs so advance in step, to within a turn, however unlike they are: a device whose messages went
        to several workers is drained about in order.
        """
        self._discover()
        taken = Taken()
        now_s = time.monotonic()
        for slot in sorted(self._slots.values(), key=lambda each: each.reached_ns):
            left = limit - len(taken.readings)
            if left > 0 and taken.size_bytes < TURN_BYTES and now_s >= slot.rests_until_s:
                _read(slot, left, taken)
        if not taken.positions:
            self._adopt()
        return taken

    def pending(self) -> int:
        """Readings not yet taken, over all slots."""
        return sum(slot.pending() for slot in list(self._slots.values()))

    def oldest_received_ns(self) -> int | None:
        """When the oldest reading not yet taken was received; None when all is taken."""
        times = [oldest_received_ns(slot.folder, slot.position) for slot in list(self._slots.values())]
        return min((time_ns for time_ns in times if time_ns is not None), default=None)

    def unreadable(self) -> list[str]:
        """Give the slots that the disk did not let us read; the others go on."""
        return sorted(slot.name for slot in list(self._slots.values()) if slot.rests_until_s)

    def drop_consumed(self, names: Mapping[str, Position]) -> None:
        """Delete what these slots have consumed for good."""
        for name in names:
            self._slots[name].drop_consumed()

    def _discover(self) -> None:
        now = time.monotonic()
        if now - self._discovered_s < DISCOVER_S:
            return
        self._discovered_s = now
        for folder in slot_folders(self._root):
            name = f"{folder.parent.name}/{folder.name}"
            if name not in self._slots:
                slot = self._slots[name] = SlotReader(folder, self._positions.get(name))
                slot.reached_ns = oldest_received_ns(folder, slot.position) or 0

    def _adopt(self) -> None:
        now = time.monotonic()
        if now - self._adopted_s >= ADOPT_S:
            self._adopted_s = now
            for slot in self._slots.values():
                slot.adopt()


def _read(slot: SlotReader, limit: int, taken: Taken) -> None:
    """Read a slot; one whose disk fails rests, stays where it is, and costs the other slots nothing."""
    try:
        with taken.as_a_whole():
            slot.read(limit, taken)
        slot.rests_until_s = 0.0
    except OSError as error:
        ending.end_if_short(error)
        log.error("spool_unreadable", slot=slot.name, error=error.strerror)  # noqa: TRY400 - no trace: the disk's fault
        slot.rests_until_s = time.monotonic() + REST_S


def slot_folders(root: Path) -> list[Path]:
    """All slots of all protocols."""
    return sorted(path.parent for path in root.glob("*/*/mark"))


def pending_of(folder: Path, position: Position | None) -> int:
    """Readings of a slot that are durable and lie behind a position."""
    return SlotReader(folder, position).pending()


def oldest_received_ns(folder: Path, position: Position | None) -> int | None:
    """When the first reading behind a position was received; None when there is none."""
    mark = segments.read_mark(folder)
    if mark is None or _number_in(position, mark) >= mark.number:
        return None
    with suppress(OSError):  # the writer says so
        readings = SlotReader(folder, position).read(1).readings
        return readings[0].received_ns if readings else None
    return None


def _number_in(position: Position | None, mark: segments.Mark) -> int:
    return min(position.number, mark.number) if position and position.slot_id == mark.slot_id else 0


class _Bounds(NamedTuple):
    """Segment that holds a number (None: it is gone), and the number at which that segment or hole ends."""

    first: int | None
    end: int


def _bounds(firsts: list[int], number: int, mark: int) -> _Bounds:
    place = bisect_right(firsts, number)
    after = firsts[place] if place < len(firsts) else mark
    return _Bounds(firsts[place - 1] if place else None, min(after, mark))


def _load(path: Path, offset: int) -> bytes:
    """Read a chunk that starts at a frame; longer when that frame is."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return b""
    try:
        content = os.pread(descriptor, CHUNK_BYTES, offset)
        needed = frames.claimed_end(memoryview(content), 0)
        return content if needed <= len(content) else os.pread(descriptor, needed, offset)
    finally:
        os.close(descriptor)


def _load_all(path: Path, offset: int) -> bytes:
    try:
        return path.read_bytes()[offset:]
    except FileNotFoundError:
        return b""
