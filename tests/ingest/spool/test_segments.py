"""Segment log on a real disk: counting, crash recovery at every offset, failing disks, slots."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ingest.readings import Reading
from ingest.spool import frames, segments
from ingest.spool.reader import SpoolReader
from wire.errors import SpoolFull, Unavailable

ROOT = Path(__file__).parents[2]
GIB = 1024**3


class FailingFiles(segments.DiskFiles):
    """A disk that fails on demand."""

    def __init__(self) -> None:
        self.room = GIB
        self.write_error = self.sync_error = 0

    def write(self, descriptor: int, content: bytes, offset: int) -> int:
        if self.write_error:
            if len(content) > 10:
                return super().write(descriptor, content[: len(content) // 2], offset)
            raise OSError(self.write_error, os.strerror(self.write_error))
        return super().write(descriptor, content, offset)

    def sync(self, descriptor: int) -> None:
        if self.sync_error:
            raise OSError(self.sync_error, os.strerror(self.sync_error))
        super().sync(descriptor)

    def free_bytes(self, folder: Path) -> int:
        return self.room


def reading(number: int, text: str = "") -> Reading:
    return Reading(f"d{number}", "telemetry", number, number, {"n": number, "s": text})


def open_spool(root: Path, *, limit: int = GIB, floor: int = 0, files: segments.Files | None = None) -> segments.Spool:
    return segments.open_spool(root / "json", limit_bytes=limit, floor_bytes=floor, files=files)


def append(log: segments.Spool, *numbers: int, text: str = "") -> None:
    log.commit(list(frames.encode([reading(number, text) for number in numbers])))


def drain(root: Path, reader: SpoolReader | None = None) -> list[int]:
    reader, numbers = reader or SpoolReader(root, {}), []
    while found := reader.take(1_000).readings:
        numbers += [each.time_ns for each in found]
    return numbers


def test_appended_readings_are_read_in_order(tmp_path: Path) -> None:
    log = open_spool(tmp_path)

    append(log, 0, 1)
    append(log, 2)
    log.close()

    assert drain(tmp_path) == [0, 1, 2]
    assert segments.accepted_total(tmp_path) == 3


def test_all_members_of_a_reading_survive() -> None:
    whole = Reading(
        "d", "m", -5, 2**62, {"f": -0.0, "i": 2**64 - 1, "n": -(2**63), "b": True, "s": "é,= \n"}, {"k": "v"},
        flags=16, boot_id="b", seq=2**53, protocol="line", tenant="t", delivery=65535, content=2**64 - 1,
    )  # fmt: skip

    (body,) = frames.encode([whole])
    (kept,) = frames.decode(body.content)

    assert kept == whole
    assert [type(value) for value in kept.fields.values()] == [float, int, int, bool, str]


def test_large_batches_become_several_frames() -> None:
    small = list(frames.encode([reading(number) for number in range(1_201)]))
    large = list(frames.encode([reading(number, "x" * 400_000) for number in range(5)]))

    assert [body.readings for body in small] == [500, 500, 201]
    assert max(body.readings for body in large) == 2


def test_counting_goes_on_after_segments_are_deleted(tmp_path: Path) -> None:
    log = open_spool(tmp_path, limit=8_000)
    reader = SpoolReader(tmp_path, {})
    for number in range(30):
        append(log, number, text="x" * 200)
        drain(tmp_path, reader)
        reader.drop_consumed({"json/0": reader._slots["json/0"].position})  # type: ignore[dict-item]

    log.close()

    assert len(segments.first_numbers(tmp_path / "json" / "0")) == 1
    assert segments.accepted_total(tmp_path) == 30
    assert open_spool(tmp_path).number == 30


def test_newest_segment_name_counts_without_a_mark(tmp_path: Path) -> None:
    log = open_spool(tmp_path)
    append(log, *range(10))
    log.close()
    (tmp_path / "json" / "0" / "mark").write_bytes(b"rubbish")

    again = open_spool(tmp_path)

    assert again.number == 10
    again.close()


def test_each_process_has_its_own_slot_and_a_freed_one_is_taken_again(tmp_path: Path) -> None:
    first, second = open_spool(tmp_path), open_spool(tmp_path)
    append(first, 0)
    append(second, 1)
    first.close()

    third = open_spool(tmp_path)

    assert (first.folder.name, second.folder.name, third.folder.name, third.number) == ("0", "1", "0", 1)
    assert segments.accepted_total(tmp_path) == 2
    second.close()
    third.close()


def test_torn_tail_is_cut_at_every_offset(tmp_path: Path) -> None:
    log = open_spool(tmp_path / "whole")
    append(log, 0, 1)
    whole = log.size_bytes()
    append(log, 2)
    log.close()
    content = segments.segment_path(log.folder, 0).read_bytes()
    mark = (log.folder / "mark").read_bytes()
    mark_of_two = mark[:8] + (2).to_bytes(8, "little")
    mark_of_two += segments.zlib.crc32(mark_of_two).to_bytes(4, "little")

    for cut in range(whole, len(content)):
        slot = tmp_path / str(cut) / "json" / "0"
        slot.mkdir(parents=True)
        segments.segment_path(slot, 0).write_bytes(content[:cut])
        (slot / "mark").write_bytes(mark_of_two)

        again = open_spool(tmp_path / str(cut))
        append(again, 7)

        assert segments.segment_path(slot, 0).stat().st_size == whole
        assert drain(tmp_path / str(cut)) == [0, 1, 7]
        assert again.number == 3
        again.close()


def test_whole_frame_behind_the_mark_is_kept_on_reopening(tmp_path: Path) -> None:
    log = open_spool(tmp_path)
    append(log, 0)
    log.close()
    (body,) = frames.encode([reading(1)])
    with segments.segment_path(log.folder, 0).open("ab") as segment:
        segment.write(frames.to_bytes(body, 1))
    assert drain(tmp_path) == [0], "not durable yet: not to be read"

    again = open_spool(tmp_path)

    assert again.number == 2
    assert drain(tmp_path) == [0, 1]
    again.close()


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_failed_write_keeps_nothing_and_recovers(tmp_path: Path, error: int) -> None:
    files = FailingFiles()
    log = open_spool(tmp_path, files=files)
    append(log, 0)
    durable_bytes = log.size_bytes()
    files.write_error = error

    with pytest.raises(SpoolFull):
        append(log, 8, 9)
    with pytest.raises(SpoolFull):
        append(log, 8, 9)
    assert log.size_bytes() == durable_bytes, "half a frame is no use to anybody"
    files.write_error = 0
    append(log, 1)

    assert drain(tmp_path) == [0, 1]
    assert log.number == 2
    log.close()


def test_failed_sync_ends_that_segment_for_ever(tmp_path: Path) -> None:
    files = FailingFiles()
    log = open_spool(tmp_path, files=files)
    append(log, 0)
    files.sync_error = errno.EIO

    with pytest.raises(Unavailable):
        append(log, 9)
    files.sync_error = 0
    append(log, 1)

    assert segments.first_numbers(log.folder) == [0, 1]
    assert drain(tmp_path) == [0, 1]
    log.close()


class WatchedFiles(segments.DiskFiles):
    """Notes what was called, and how far the mark was at that time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls: list[tuple[str, int]] = []

    def write(self, descriptor: int, content: bytes, offset: int) -> int:
        self._note("write")
        return super().write(descriptor, content, offset)

    def sync(self, descriptor: int) -> None:
        self._note("sync")
        super().sync(descriptor)

    def _note(self, name: str) -> None:
        mark = segments.read_mark(self.folder)
        self.calls.append((name, mark.number if mark else -1))


