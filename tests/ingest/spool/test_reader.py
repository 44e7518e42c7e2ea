"""Reading the spools: flipped bits, vanished segments, several slots, places kept over a restart."""

from __future__ import annotations

import logging
import random
from pathlib import Path

import pytest

from ingest.readings import Reading
from ingest.spool import frames, segments
from ingest.spool.reader import CHUNK_BYTES, Position, SlotReader, SpoolReader, Taken


def reading(number: int, text: str = "") -> Reading:
    return Reading(f"d{number}", "telemetry", number, 1_000 + number, {"n": number, "s": text})


def make_spool(root: Path, *groups: list[int], protocol: str = "json", limit: int = 1 << 30) -> segments.Spool:
    log = segments.open_spool(root / protocol, limit_bytes=limit, floor_bytes=0)
    for group in groups:
        log.commit([body for number in group for body in frames.encode([reading(number)])])
    return log


def drain(reader: SpoolReader | SlotReader, limit: int = 100) -> Taken:
    total = Taken()
    for _ in range(10_000):
        taken = reader.take(limit) if isinstance(reader, SpoolReader) else reader.read(limit)
        if not taken.positions:
            return total
        total.readings += taken.readings
        total.damaged += taken.damaged
    raise AssertionError("no end")


def numbers(taken: Taken) -> list[int]:
    return [each.time_ns for each in taken.readings]


def test_flipped_bit_costs_its_frame_only(tmp_path: Path) -> None:
    log = make_spool(tmp_path, list(range(10, 22)))
    log.close()
    path = segments.segment_path(log.folder, 0)
    content = path.read_bytes()
    frame_bytes = len(content) // 12
    picked = random.Random(3)

    for bit in sorted(picked.sample(range(len(content) * 8), 400)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)

        found = drain(SlotReader(log.folder, None))

        assert numbers(found) == [number for number in range(10, 22) if number - 10 != bit // 8 // frame_bytes]
        assert found.damaged == 1


def test_flip_in_a_spool_being_written_is_reported_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = make_spool(tmp_path, [0, 1, 2])
    path = segments.segment_path(log.folder, 0)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    reader = SlotReader(log.folder, None)

    with caplog.at_level(logging.ERROR):
        first = drain(reader)
        log.commit(list(frames.encode([reading_ := reading(3)])))
        second = drain(reader)

    assert (numbers(first), first.damaged) == ([0, 1], 1)
    assert (numbers(second), second.damaged) == ([reading_.time_ns], 0)
    assert len(caplog.records) == 1
    log.close()


def test_reopening_over_damage_neither_cuts_nor_reuses_numbers(tmp_path: Path) -> None:
    log = make_spool(tmp_path, [0, 1, 2])
    log.close()
    path = segments.segment_path(log.folder, 0)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)

    again = make_spool(tmp_path, [3])
    found = drain(SlotReader(log.folder, None))

    assert path.read_bytes() == content
    assert again.number == 4
    assert (numbers(found), found.damaged) == ([0, 1, 3], 1)
    again.close()


def test_damaged_segment_is_kept_for_a_person(tmp_path: Path) -> None:
    log = make_spool(tmp_path, [0, 1, 2])
    log.close()
    path = segments.segment_path(log.folder, 0)
    content = bytearray(path.read_bytes())
    content[30] ^= 1
    path.write_bytes(content)
    again = make_spool(tmp_path, [3])
    reader = SlotReader(log.folder, None)

    drain(reader)
    reader.drop_consumed()

    assert not path.exists()
    assert path.with_suffix(".damaged").read_bytes() == content
    again.close()


def test_device_text_is_never_taken_for_a_frame(tmp_path: Path) -> None:
    (inner,) = frames.encode([reading(666)])
    forged = frames.to_bytes(inner, 1).decode("latin-1")
    log = make_spool(tmp_path)
    log.commit(list(frames.encode([reading(0, forged)])))
    log.commit(list(frames.encode([reading(1)])))
    path = segments.segment_path(log.folder, 0)
    content = bytearray(path.read_bytes())
    content[8] ^= 1  # the CRC of the first
    path.write_bytes(content)

    found = drain(SlotReader(log.folder, None))

    assert (numbers(found), found.damaged) == ([1], 1)
    log.close()


def test_vanished_segment_is_counted(tmp_path: Path) -> None:
    log = make_spool(tmp_path, list(range(5)))
    log.close()
    again = make_spool(tmp_path, [5])
    reader = SlotReader(log.folder, None)
    reader.read(2)
    segments.segment_path(log.folder, 0).unlink()

    rest = drain(reader)

    assert (numbers(rest), rest.damaged) == ([5], 3)
    again.close()


def test_body_of_another_kind_is_counted_not_fatal(tmp_path: Path) -> None:
    log = make_spool(tmp_path, [0])
    odd = b"\x91\xa3odd"
    log.commit([frames.Body(odd, 4, segments.zlib.crc32(odd)), *frames.encode([reading(5)])])

    found = drain(SlotReader(log.folder, None))

    assert (numbers(found), found.damaged) == ([0, 5], 4)
    log.close()


def test_reading_goes_on_where_a_kept_position_says(tmp_path: Path) -> None:
    log = make_spool(tmp_path, *([number] for number in range(40)), limit=8_000)
    reader = SpoolReader(tmp_path, {})
    first = reader.take(15)

    second = drain(SpoolReader(tmp_path, first.positions))
    without_offset = {name: Position(*place[:2]) for name, place in first.positions.items()}
    third = drain(SpoolReader(tmp_path, without_offset))

    assert len(segments.first_numbers(log.folder)) > 2
    assert numbers(first) + numbers(second) == list(range(40))
    assert numbers(second) == numbers(third)
    log.close()


