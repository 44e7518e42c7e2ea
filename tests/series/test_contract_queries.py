"""Contract of every engine: which points a query gives, in which order, in which pages."""

from __future__ import annotations

import pytest

from series.port import AGGREGATE_FNS, AggregateQuery
from wire.errors import BadRequest
from wire.points import UINT64_MAX, Point

S = 1_000_000_000
MINUTE = 60 * S
DAY = 86_400 * S
T = 1_767_312_000 * S  # 2026-01-02 00:00 UTC


def _aggregate(store, fns, every_ns=MINUTE, fields=("v",), **query):
    base = {"start_ns": -(2**63), "end_ns": 2**63, "every_ns": every_ns, "fields": fields, "fns": fns}
    return store.reader.aggregate(AggregateQuery(**(base | query)))


def _rows(store, fn, **query):
    return [(row.time_ns, row.group, row.values["v"][fn]) for row in _aggregate(store, [fn], **query)]


def test_empty_store_reads_as_empty(store):
    assert store.range() == []
    assert store.reader.latest().points == []
    assert _aggregate(store, ["mean"]) == []
    assert list(store.reader.export(_range_query())) == []


def test_missing_store_reads_as_empty(engine):
    reader = engine.reader()

    assert reader.latest().points == []
    assert reader.range(_range_query()).points == []
    assert reader.health() == "ok"
    reader.close()


def _range_query(**query):
    from series.port import RangeQuery

    return RangeQuery(**({"start_ns": -(2**63), "end_ns": 2**63} | query))


def test_range_includes_its_start_and_not_its_end(store):
    store.take(*[Point("d1", "m", T + at, {"v": float(at)}) for at in range(10)])

    assert [point.time_ns - T for point in store.range(start_ns=T + 3, end_ns=T + 7)] == [3, 4, 5, 6]
    assert store.range(start_ns=T + 3, end_ns=T + 3) == []
    assert store.range(start_ns=T + 7, end_ns=T + 3) == []


def test_milliseconds_and_nanoseconds_are_apart(store):
    times = [T, T + 1, T + 999_999, T + 1_000_000, T + 1_000_001]
    store.take(*[Point("d1", "m", time, {"v": 1.0}) for time in reversed(times)])

    assert [point.time_ns for point in store.range()] == times


def test_order_is_time_device_measurement_tags(store):
    points = [
        Point("a", "m", T, {"v": 1.0}),
        Point("a", "n", T, {"v": 1.0}),
        Point("b", "m", T, {"v": 1.0}),
        Point("b", "m", T, {"v": 1.0}, {"k": "1"}),
        Point("b", "m", T, {"v": 1.0}, {"k": "2"}),
        Point("a", "m", T + 1, {"v": 1.0}),
    ]
    store.take(*reversed(points))

    assert sorted(store.range(), key=repr) == sorted(points, key=repr)
    assert [(point.time_ns, point.device, point.measurement) for point in store.range()] == sorted(
        (point.time_ns, point.device, point.measurement) for point in points
    )


def test_filters_by_device_field_and_measurement(store):
    store.take(
        Point("d1", "m", T, {"a": 1.0, "b": 2.0}),
        Point("d2", "m", T, {"a": 3.0}),
        Point("d1", "n", T, {"b": 4.0}),
    )

    assert [point.fields for point in store.range(devices=["d1"], fields=["b"])] == [{"b": 2.0}, {"b": 4.0}]
    assert [point.fields for point in store.range(measurement="n")] == [{"b": 4.0}]
    assert [point.device for point in store.range(fields=["a"])] == ["d1", "d2"]
    assert store.range(devices=["nobody"]) == []
    assert store.range(fields=["nothing"]) == []


