"""Contract of every engine: rewriting, late data, latest values, deletion."""

from __future__ import annotations

import random

import pytest

from tests.series.conftest import Store
from wire.points import Point

S = 1_000_000_000
DAY = 86_400 * S
T = 1_767_312_000 * S  # 2026-01-02 00:00 UTC


def test_same_batch_twice_changes_nothing(store):
    points = [Point(f"d{at % 10}", "m", T + at * S, {"a": float(at), "b": at}) for at in range(500)]
    store.take(*points)
    store.take(*points)

    assert store.range(limit=2_000) == points


@pytest.mark.parametrize(
    ("first", "then"), [(5.0, 3.0), (3.0, 5.0), (5, 3), (True, False), ("b", "a"), (0.0, -0.0), (1, 2**64 - 1)]
)
def test_the_last_write_of_a_time_wins(store, first, then):
    store.take(Point("d1", "m", T, {"v": first}))
    store.take(Point("d1", "m", T, {"v": then}))

    assert repr([point.fields["v"] for point in store.range()]) == repr([then])
    assert repr(store.latest()) == repr({"v": (T, then)})


def test_the_last_write_wins_inside_one_batch_of_mixed_forms(store):
    for at in (T, T + S, T + 2 * S):  # the series and its forms are new, then known
        store.take(
            Point("d1", "m", at, {"a": 1.0}),
            Point("d1", "m", at, {"a": 2.0, "b": 2.0}),
            Point("d1", "m", at, {"b": 3.0, "c": 3.0}),
            Point("d1", "m", at, {"a": 4.0}),
        )

        assert [point.fields for point in store.range(start_ns=at)] == [{"a": 4.0, "b": 3.0, "c": 3.0}]
        assert store.latest() == {"a": (at, 4.0), "b": (at, 3.0), "c": (at, 3.0)}


def test_the_last_write_wins_inside_one_batch_of_one_form(store):
    for at in (T, T + S):
        store.take(*(Point("d1", "m", at, {"a": value}) for value in (5.0, -1.0, 3.0)))

        assert [point.fields for point in store.range(start_ns=at)] == [{"a": 3.0}]
        assert store.latest() == {"a": (at, 3.0)}


def test_a_batch_of_many_series_days_and_forms_is_stored_whole(store):
    store.take(*(Point(f"d{number}", "m", T, {"a": 0.5}) for number in range(4)))
    points = [
        Point(
            f"d{number % 4}",
            "m",
            T + number * 3 * 3_600 * S,
            {"a": number + 0.25} | ({"b": True} if number % 7 == 0 else {}),
        )
        for number in range(1, 60)
    ]
    store.take(*points)

    assert store.range(start_ns=T + S, limit=100) == points
    for point in points[-4:]:
        assert store.latest(point.device)["a"] == (point.time_ns, point.fields["a"])


def test_fields_of_one_time_join(store):
    store.take(Point("d1", "m", T, {"a": 1.0, "b": True}))
    store.take(Point("d1", "m", T, {"c": "x", "b": False}))

    assert [point.fields for point in store.range()] == [{"a": 1.0, "b": False, "c": "x"}]


def test_points_keep_the_version_they_were_judged_by(store):
    marked = [Point("d1", "m", T + at, {"v": float(at)}, judged_by=at) for at in range(3)]
    store.take(*marked)
    store.take(Point("d2", "m", T, {"v": 1.0}, {"site": "a"}, judged_by=7))

    assert [(point.device, point.judged_by) for point in store.range()] == [("d1", 0), ("d2", 7), ("d1", 1), ("d1", 2)]


def test_the_newest_judgement_of_a_time_wins_and_none_takes_none_away(store):
    store.take(Point("d1", "m", T, {"a": 1.0}, judged_by=3))
    store.take(Point("d1", "m", T, {"b": 1.0}, judged_by=4), Point("d1", "m", T, {"c": 1.0}))
    store.take(Point("d1", "m", T, {"a": 2.0}))

    assert [(point.fields, point.judged_by) for point in store.range()] == [({"a": 2.0, "b": 1.0, "c": 1.0}, 4)]