def test_only_consumed_segments_are_deleted(tmp_path: Path) -> None:
    log = make_spool(tmp_path, *([number] for number in range(40)), limit=8_000)
    reader = SpoolReader(tmp_path, {})
    taken = reader.take(15)

    reader.drop_consumed(taken.positions)
    left = segments.first_numbers(log.folder)
    rest = drain(reader)
    reader.drop_consumed(taken.positions)

    assert left[0] <= 15 < left[1]
    assert numbers(rest) == list(range(15, 40))
    assert segments.first_numbers(log.folder) == left[-1:]
    log.close()


def test_recreated_slot_is_read_from_its_start(tmp_path: Path) -> None:
    log = make_spool(tmp_path, [0, 1, 2])
    log.close()
    positions = SpoolReader(tmp_path, {}).take(10).positions
    for path in log.folder.iterdir():
        path.unlink()
    again = make_spool(tmp_path, [7])

    assert numbers(drain(SpoolReader(tmp_path, positions))) == [7]
    again.close()


def test_slots_with_backlogs_advance_in_step(tmp_path: Path) -> None:
    parts = {"json": list(range(90)), "line": list(range(90, 180, 2)), "other": list(range(91, 180, 2))}
    logs = [make_spool(tmp_path, part, protocol=name) for name, part in parts.items()]
    reader, limit = SpoolReader(tmp_path, {}), 10

    turns = [numbers(reader.take(limit)) for _ in range(20)]

    taken = [number for turn in turns for number in turn]
    assert sorted(taken) == sorted(number for part in parts.values() for number in part)
    for place, number in enumerate(taken):
        behind = [other for other in taken[place:] if other < number]
        assert len(behind) <= limit, f"{number} went before {behind}"
    for part in parts.values():
        assert [number for number in taken if number in part] == part
    for log in logs:
        log.close()


def test_slot_that_cannot_be_read_costs_no_other_slot_a_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever slot comes first: what the others gave in the same turn is kept, and the bad one waits for its disk."""
    monkeypatch.setattr("ingest.spool.reader.REST_S", 0.0)
    parts = {"json": list(range(0, 30, 3)), "line": list(range(1, 30, 3)), "other": list(range(2, 30, 3))}
    logs = {name: make_spool(tmp_path, part, protocol=name) for name, part in parts.items()}
    reader = SpoolReader(tmp_path, {})
    bad = segments.segment_path(logs["line"].folder, 0)
    bad.rename(bad.with_suffix(".away"))
    bad.mkdir()

    found = drain(reader, 5)
    unreadable = reader.unreadable()
    bad.rmdir()
    bad.with_suffix(".away").rename(bad)

    assert sorted(numbers(found)) == sorted(parts["json"] + parts["other"])
    assert unreadable == ["line/0"]
    assert numbers(drain(reader, 5)) == parts["line"]
    assert reader.unreadable() == []
    for log in logs.values():
        log.close()


def test_slot_that_fails_half_way_gives_nothing_of_that_turn(tmp_path: Path) -> None:
    first = make_spool(tmp_path, list(range(5)))
    first.close()
    log = make_spool(tmp_path)
    log.commit(list(frames.encode([reading(5)])))
    bad = segments.segment_path(log.folder, 5)
    bad.rename(bad.with_suffix(".away"))
    bad.mkdir()
    reader = SpoolReader(tmp_path, {})

    taken = reader.take(100)

    assert (taken.readings, taken.origins, taken.size_bytes, taken.positions) == ([], [], 0, {})
    log.close()


def test_frame_larger_than_a_chunk_is_read(tmp_path: Path) -> None:
    log = make_spool(tmp_path, [0])
    text = "x" * (CHUNK_BYTES * 2)
    log.commit(list(frames.encode([reading(1, text), reading(2)])))

    found = drain(SlotReader(log.folder, None))

    assert numbers(found) == [0, 1, 2]
    assert found.readings[1].fields["s"] == text
    log.close()


def test_frames_left_by_a_dead_process_are_adopted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = make_spool(tmp_path, [0])
    (body,) = frames.encode([reading(1)])
    with segments.segment_path(log.folder, 0).open("ab") as segment:
        segment.write(frames.to_bytes(body, 1) + b"torn")
    reader = SlotReader(log.folder, None)
    assert numbers(drain(reader)) == [0]

    reader.adopt()
    held = numbers(drain(reader))
    log.close()
    reader.adopt()

    assert held == []
    assert numbers(drain(reader)) == [1]
    assert segments.accepted_total(tmp_path) == 2


def test_a_turn_of_long_readings_is_bounded_by_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.spool.reader.TURN_BYTES", 100_000)
    log = make_spool(tmp_path)
    log.commit([body for number in range(30) for body in frames.encode([reading(number, "x" * 70_000)])])
    reader = SpoolReader(tmp_path, {})

    first = reader.take(5_000)

    assert len(first.readings) < 20
    assert numbers(first) + numbers(drain(reader)) == list(range(30))
    log.close()


def test_age_of_the_oldest_pending_reading_is_known(tmp_path: Path) -> None:
    log = make_spool(tmp_path, [5, 6, 7])
    reader = SpoolReader(tmp_path, {})
    reader._discover()

    before = (reader.pending(), reader.oldest_received_ns())
    reader.take(1)
    after = (reader.pending(), reader.oldest_received_ns())
    reader.take(10)

    assert (before, after) == ((3, 1_005), (2, 1_006))
    assert (reader.pending(), reader.oldest_received_ns()) == (0, None)
    log.close()