def test_tenants_do_not_see_each_other(store):
    mine, theirs = Point("d1", "m", T, {"v": 1.0}), Point("d1", "m", T, {"v": 2, "w": True}, tenant="other")
    store.take(mine, theirs)

    assert store.range() == [mine]
    assert store.range(tenant="other") == [theirs]
    assert store.reader.latest(tenant="other").points == [theirs]
    assert [row.values for row in _aggregate(store, ["sum"], tenant="other")] == [{"v": {"sum": 2}}]


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
def test_pages_join_without_loss_or_repeat(store, limit):
    points = [
        Point(f"d{device}", measurement, T - DAY + at * 7 * 3_600 * S, {"v": float(at)}, tags)
        for at in range(9)
        for device in range(3)
        for measurement, tags in (("m", {}), ("m", {"k": "v"}), ("n", {}))
    ]
    store.take(*points)

    assert _walk(store, limit) == store.range(limit=1_000)
    assert len(store.range(limit=1_000)) == len(points)


def _walk(store, limit, between=lambda: None, **query):
    found, cursor = [], None
    while True:
        page = store.page(limit=limit, cursor=cursor, **query)
        assert len(page.points) <= limit
        found += page.points
        if page.next is None:
            return found
        cursor = page.next
        between()


def test_pages_stay_right_while_writing_goes_on(store):
    points = [Point(f"d{device}", "m", T + at * MINUTE, {"v": 1.0}) for at in range(40) for device in (1, 3, 5)]
    store.take(*points)
    turn = iter(range(1_000))

    def write_more():
        at = next(turn)
        store.take(
            Point("d0", "m", T + at, {"new": 1.0}),
            Point(f"d2{at}", "m", T + at * MINUTE, {"new": 1.0}),
            Point("d1", "m", T - DAY * at, {"new": 1.0}),
            Point("d9", f"n{at}", T + DAY + at, {"new": 1.0}),
        )

    found = _walk(store, 7, write_more)

    assert [point for point in found if point.device in {"d1", "d3", "d5"} and "v" in point.fields] == points
    assert len({(point.time_ns, point.device, point.measurement) for point in found}) == len(found)


@pytest.mark.parametrize("cursor", ["x", "", "AAAA", "äöü", "kA", "//8=", "lcCQ", "a" * 5_000])
def test_malformed_cursor_is_a_bad_request(store, cursor):
    store.take(Point("d1", "m", T, {"v": 1.0}))

    with pytest.raises(BadRequest):
        store.page(cursor=cursor)
    with pytest.raises(BadRequest):
        store.reader.latest(cursor=cursor)


def test_cursor_of_another_kind_of_query_is_a_bad_request(store):
    store.take(*[Point(f"d{at}", "m", T, {"v": 1.0}) for at in range(3)])

    with pytest.raises(BadRequest):
        store.page(cursor=store.reader.latest(limit=1).next)
    with pytest.raises(BadRequest):
        store.reader.latest(cursor=store.page(limit=1).next)


@pytest.mark.parametrize("limit", [0, -1])
def test_limit_below_one_is_a_bad_request(store, limit):
    with pytest.raises(BadRequest):
        store.page(limit=limit)
    with pytest.raises(BadRequest):
        store.reader.latest(limit=limit)


def test_export_gives_everything_in_order(store):
    points = [Point(f"d{at % 7}", "m", T + at * S, {"v": float(at)}) for at in range(12_000)]
    store.take(*points)

    assert list(store.reader.export(_range_query(limit=3))) == points


def test_count_is_of_the_points_in_a_range(store):
    points = [Point(f"d{at % 7}", "m", T + at * 60 * S, {"v": float(at)}) for at in range(3_000)]
    store.take(*points, *points[:5], Point("d1", "m", T, {"v": 1.0}, tenant="other"))

    assert store.count() == 3_000
    assert store.count(start_ns=T + 60 * S, end_ns=T + 2_000 * 60 * S, devices=("d1", "d2")) == 572
    assert store.count(devices=("unknown",)) == 0
    assert store.count(tenant="other") == 1


