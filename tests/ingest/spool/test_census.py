"""Whose readings wait: the same as reading them would tell, from every place, or that it cannot be told."""

from __future__ import annotations

import random
import zlib
from collections import Counter
from pathlib import Path

import pytest

from ingest.readings import Reading
from ingest.spool import census as census_module
from ingest.spool import frames, segments
from ingest.spool.census import Waiting, census
from ingest.spool.reader import SpoolReader

TENANTS = ("default", "acme", "o\N{LATIN SMALL LETTER U WITH DIAERESIS}")


def reading(number: int, tenant: str = "default") -> Reading:
    """Give one with all members set, each unlike the others."""
    return Reading(
        f"d{number}", "m", number, 1_000 + number, {"n": number, "s": "x", "b": True}, {"t": "v"}, 3, "boot", number,
        "senml", tenant, 9, 77, 5, 6,
    )  # fmt: skip


def make_spool(root: Path, readings: list[Reading], segment_bytes: int = 2_000) -> segments.Spool:
    log = segments.open_spool(root / "json", limit_bytes=1 << 30, floor_bytes=0)
    log._limits = log._limits._replace(segment_bytes=segment_bytes)
    picked = random.Random(5)
    while readings:
        size = picked.randint(1, 7)
        log.commit(list(frames.encode(readings[:size])))
        readings = readings[size:]
    return log


def expected(readings: list[Reading]) -> dict[str, Waiting]:
    counts = Counter(each.tenant for each in readings)
    oldest = {name: min(each.received_ns for each in readings if each.tenant == name) for name in counts}
    return {name: Waiting(count, oldest[name]) for name, count in counts.items()}


def test_what_waits_is_counted_from_every_place(tmp_path: Path) -> None:
    picked = random.Random(7)
    readings = [reading(number, picked.choice(TENANTS)) for number in range(300)]
    log = make_spool(tmp_path, readings)
    assert len(segments.first_numbers(log.folder)) > 5
    reader, positions, taken = SpoolReader(tmp_path, {}), {}, 0

    while True:
        assert census(tmp_path, positions) == expected(readings[taken:])
        numbers = {name: place._replace(segment=-1, offset=0) for name, place in positions.items()}
        assert census(tmp_path, numbers) == expected(readings[taken:]), "the offset only saves the search"
        turn = reader.take(picked.randint(1, 20))
        if not turn.positions:
            break
        taken += len(turn.readings)
        positions |= turn.positions
        if picked.random() < 0.5:
            reader.drop_consumed(turn.positions)
    assert taken == 300
    log.close()


def test_readings_of_an_older_version_are_of_the_default_tenant(tmp_path: Path) -> None:
    log = segments.open_spool(tmp_path / "json", limit_bytes=1 << 30, floor_bytes=0)
    log.commit([frames.Body(content, 1, zlib.crc32(content)) for content in [b"\x91\x95\xa1d\xa1m\x07\x08\x80"]])

    assert census(tmp_path, {}) == {"default": Waiting(1, 8)}
    log.close()


def test_several_slots_are_counted_together(tmp_path: Path) -> None:
    logs = [segments.open_spool(tmp_path / name, limit_bytes=1 << 30, floor_bytes=0) for name in ("json", "senml")]
    for number, log in enumerate(logs):
        log.commit(list(frames.encode([reading(number, "acme")])))

    assert census(tmp_path, {}) == {"acme": Waiting(2, 1_000)}
    for log in logs:
        log.close()


@pytest.mark.parametrize("is_gone", [True, False])
def test_what_is_not_there_or_damaged_makes_it_unknown(tmp_path: Path, is_gone: bool) -> None:
    log = make_spool(tmp_path, [reading(number) for number in range(60)])
    path = segments.segment_path(log.folder, segments.first_numbers(log.folder)[1])
    if is_gone:
        path.unlink()
    else:
        content = bytearray(path.read_bytes())
        content[40] ^= 1
        path.write_bytes(content)

    assert census(tmp_path, {}) is None
    log.close()


def test_long_backlog_is_counted_by_and_by_and_then_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(census_module, "MOST_READINGS", 40)
    readings = [reading(number, TENANTS[number % 2]) for number in range(300)]
    log, counted = make_spool(tmp_path, readings), {}
    read: list[Path] = []
    monkeypatch.setattr(
        census_module, "_load", lambda path, offset, load=census_module._load: read.append(path) or load(path, offset)
    )

    looks = [census(tmp_path, {}, counted) for _ in range(12)]
    told = looks.index(expected(readings))
    read.clear()
    again = census(tmp_path, {}, counted)

    assert 2 <= told < 12
    assert looks[:told] == [None] * told
    assert again == expected(readings)
    assert read == [], "nothing came since"
    log.commit(list(frames.encode([reading(300, "acme")])))
    assert census(tmp_path, {}, counted) == expected([*readings, reading(300, "acme")])
    assert len(read) == 1, "only the segment that is written"
    log.close()


def test_what_was_consumed_is_not_remembered(tmp_path: Path) -> None:
    readings = [reading(number) for number in range(200)]
    log, counted, reader, positions, taken = make_spool(tmp_path, readings), {}, SpoolReader(tmp_path, {}), {}, 0
    census(tmp_path, {}, counted)
    held = len(counted)

    while taken < 150:
        turn = reader.take(20)
        taken += len(turn.readings)
        positions |= turn.positions
        reader.drop_consumed(turn.positions)
        assert census(tmp_path, positions, counted) == expected(readings[taken:])

    assert len(counted) < held / 2
    log.close()