def test_mark_and_return_come_after_the_sync(tmp_path: Path) -> None:
    files = WatchedFiles(tmp_path / "json" / "0")
    log = open_spool(tmp_path, files=files)
    files.calls.clear()

    append(log, 0, 1)
    append(log, 2)

    assert files.calls == [("write", 0), ("sync", 0), ("write", 2), ("sync", 2)]
    log.close()


def test_sync_reaches_the_kernel_for_segment_and_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a power cut shows a missing sync, and no test can cut the power: so the calls themselves are watched."""
    synced: list[tuple[str, str]] = []

    def watch(name: str) -> None:
        real = getattr(os, name)

        def call(descriptor: int) -> None:
            real(descriptor)
            synced.append((name, Path(f"/proc/self/fd/{descriptor}").readlink().name))

        monkeypatch.setattr(os, name, call)

    log = open_spool(tmp_path)
    watch("fsync")
    watch("fdatasync")

    append(log, 1)
    assert synced == [("fsync", log.folder.name), ("fdatasync", f"{0:020d}.seg")]
    append(log, 2)
    assert synced[2:] == [("fdatasync", f"{0:020d}.seg")]
    log.close()


def test_readings_are_refused_below_the_floor_of_free_disk(tmp_path: Path) -> None:
    files = FailingFiles()
    log = open_spool(tmp_path, floor=1_000, files=files)
    files.room = 1_010

    with pytest.raises(SpoolFull, match="1000 bytes free"):
        append(log, 0)
    files.room = GIB
    append(log, 1)

    assert drain(tmp_path) == [1]
    log.close()


def test_full_spool_takes_readings_again_once_drained(tmp_path: Path) -> None:
    log = open_spool(tmp_path, limit=10_000)
    accepted = fill(log)
    with pytest.raises(SpoolFull) as refusal:
        append(log, 1_000, text="x" * 200)

    reader = SpoolReader(tmp_path, {})
    found = drain(tmp_path, reader)
    reader.drop_consumed({"json/0": reader._slots["json/0"].position})  # type: ignore[dict-item]
    append(log, accepted, text="x" * 200)

    assert refusal.value.retry_after_s > 0
    assert found == list(range(accepted))
    assert drain(tmp_path, reader) == [accepted]
    log.close()


def fill(log: segments.Spool) -> int:
    for number in range(100_000):
        try:
            append(log, number, text="x" * 200)
        except SpoolFull:
            return number
    raise AssertionError("never full")


@pytest.fixture
def tiny_disk(tmp_path: Path):
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_really_full_disk_refuses_and_recovers(tiny_disk: Path) -> None:
    log = open_spool(tiny_disk)
    accepted = fill(log)
    for _ in range(3):
        with pytest.raises(SpoolFull):
            append(log, 1_000, text="x" * 200)

    reader = SpoolReader(tiny_disk, {})
    found = drain(tiny_disk, reader)
    reader.drop_consumed({"json/0": reader._slots["json/0"].position})  # type: ignore[dict-item]
    append(log, accepted, text="x" * 200)

    assert found == list(range(accepted))
    assert drain(tiny_disk, reader) == [accepted]
    assert segments.accepted_total(tiny_disk) == accepted + 1
    log.close()


WRITER = """
import sys
from pathlib import Path
from ingest.spool import frames, segments
from ingest.readings import Reading
log = segments.open_spool(Path(sys.argv[1]) / "json", limit_bytes=2**30, floor_bytes=0)
number = int(sys.argv[2])
while True:
    log.commit(list(frames.encode([Reading("d", "m", number + i, 0, {"n": 1.5}) for i in range(7)])))
    number += 7
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()
"""


@pytest.mark.faults
def test_killed_process_loses_nothing_it_acknowledged(tmp_path: Path) -> None:
    acked: list[int] = []
    for turn in range(8):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(turn * 1_000_000)], stdout=subprocess.PIPE, cwd=ROOT
        )
        assert process.stdout is not None
        last = [int(process.stdout.readline()) for _ in range(20 + 13 * turn)][-1]
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().split(b"\n")[:-1]  # what is behind the last newline was never seen
        process.wait()
        process.stdout.close()
        acked += range(turn * 1_000_000, int(rest[-1]) if rest else last)

    log = open_spool(tmp_path)
    found = drain(tmp_path)

    assert log.folder.name == "0", "the slot of a killed process is free"
    assert set(acked) <= set(found)
    assert len(found) == len(set(found)) == log.number == segments.accepted_total(tmp_path)
    log.close()


def test_damaged_mark_costs_neither_number_nor_name(tmp_path: Path) -> None:
    log = open_spool(tmp_path)
    append(log, 0, 1, 2)
    mark = segments.read_mark(log.folder)
    log.close()
    whole = (log.folder / "mark").read_bytes()

    for place in range(len(whole)):
        damaged = whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :]
        (log.folder / "mark").write_bytes(damaged[: place or None])
        open_spool(tmp_path).close()

        assert segments.read_mark(log.folder) == mark


def test_mark_damaged_while_open_is_mended_by_the_next_commit(tmp_path: Path) -> None:
    log = open_spool(tmp_path)
    append(log, 0)
    before = segments.read_mark(log.folder)
    with (log.folder / "mark").open("r+b") as file:
        file.write(b"\xff" * 8)

    append(log, 1)
    after = segments.read_mark(log.folder)
    log.close()

    assert before is not None
    assert after == before._replace(number=2)
