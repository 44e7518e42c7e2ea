"""What a device type says of times: which are taken, which are not, and which never move the latest value."""

from __future__ import annotations

from typing import Any

import pytest

from ingest.protocols.times import GUARDED, OutsideWindow, place, policy_of
from wire import clock
from wire.devices import DeviceType
from wire.points import ALERTING, FUTURE, HISTORICAL, UNCERTAIN

NOW = 1_772_600_000 * clock.NS_PER_S
MINUTE = 60 * clock.NS_PER_S
DAY = 1_440 * MINUTE


def judged(time_ns: int, *, is_exact: bool = False, **members: Any) -> tuple[int | None, int] | str:
    spec = DeviceType(name="t", **members)
    try:
        return place(time_ns, NOW, policy_of(spec, is_exact=is_exact))
    except OutsideWindow as error:
        return error.code


def test_defaults_are_ten_minutes_ahead_and_any_age() -> None:
    assert place(NOW + 10 * MINUTE, NOW, GUARDED) == (NOW + 10 * MINUTE, 0)
    assert place(NOW + 10 * MINUTE + 1, NOW, GUARDED) == (None, UNCERTAIN)
    assert place(NOW - 9_000 * DAY, NOW, GUARDED) == (NOW - 9_000 * DAY, 0)
    assert place(0, NOW, GUARDED) == (None, UNCERTAIN)
    assert policy_of(DeviceType(name="t")) == GUARDED


@pytest.mark.parametrize("ahead_ns", [1, 30 * clock.NS_PER_S, MINUTE])
def test_clock_ahead_within_the_clamp_limit_gets_the_time_of_arrival(ahead_ns) -> None:
    rules = {"time_skew_s": 0, "time_ahead_s": 60}

    assert judged(NOW + ahead_ns, **rules) == (None, UNCERTAIN)
    assert judged(NOW, **rules) == (NOW, 0)
    assert judged(NOW + MINUTE + 1, **rules) == "too_new"


def test_exact_policy_keeps_what_is_ahead_but_not_as_the_latest() -> None:
    assert judged(NOW + 11 * MINUTE, time_policy="exact") == (NOW + 11 * MINUTE, UNCERTAIN | FUTURE)
    assert judged(NOW + 11 * MINUTE, is_exact=True) == (NOW + 11 * MINUTE, UNCERTAIN | FUTURE)
    assert judged(NOW + DAY, time_policy="exact", time_ahead_s=3600) == "too_new"
    assert judged(5, time_policy="exact") == (5, 0)


def test_older_than_the_window_is_refused_but_a_clock_never_set_is_not_old() -> None:
    assert judged(NOW - DAY, time_back_s=86_400) == (NOW - DAY, 0)
    assert judged(NOW - DAY - 1, time_back_s=86_400) == "too_old"
    assert judged(1_000, time_back_s=86_400) == (None, UNCERTAIN)
    assert judged(1_000, time_back_s=86_400, time_policy="exact") == "too_old"


def test_late_readings_are_history() -> None:
    assert judged(NOW - 5 * MINUTE, time_late_s=300) == (NOW - 5 * MINUTE, 0)
    assert judged(NOW - 5 * MINUTE - 1, time_late_s=300) == (NOW - 5 * MINUTE - 1, HISTORICAL)


def test_type_may_have_alerts_told_of_history() -> None:
    late_ns = NOW - 6 * MINUTE

    assert judged(late_ns, time_late_s=300, time_late_alerts=True) == (late_ns, HISTORICAL | ALERTING)
    assert judged(NOW - MINUTE, time_late_s=300, time_late_alerts=True) == (NOW - MINUTE, 0)


@pytest.mark.parametrize("member", ["time_skew_s", "time_ahead_s", "time_back_s", "time_late_s"])
@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), 1e300])
def test_spans_are_finite_and_not_negative(member, value) -> None:
    with pytest.raises(ValueError, match=member):
        DeviceType(name="t", **{member: value})
