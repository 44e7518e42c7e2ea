"""The spool: a segment log per worker slot, fsynced before anybody is told that a reading is kept. Knows no store.

    SPOOL/<protocol>/<slot>/lock                              flock of the process that appends; kill -9 frees it.
                                                              Its content: the slot's id, once more (see `mark`)
                           /mark                              number of the next reading: all before it are durable
                           /<first number, 20 digits>.seg     frames (ingest.spool.frames)

Rules that the reader relies on:
- `mark` moves only after fdatasync, and a segment exists before the mark passes its name: who reads the mark first and
  then lists the folder may read every frame below the mark.
- A number is never given twice below the mark. A segment that met a failed write or fsync is cut back and left.
- The newest segment is never deleted, and its name is a number: counting survives the deletion of all others.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import struct
import time
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol

from chassis import logs
from chassis.metrics import Counter, Histogram
from ingest.spool import frames
from wire.errors import SpoolFull, Unavailable

log = logs.get(__name__)
FULL = Counter("headwater_spool_refusals", "Appends refused, nothing kept", ["reason"])
COMMIT_SECONDS = Histogram(
    "headwater_spool_commit_seconds", "Time of one write and fdatasync", buckets=(0.0005, 0.002, 0.01, 0.05, 0.2, 1, 5)
)
SEGMENT_BYTES = 16 * 1024 * 1024
MAX_SLOTS = 64
LOOK_S = 0.1  # how old the figures of disk use may be
RETRY_AFTER_S = 5  # the writer drains or a person makes room: neither is done in a second
_SEGMENT = re.compile(r"\d{20}\.seg")
_MARK = struct.Struct("<8sQI")  # slot id, next number, crc32 of both


class Mark(NamedTuple):
    """What a slot says about itself: `slot_id` tells a recreated slot from the one before."""

    slot_id: str
    number: int


class Limits(NamedTuple):
    """How much the spool of one protocol may take, over all its slots."""

    limit_bytes: int
    floor_bytes: int
    segment_bytes: int


class Files(Protocol):
    """The disk, as the spool uses it; tests hand in one that fails."""

    def write(self, descriptor: int, content: bytes, offset: int) -> int: ...
    def sync(self, descriptor: int) -> None: ...
    def free_bytes(self, folder: Path) -> int: ...


class DiskFiles:
    """The real disk."""

    def write(self, descriptor: int, content: bytes, offset: int) -> int:
        return os.pwrite(descriptor, content, offset)

    def sync(self, descriptor: int) -> None:
        os.fdatasync(descriptor)

    def free_bytes(self, folder: Path) -> int:
        state = os.statvfs(folder)
        return state.f_bavail * state.f_frsize


class Spool:
    """One slot, open for appending. One thread at a time: `ingest.spool.batcher.GroupCommit` sees to that."""

    def __init__(self, folder: Path, lock: int, limits: Limits, files: Files) -> None:
        self.folder = folder
        self._lock = lock
        self._limits = limits
        self._files = files
        mark = recover(folder, files)
        self._number, self._slot_id = mark.number, bytes.fromhex(mark.slot_id)
        self._mark = os.open(folder / "mark", os.O_RDWR | os.O_CLOEXEC)
        self._segment = -1  # descriptor; -1: the next append opens one
        self._offset = 0  # behind the last frame that is durable
        self._looked_s = -LOOK_S
        self._used_bytes = self._free_bytes = 0

    @property
    def number(self) -> int:
        """Number of the next reading = readings this slot ever accepted."""
        return self._number

    def size_bytes(self) -> int:
        """Bytes this slot takes on disk."""
        return _size_bytes(self.folder)

    def commit(self, bodies: Sequence[frames.Body]) -> None:
        """Make all bodies durable with one write and one fdatasync; all or nothing.

        Raises:
            SpoolFull: over the limit, below the floor of free disk, or the write failed.
            Unavailable: fdatasync failed; this segment is left for ever.
        """
        number, parts = self._number, []
        for body in bodies:
            parts.append(frames.to_bytes(body, number))
            number += body.readings
        content = b"".join(parts)
        self._check_room(len(content))
        with COMMIT_SECONDS.time():
            self._write(content)
            self._sync(number)
        self._offset += len(content)
        self._number = number
        if self._offset >= self._limits.segment_bytes:
            self._leave_segment()

    def close(self) -> None:
        """Release the files and the slot."""
        self._close_segment()
        os.close(self._mark)
        os.close(self._lock)

    def _check_room(self, size: int) -> None:
        if time.monotonic() - self._looked_s >= LOOK_S or self._lacks_room(size):
            self._looked_s = time.monotonic()
            self._used_bytes = sum(_size_bytes(slot) for slot in slot_folders(self.folder.parent))
            self._free_bytes = self._files.free_bytes(self.folder)
        lacking = self._lacks_room(size)
        if lacking:
            self._refuse(lacking)
        self._used_bytes += size
        self._free_bytes -= size

    def _lacks_room(self, size: int) -> str:
        limits = self._limits
        if self._used_bytes + size > limits.limit_bytes:
            return f"the spool is at its limit of {limits.limit_bytes} bytes"
        if self._free_bytes - size < limits.floor_bytes:
            return f"the disk of the spool has less than {limits.floor_bytes} bytes free"
        return ""

    def _refuse(self, detail: str) -> None:
        FULL.labels("room").inc()
        # The newest segment is never deleted, so it must not be the one that fills the disk.
        if self._offset:
            self._leave_segment()
            with suppress(OSError):
                self._open_segment()
        raise SpoolFull(detail, retry_after_s=RETRY_AFTER_S)

    def _write(self, content: bytes) -> None:
        try:
            if self._segment < 0:
                self._open_segment()
            written = 0
            while written < len(content):
                rest = content[written:] if written else content
                written += self._files.write(self._segment, rest, self._offset + written)
        except OSError as error:
            self._leave_segment()
            FULL.labels("write").inc()
            log.warning("spool_write_failed", folder=str(self.folder), error=error.strerror)
            raise SpoolFull(f"the spool cannot be written: {error.strerror}", retry_after_s=RETRY_AFTER_S) from error

    def _sync(self, number: int) -> None:
        try:
            self._files.sync(self._segment)
            _write_mark(self._mark, self._slot_id, number)
        except OSError as error:
            # The kernel may have dropped the dirty pages: a second fsync of this file would prove nothing.
            self._leave_segment()
            FULL.labels("sync").inc()
            log.warning("spool_sync_failed", folder=str(self.folder), error=error.strerror)
            raise Unavailable(f"the spool cannot be synced: {error.strerror}", retry_after_s=1) from error

    def _open_segment(self) -> None:
        path = segment_path(self.folder, self._number)
        path.unlink(missing_ok=True)  # only ever an empty or refused one: nothing of it is below the mark
        self._segment = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._offset = 0
        _sync_folder(self.folder)

    def _leave_segment(self) -> None:
        """Cut what is not durable and close; the next append opens a new segment."""
        if self._segment >= 0:
            with suppress(OSError):
                os.ftruncate(self._segment, self._offset)
        self._close_segment()

    def _close_segment(self) -> None:
        if self._segment >= 0:
            os.close(self._segment)
        self._segment, self._offset = -1, 0


def open_spool(folder: Path, *, limit_bytes: int, floor_bytes: int, files: Files | None = None) -> Spool:
    """Take the first free slot below `folder` (SPOOL/<protocol>). Call it after any fork: the lock is inherited.

    Args:
        folder: of the protocol; made when absent.
        limit_bytes: what all slots of the protocol may take together.
        floor_bytes: free disk that is left to others.
        files: the disk, for tests.

    Raises:
        Unavailable: all slots are taken.
        OSError: the folder cannot be written.
    """
    # An eighth: what is drained of a full spool can be deleted although the newest segment stays.
    limits = Limits(limit_bytes, floor_bytes, max(1, min(SEGMENT_BYTES, limit_bytes // 8)))
    for number in range(MAX_SLOTS):
        slot = folder / str(number)
        slot.mkdir(parents=True, exist_ok=True)
        lock = _try_lock(slot)
        if lock is not None:
            for made in (folder, folder.parent, folder.parent.parent):
                _sync_folder(made)
            return Spool(slot, lock, limits, files or DiskFiles())
    raise Unavailable(f"all {MAX_SLOTS} slots of the spool are taken: {folder}")


def accepted_total(spool_root: Path) -> int:
    """Readings ever accepted, over all protocols and slots, also those whose segments are deleted."""
    return sum(_accepted(slot) for protocol in _folders(spool_root) for slot in slot_folders(protocol))


def adopt(folder: Path) -> bool:
    """Recover a slot that no process holds, so that its last frames can be read; False when one does."""
    lock = _try_lock(folder)
    if lock is None:
        return False
    try:
        recover(folder, DiskFiles())
    finally:
        os.close(lock)
    return True


def recover(folder: Path, files: Files) -> Mark:
    """Bring a slot whose lock is held to order after a crash; give its id and the number of its next reading.

    Whole frames behind the mark are kept (they were never acknowledged, but may be), a torn one is cut. What is
    damaged below the mark stays where it is: the reader counts and reports it. A damaged mark costs nothing: the number
    is that behind the segments, and the id, without which the writer would read them all again, stands in `lock` too.
    """
    mark = read_mark(folder)
    known = mark.number if mark else 0
    number = known
    firsts = first_numbers(folder)
    if firsts:
        number = max(known, firsts[-1], _mend_tail(segment_path(folder, firsts[-1]), known, files))
    kept = mark or _read_record(folder / "lock")
    if mark is None and (folder / "mark").exists():
        log.error("spool_mark_damaged", slot=str(folder), number=number, has_id=kept is not None)
    slot_id = bytes.fromhex(kept.slot_id) if kept else secrets.token_bytes(8)
    _keep_id(folder / "lock", slot_id, files)
    descriptor = os.open(folder / "mark", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _write_mark(descriptor, slot_id, number)
        files.sync(descriptor)
    finally:
        os.close(descriptor)
    _sync_folder(folder)
    return Mark(slot_id.hex(), number)


def _keep_id(path: Path, slot_id: bytes, files: Files) -> None:
    held = _read_record(path)
    if held is not None and held.slot_id == slot_id.hex():
        return
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_CREAT, 0o600)
    try:
        _write_mark(descriptor, slot_id, 0)
        files.sync(descriptor)
    finally:
        os.close(descriptor)


def _mend_tail(path: Path, known: int, files: Files) -> int:
    content = memoryview(path.read_bytes())
    offset, number, is_damaged = _end_of_frames(content)
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        if offset < len(content) and number >= known:
            log.warning("spool_tail_cut", segment=str(path), offset=offset, cut_bytes=len(content) - offset)
            os.ftruncate(descriptor, offset)
        elif offset < len(content) or is_damaged:
            log.error("spool_segment_damaged", segment=str(path), due=known, found=number)
        files.sync(descriptor)
    finally:
        os.close(descriptor)
    return number


def _end_of_frames(content: memoryview) -> tuple[int, int, bool]:
    """Offset behind the last undamaged frame, the number after it, and whether damage lies before it."""
    offset = number = 0
    is_damaged = False
    while offset < len(content):
        frame = frames.read(content, offset)
        if frame is None:
            found = frames.find(content, offset, number)
            if found is None:
                break
            is_damaged, frame = True, found[1]
        offset, number = frame.end, frame.first + frame.readings
    return offset, number, is_damaged


def segment_path(folder: Path, first: int) -> Path:
    """Path of the segment whose first reading has this number."""
    return folder / f"{first:020d}.seg"


def first_numbers(folder: Path) -> list[int]:
    """First numbers of a slot's segments, ascending."""
    with os.scandir(folder) as entries:
        return sorted(int(entry.name[:-4]) for entry in entries if _SEGMENT.fullmatch(entry.name))