def test_latest_pages_by_series(store):
    points = [Point(f"d{at:04}", "m", T + at, {"v": float(at)}) for at in range(2_500)]
    store.take(*points)

    found, cursor = [], None
    while True:
        page = store.reader.latest(limit=700, cursor=cursor)
        found += page.points
        cursor = page.next
        if cursor is None:
            break

    assert found == points
    assert len(store.reader.latest(limit=10_000).points) == 2_500


def test_latest_page_counts_only_series_with_the_field(store):
    store.take(*[Point(f"d{at}", "m", T, {"a" if at % 2 else "b": 1.0}) for at in range(10)])

    first = store.reader.latest(fields=["a"], limit=3)
    second = store.reader.latest(fields=["a"], limit=3, cursor=first.next)

    assert [point.device for point in first.points + second.points] == ["d1", "d3", "d5", "d7", "d9"]
    assert second.next is None


def test_latest_joins_values_of_one_time(store):
    store.take(Point("d1", "m", T, {"a": 1.0, "b": 2.0, "c": 3.0}), Point("d1", "m", T + 1, {"b": 4.0}))

    found = {point.time_ns: point.fields for point in store.reader.latest(["d1"]).points}
    assert found == {T: {"a": 1.0, "c": 3.0}, T + 1: {"b": 4.0}}


def test_aggregate_of_numbers(store):
    store.take(*[Point("d1", "m", T + at * 10 * S, {"v": float(at)}) for at in range(12)])

    rows = _aggregate(store, AGGREGATE_FNS)

    assert [row.time_ns for row in rows] == [T, T + MINUTE]
    assert rows[0].values == {
        "v": {"mean": 2.5, "min": 0.0, "max": 5.0, "sum": 15.0, "count": 6, "first": 0.0, "last": 5.0}
    }
    assert rows[1].values["v"]["mean"] == 8.5


