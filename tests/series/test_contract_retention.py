"""Contract of every engine: what is removed when its time is over, and what is not."""

from __future__ import annotations

import pytest

from series.port import Term
from tests.series.conftest import Store
from wire.points import Point

S = 1_000_000_000
DAY = 86_400 * S
T = 1_767_312_000 * S  # 2026-01-02 00:00 UTC


def test_retention_drops_whole_days_and_their_latest_values(engine):
    store = Store(engine, retention_days=2)
    store.take(*[Point("d1", "m", T + day * DAY, {"v": float(day)}) for day in range(6)])
    store.take(
        Point("silent", "m", T, {"v": 1.0}),
        Point("half", "m", T, {"old": 1.0}),
        Point("half", "m", T + 5 * DAY, {"new": 1.0}),
    )
    dropped = store.expire(T + 5 * DAY + 1)

    assert dropped == 3
    assert [point.fields for point in store.range(devices=["d1"])] == [{"v": 3.0}, {"v": 4.0}, {"v": 5.0}]
    assert store.latest("silent") == {}
    assert store.latest("half") == {"new": (T + 5 * DAY, 1.0)}
    assert store.latest("d1") == {"v": (T + 5 * DAY, 5.0)}
    assert store.expire(T + 5 * DAY + 1) == 0
    store.close()


def test_series_dropped_by_retention_can_come_back(engine):
    store = Store(engine, retention_days=1)
    store.take(Point("d1", "m", T, {"v": 1}), Point("d2", "m", T + 9 * DAY, {"v": 1}))
    store.expire(T + 9 * DAY)
    store.take(Point("d1", "m", T + 9 * DAY, {"v": "now a text"}))

    assert [point.fields for point in store.range(devices=["d1"])] == [{"v": "now a text"}]
    assert [point.fields for point in store.range(devices=["d2"])] == [{"v": 1}]
    store.close()


def test_without_retention_nothing_expires(store):
    store.take(Point("d1", "m", 0, {"v": 1.0}))

    assert store.expire(T) == 0
    assert len(store.range()) == 1


def keep(days, *devices, tenant="default"):
    return [Term(tenant, device, days) for device in devices]


def kept_days(store, device="d1", tenant="default"):
    return [int(point.fields["v"]) for point in store.range(devices=[device], tenant=tenant)]


@pytest.mark.parametrize(("default", "others"), [(None, [0, 1, 2, 3, 4, 5]), (4, [1, 2, 3, 4, 5]), (1, [4, 5])])
def test_devices_are_kept_for_as_long_as_each_is_said_to_be(engine, default, others):
    store = Store(engine, retention_days=default)
    store.take(*[Point(d, "m", T + day * DAY, {"v": float(day)}) for day in range(6) for d in ("d1", "d2", "d3")])
    store.take(*[Point("d1", "m", T + day * DAY, {"v": float(day)}, tenant="other") for day in range(6)])
    store.expire(T + 5 * DAY + 1, *keep(2, "d1"), *keep(3, "d2"))

    assert kept_days(store) == [3, 4, 5]
    assert kept_days(store, "d2") == [2, 3, 4, 5]
    assert kept_days(store, "d3") == others
    assert kept_days(store, tenant="other") == others
    store.close()


def test_day_that_no_device_keeps_goes_as_a_whole(engine):
    store = Store(engine)
    store.take(*[Point(d, "m", T + day * DAY, {"v": float(day)}) for day in range(6) for d in ("d1", "d2")])

    assert store.expire(T + 5 * DAY, *keep(2, "d1"), *keep(3, "d2")) == 2
    store.close()


def test_retention_that_grows_keeps_what_is_left_and_one_that_shrinks_removes_it(store):
    store.take(*[Point(d, "m", T + day * DAY, {"v": float(day)}) for day in range(6) for d in ("d1", "d2")])

    seen = []
    for days in (4, 5, 2, 1):
        store.expire(T + 5 * DAY, *keep(days, "d1"))
        seen.append(kept_days(store))

    assert seen == [[1, 2, 3, 4, 5], [1, 2, 3, 4, 5], [3, 4, 5], [4, 5]]
    assert kept_days(store, "d2") == [0, 1, 2, 3, 4, 5]


def test_latest_values_end_with_the_retention_of_their_device(store):
    for device in ("d1", "d2"):
        store.take(Point(device, "m", T, {"old": 1.0}), Point(device, "m", T + 5 * DAY, {"new": 1.0}))
    store.take(Point("silent", "m", T, {"v": 1}), Point("d1", "rare", T, {"v": 1}))
    store.expire(T + 5 * DAY, *keep(3, "d1", "silent"))

    assert store.latest() == {"new": (T + 5 * DAY, 1.0)}
    assert store.latest("d2") == {"new": (T + 5 * DAY, 1.0), "old": (T, 1.0)}
    assert store.latest("silent") == {}
    store.take(Point("silent", "m", T + 5 * DAY, {"v": "a text now"}))
    assert store.latest("silent") == {"v": (T + 5 * DAY, "a text now")}


def test_writes_between_the_steps_are_kept(store):
    store.take(*[Point(d, "m", T + day * DAY, {"v": float(day)}) for day in range(4) for d in ("d1", "d2")])

    written = []
    for number, _ in enumerate(store.writer.expire(T + 4 * DAY, keep(2, "d1"))):
        written += [Point("d1", "m", T + 4 * DAY + number, {"v": 1.0}), Point("new", "m", T + number, {"v": 1.0})]
        store.take(*written[-2:])

    assert kept_days(store)[:2] == [2, 3]
    assert len(store.range(start_ns=T + 4 * DAY)) == len(store.range(devices=["new"])) == len(written) // 2


def test_run_that_is_cut_short_is_completed_by_the_next(store):
    store.take(*[Point(d, "m", T + day * DAY, {"v": float(day)}) for day in range(6) for d in ("d1", "d2")])
    for steps in range(1, 30):
        for number, _ in enumerate(store.writer.expire(T + 5 * DAY, keep(2, "d1"))):
            if number == steps:
                break

    assert kept_days(store) == [3, 4, 5]
    assert kept_days(store, "d2") == [0, 1, 2, 3, 4, 5]