def slot_folders(folder: Path) -> list[Path]:
    """Slots of a protocol, or [] when there are none yet."""
    return [slot for slot in _folders(folder) if slot.name.isdigit()]


def read_mark(folder: Path) -> Mark | None:
    """Read a slot's mark; None when the slot is only being made, or the mark is damaged."""
    return _read_record(folder / "mark")


def _read_record(path: Path) -> Mark | None:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    if len(content) != _MARK.size:
        return None
    slot_id, number, crc = _MARK.unpack(content)
    return Mark(slot_id.hex(), number) if crc == zlib.crc32(content[:16]) else None


def _write_mark(descriptor: int, slot_id: bytes, number: int) -> None:
    # 20 bytes of one page in one write: a reader sees the old mark, the new one, or a CRC that does not fit.
    content = slot_id + number.to_bytes(8, "little")
    os.pwrite(descriptor, content + zlib.crc32(content).to_bytes(4, "little"), 0)


def _accepted(slot: Path) -> int:
    mark = read_mark(slot)
    return max([mark.number if mark else 0, *first_numbers(slot)[-1:]])


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if entry.is_dir())
    except FileNotFoundError:
        return []


def _size_bytes(slot: Path) -> int:
    total = 0
    with os.scandir(slot) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):  # the writer deletes meanwhile
                total += entry.stat().st_size if entry.name.endswith(".seg") else 0
    return total


def _try_lock(slot: Path) -> int | None:
    descriptor = os.open(slot / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