@pytest.mark.parametrize(
    "every_ns", [1, 7, S, 7 * S, MINUTE, 7 * MINUTE, 3_600 * S, DAY, 7 * DAY, 30 * DAY, 2**62, 2**63 - 1]
)
def test_buckets_are_aligned_to_the_epoch_also_before_it(store, every_ns):
    times = [-(2**63), -8 * DAY - 1, -DAY, -MINUTE - 1, -1, 0, 1, MINUTE - 1, MINUTE, T - 1, T, T + DAY, 2**63 - 1]
    store.take(*[Point("d1", "m", time, {"v": 1.0}) for time in times])

    expected = {}
    for time in times:
        start = max(time // every_ns * every_ns, -(2**63))
        expected[start] = expected.get(start, 0) + 1
    assert [(time, count) for time, _, count in _rows(store, "count", every_ns=every_ns)] == sorted(expected.items())


def test_aggregate_cuts_at_start_and_end(store):
    store.take(*[Point("d1", "m", T + at * S, {"v": float(at)}) for at in range(180)])

    rows = _rows(store, "count", start_ns=T + 30 * S, end_ns=T + 125 * S)

    assert rows == [(T, "d1", 30), (T + MINUTE, "d1", 60), (T + 2 * MINUTE, "d1", 5)]


def test_aggregate_sums_integers_exactly(store):
    values = [UINT64_MAX, UINT64_MAX - 1, 2**63 - 1, -(2**63), 5, -3, 2**53 + 1]
    store.take(*[Point("d1", "m", T + at, {"v": value}) for at, value in enumerate(values)])

    [row] = _aggregate(store, AGGREGATE_FNS)

    assert row.values["v"]["sum"] == sum(values)
    assert (row.values["v"]["min"], row.values["v"]["max"]) == (-(2**63), UINT64_MAX)
    assert (row.values["v"]["first"], row.values["v"]["last"]) == (UINT64_MAX, 2**53 + 1)


def test_strings_only_count_first_and_last(store):
    store.take(*[Point("d1", "m", T + at, {"v": text}) for at, text in enumerate("cab")])

    [row] = _aggregate(store, AGGREGATE_FNS)

    assert row.values == {"v": {"count": 3, "first": "c", "last": "b"}}
    assert _aggregate(store, ["mean"]) == []


def test_booleans_count_as_zero_and_one(store):
    store.take(*[Point("d1", "m", T + at, {"v": at == 2}) for at in range(4)])

    [row] = _aggregate(store, AGGREGATE_FNS)

    assert row.values["v"] == {
        "mean": 0.25,
        "min": False,
        "max": True,
        "sum": 1,
        "count": 4,
        "first": False,
        "last": False,
    }


def test_sum_beyond_a_float_is_left_out(store):
    store.take(*[Point("d1", "m", T + at, {"v": 1.7e308}) for at in range(4)])

    [row] = _aggregate(store, ["sum", "mean", "max", "count"])

    assert row.values["v"] == {"max": 1.7e308, "count": 4}


def test_groups_join_devices_and_leave_out_the_unnamed(store):
    store.take(*[Point(f"d{at}", "m", T + at, {"v": float(at)}, {"k": str(at)}) for at in range(5)])
    group_of = {"d0": "north", "d1": "south", "d2": "north", "d3": "south"}

    rows = _aggregate(store, ["sum", "first", "last"], group_of=group_of)

    assert [(row.group, row.values["v"]) for row in rows] == [
        ("north", {"sum": 2.0, "first": 0.0, "last": 2.0}),
        ("south", {"sum": 4.0, "first": 1.0, "last": 3.0}),
    ]
    assert [row.group for row in _aggregate(store, ["sum"], group_of=group_of, devices=["d1", "d4"])] == ["south"]


def test_first_and_last_of_one_time_follow_the_range_order(store):
    store.take(
        *[Point(device, measurement, T, {"v": f"{device}{measurement}"}) for device in "cab" for measurement in "nm"]
    )

    [row] = _aggregate(store, ["first", "last"], group_of=dict.fromkeys("abc", "all"))

    assert row.values["v"] == {"first": "am", "last": "cn"}


def test_group_of_mixed_types_takes_the_numbers(store):
    values = {"d1": 1.5, "d2": 2, "d3": "text", "d4": True, "d5": UINT64_MAX, "d6": "9" * 30}
    store.take(*[Point(device, "m", T, {"v": value}) for device, value in values.items()])

    [row] = _aggregate(store, ["count", "sum", "min", "max"], group_of=dict.fromkeys(values, "all"))

    assert row.values["v"] == {"count": 6, "sum": 1.5 + 2 + True + UINT64_MAX, "min": 1, "max": UINT64_MAX}


def test_aggregate_takes_every_measurement_unless_one_is_named(store):
    store.take(Point("d1", "m", T, {"v": 1.0}), Point("d1", "n", T, {"v": 5.0, "w": 7}))

    assert _rows(store, "sum") == [(T, "d1", 6.0)]
    assert _rows(store, "sum", measurement="n") == [(T, "d1", 5.0)]
    assert _aggregate(store, ["max"], fields=["v", "w"])[0].values == {"v": {"max": 5.0}, "w": {"max": 7}}


def test_too_many_rows_are_a_bad_request_that_says_what_to_do(store):
    store.take(*[Point("d1", "m", T + at * S, {"v": 1.0}) for at in range(100)])

    assert len(_aggregate(store, ["sum"], every_ns=S, max_rows=100)) == 100
    with pytest.raises(BadRequest, match="longer buckets"):
        _aggregate(store, ["sum"], every_ns=S, max_rows=99)


@pytest.mark.parametrize("query", [{"every_ns": 0}, {"every_ns": -5}, {"fns": ["median"]}, {"fns": []}])
def test_aggregate_that_cannot_be_is_a_bad_request(store, query):
    with pytest.raises(BadRequest):
        _aggregate(store, **({"fns": ["mean"]} | query))