def test_tags_make_another_series_whatever_their_order(store):
    store.take(Point("d1", "m", T, {"v": 1.0}, {"a": "1", "b": "2"}), Point("d1", "m", T, {"v": 2.0}))
    store.take(Point("d1", "m", T, {"w": 3.0}, {"b": "2", "a": "1"}))

    assert sorted(repr(point.fields) for point in store.range()) == ["{'v': 1.0, 'w': 3.0}", "{'v': 2.0}"]


def test_late_data_over_many_days_in_any_order(store):
    points = [Point(f"d{day % 3}", "m", T - day * DAY + day, {"v": float(day)}) for day in range(40)]
    random.Random(7).shuffle(points)
    store.take(*points)

    assert store.range() == sorted(points, key=lambda point: point.time_ns)


def test_midnight_belongs_to_the_new_day(store):
    times = [T - 1, T, T + DAY - 1, T + DAY]
    store.take(*[Point("d1", "m", time, {"v": 1.0}) for time in times])

    assert [point.time_ns for point in store.range(start_ns=T, end_ns=T + DAY)] == times[1:3]


def test_latest_never_goes_back(store):
    store.take(Point("d1", "m", T, {"a": 1.0, "b": 1.0}))
    store.take(
        Point("d1", "m", T - 1, {"a": 2.0, "c": 2.0}),
        Point("d1", "m", T + 5, {"b": 3.0}),
        Point("d1", "m", T + 4, {"b": 4.0}),
    )

    assert store.latest() == {"a": (T, 1.0), "b": (T + 5, 3.0), "c": (T - 1, 2.0)}


def test_point_that_does_not_move_the_latest_is_stored_and_never_shown_as_newest(store):
    store.take(Point("d1", "m", T, {"v": 1.0}), Point("d1", "m", T + 1, {"v": 2.0}, moves_latest=False))
    store.take(Point("d2", "m", T, {"v": 2.0}, moves_latest=False))

    assert store.latest() == {"v": (T, 1.0)}
    assert store.latest("d2") == {}
    assert [point.fields["v"] for point in store.range(devices=["d1"])] == [1.0, 2.0]


def test_latest_of_ten_thousand_devices(store):
    store.take(*[Point(f"d{at:05}", "m", T + at, {"v": float(at)}) for at in range(10_000)])

    points = store.reader.latest(limit=20_000).points
    assert [point.fields["v"] for point in points] == [float(at) for at in range(10_000)]


def test_all_survives_closing_and_opening_again(engine):
    first = Store(engine)
    first.take(Point("d1", "m", T, {"a": 1, "b": 2.0, "c": True, "d": "x"}))
    first.close()
    again = Store(engine)
    refused = again.write(Point("d1", "m", T + 1, {"a": 1.5, "b": 3})).refused

    assert [refusal.code for refusal in refused] == ["type_conflict"]
    assert [point.fields for point in again.range()] == [{"a": 1, "b": 2.0, "c": True, "d": "x"}, {"b": 3.0}]
    assert again.latest() == {"a": (T, 1), "b": (T + 1, 3.0), "c": (T, True), "d": (T, "x")}
    again.close()


def test_delete_removes_a_device_and_its_types_and_nobody_else(store):
    if not store.capabilities.delete_series:
        pytest.skip("engine cannot delete")
    others = [Point("d2", "m", T + day * DAY, {"v": 1.0}) for day in range(3)]
    same_name = Point("d1", "m", T, {"v": 1.0}, tenant="other")
    store.take(
        *others,
        same_name,
        *[Point("d1", name, T + day * DAY, {"v": 1.0}, {"k": name}) for day in range(3) for name in "mno"],
    )
    store.writer.delete("d1")

    assert store.range() == others
    assert store.latest("d1") == {}
    assert store.range(tenant="other") == [same_name]
    store.take(Point("d1", "m", T, {"v": "text now"}, {"k": "m"}))
    assert [point.fields for point in store.range(devices=["d1"])] == [{"v": "text now"}]


def test_delete_of_an_unknown_device_is_fine(store):
    store.writer.delete("nobody")

    assert store.writer.health() == "ok"
