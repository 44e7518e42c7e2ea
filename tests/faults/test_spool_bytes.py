"""F8: every length a segment can be torn to, and every single bit of it flipped: what is read is true, the rest is counted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from ingest.readings import Reading
from ingest.spool import frames, segments
from ingest.spool.reader import SlotReader

pytestmark = pytest.mark.faults
FRAMES, EACH = 3, 2


def reading(number: int) -> Reading:
    return Reading("d1", "telemetry", 1_000 + number, 2_000 + number, {"n": float(number), "t": "text"}, seq=number)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder in memory, where thousands of fsyncs cost nothing."""
    with TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture
def whole(tmp_path: Path) -> tuple[bytes, bytes]:
    """A segment of three frames, and the mark behind it."""
    log = segments.open_spool(tmp_path / "whole" / "json", limit_bytes=2**30, floor_bytes=0)
    for first in range(0, FRAMES * EACH, EACH):
        log.commit(list(frames.encode([reading(first + number) for number in range(EACH)])))
    log.close()
    return segments.segment_path(log.folder, 0).read_bytes(), (log.folder / "mark").read_bytes()


def read_back(slot: Path, segment: bytes, mark: bytes, *, reopened: bool) -> tuple[list[int], int]:
    """Numbers of the readings that come out, each checked to be what went in, and how many are counted as lost."""
    slot.mkdir(parents=True, exist_ok=True)
    for old in slot.iterdir():
        old.unlink()
    segments.segment_path(slot, 0).write_bytes(segment)
    (slot / "mark").write_bytes(mark)
    if reopened:
        segments.recover(slot, segments.DiskFiles())
    reader, numbers, damaged = SlotReader(slot, None), [], 0
    for _ in range(2 * FRAMES):
        taken = reader.read(1_000)
        damaged += taken.damaged
        for each in taken.readings:
            assert each == reading(each.seq or 0)
            numbers.append(each.seq or 0)
    return numbers, damaged


def flips(content: bytes) -> Iterator[bytes]:
    for place in range(len(content)):
        for bit in range(8):
            yield content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]


@pytest.mark.parametrize("reopened", [False, True], ids=["read as it is", "opened again first"])
def test_every_flipped_bit_is_found_and_costs_its_frame(
    tmp_path: Path, whole: tuple[bytes, bytes], reopened: bool
) -> None:
    segment, mark = whole
    for flipped in flips(segment):
        numbers, damaged = read_back(tmp_path / "0", flipped, mark, reopened=reopened)

        assert (len(numbers), damaged) == ((FRAMES - 1) * EACH, EACH), flipped
        assert numbers == sorted(set(numbers))


@pytest.mark.parametrize("reopened", [False, True], ids=["read as it is", "opened again first"])
def test_every_length_keeps_the_whole_frames_and_counts_the_rest(
    tmp_path: Path, whole: tuple[bytes, bytes], reopened: bool
) -> None:
    segment, mark = whole
    for length in range(len(segment)):
        kept = length * FRAMES // len(segment) * EACH  # the frames are of one size

        numbers, damaged = read_back(tmp_path / "0", segment[:length], mark, reopened=reopened)

        assert numbers == list(range(kept)), length
        assert damaged == FRAMES * EACH - kept, length


def test_every_flipped_bit_of_the_mark_costs_nothing_once_opened_again(
    tmp_path: Path, whole: tuple[bytes, bytes]
) -> None:
    segment, mark = whole
    for flipped in flips(mark):
        numbers, damaged = read_back(tmp_path / "0", segment, flipped, reopened=True)

        assert (numbers, damaged) == (list(range(FRAMES * EACH)), 0)
