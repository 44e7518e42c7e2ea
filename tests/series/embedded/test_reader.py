from __future__ import annotations

import pytest

from series.embedded.days import path_of, remove
from series.embedded.files import MAX_IDLE
from series.port import AggregateQuery, RangeQuery
from wire.errors import BadRequest, StoreUnavailable
from wire.points import Point

S = 1_000_000_000
DAY = 86_400 * S
T = 20_000 * DAY
ALL = RangeQuery(-(2**63), 2**63)


def test_reader_opened_before_the_store_sees_it_come_up(folder, reader, writer):
    assert reader.range(ALL).points == []
    for day in range(MAX_IDLE + 3):
        writer.write([Point("d1", f"m{day}", T + day * DAY, {f"new{day}": 1.0})])
        assert len(reader.range(ALL).points) == day + 1
        assert (
            reader.aggregate(AggregateQuery(T, T + 99 * DAY, DAY, [f"new{day}"], ["count"]))[0].time_ns == T + day * DAY
        )


def test_day_that_vanishes_is_no_error(folder, reader, writer):
    writer.write([Point("d1", "m", T + day * DAY, {"v": 1.0}) for day in range(3)])
    assert len(reader.range(ALL).points) == 3
    remove(folder, 20_001)

    assert [point.time_ns for point in reader.range(ALL).points] == [T, T + 2 * DAY]
    assert len(list(reader.export(ALL))) == 2


def test_day_that_vanishes_between_pages_is_no_error(folder, reader, writer):
    writer.write([Point("d1", "m", T + day * DAY + at, {"v": 1.0}) for day in range(3) for at in range(2)])
    page = reader.range(RangeQuery(0, 2**62, limit=3))
    remove(folder, 20_001)

    assert [point.time_ns for point in reader.range(RangeQuery(0, 2**62, limit=9, cursor=page.next)).points] == [
        T + 2 * DAY,
        T + 2 * DAY + 1,
    ]


def test_file_still_without_tables_is_an_empty_day(folder, reader, writer):
    writer.write([Point("d1", "m", T, {"v": 1.0})])
    path_of(folder, 20_001).touch()
    (folder / "2026-99-99.db").touch()
    (folder / "notes.txt").touch()

    assert len(reader.range(ALL).points) == 1


def test_broken_file_is_unavailable_and_named(folder, reader, writer):
    writer.write([Point("d1", "m", T, {"v": 1.0})])
    broken = path_of(folder, 20_001)
    broken.write_bytes(b"this is no database" * 300)

    with pytest.raises(StoreUnavailable, match=broken.name):
        reader.range(ALL)


def test_broken_catalog_shows_in_health(folder, reader):
    folder.mkdir()
    (folder / "catalog.db").write_bytes(b"this is no database" * 300)

    assert "catalog.db" in reader.health()


def test_few_connections_stay_open(folder, reader, writer):
    writer.write([Point("d1", "m", T + day * DAY, {"v": 1.0}) for day in range(40)])
    reader.range(ALL)

    assert len(reader._files._idle) <= MAX_IDLE


def test_one_device_of_many_and_many_of_many_agree(writer, reader):
    points = [Point(f"d{at % 100:02}", "m", T + at * 7 * S, {"v": float(at)}) for at in range(2_000)]
    writer.write(points)

    for count in (1, 5, 12, 13, 50, 100):
        devices = [f"d{at:02}" for at in range(count)]
        wanted = [point for point in points if point.device in devices]
        assert reader.range(RangeQuery(T, T + DAY, devices, limit=5_000)).points == wanted
        rows = reader.aggregate(
            AggregateQuery(T, T + DAY, 3_600 * S, ["v"], ["sum"], devices, group_of=dict.fromkeys(devices, "g"))
        )
        assert sum(row.values["v"]["sum"] for row in rows) == sum(point.fields["v"] for point in wanted)


def test_too_many_named_devices_are_a_bad_request(writer, reader):
    writer.write([Point("d1", "m", T, {"v": 1.0})])

    with pytest.raises(BadRequest, match="limit 30000"):
        reader.latest([f"d{at}" for at in range(30_001)])


def test_exporting_generator_may_be_left_half_way(writer, reader):
    writer.write([Point("d1", "m", T + at, {"v": 1.0}) for at in range(100)])
    export = reader.export(ALL)
    next(iter(export))
    del export

    assert len(reader.range(ALL).points) == 100
