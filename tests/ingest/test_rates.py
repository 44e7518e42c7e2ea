"""Token buckets: what they let in, when they say to come again, and whose limits hold together."""

from __future__ import annotations

import pytest

from ingest import rates
from ingest.rates import UNLIMITED, Limits, RateLimits, closer, limits_of, to_bands
from wire.devices import DeviceTypeSpec

D1, D2 = ("default", "d1"), ("default", "d2")


class Clock:
    def __init__(self) -> None:
        self.s = 1_000.0

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def admitted(limits: RateLimits, times: int, whose=D1, of_type=UNLIMITED) -> int:
    return sum(not limits.take(whose, of_type).seconds for _ in range(times))


def each(notation: str) -> Limits:
    return Limits(to_bands(notation))


def together(notation: str, name: str = "pump") -> Limits:
    return limits_of(name, DeviceTypeSpec(type_rate_limit=notation))


def test_notation_is_that_of_thingsboard() -> None:
    assert to_bands("20:1,600:60") == ((20.0, 20.0, 0), (600.0, 10.0, 0))
    assert to_bands("messages 5:1, bytes 6000:60,readings 2:1") == ((5.0, 5.0, 1), (6_000.0, 100.0, 2), (2.0, 2.0, 0))
    assert to_bands("points 5:1") == to_bands("5:1") == ((5.0, 5.0, 0),)
    assert to_bands("") == ()


@pytest.mark.parametrize(
    "text", ["20", "20:", "0:1", "20:0", "1:1;2:2", "a:b", "1:1,,", "1:1,1:2,1:3,1:4,1:5", "-1:1", "words 1:1", "bytes"]
)
def test_other_notations_are_refused(text) -> None:
    with pytest.raises(ValueError, match="20:1,600:60"):
        to_bands(text)


def test_messages_count_whatever_they_hold(clock) -> None:
    limits = RateLimits("messages 2:1", now_s=clock)

    assert limits.take(D1, UNLIMITED).seconds == 0.0
    limits.charge(D1, UNLIMITED, 1_000)

    assert admitted(limits, 5) == 1


def test_bytes_of_a_message_are_taken_whole(clock) -> None:
    limits = RateLimits("1000:1,bytes 100:1", now_s=clock)

    assert limits.take(D1, UNLIMITED, size=250).seconds == 0.0

    assert limits.take(D1, UNLIMITED, size=1).seconds == pytest.approx(1.51)
    clock.s += 1.52
    assert limits.take(D1, UNLIMITED, size=1).seconds == 0.0


def test_without_a_limit_everything_is_let_in(clock) -> None:
    limits = RateLimits(now_s=clock)

    assert admitted(limits, 10_000) == 10_000
    assert not limits.is_on


def test_every_band_holds(clock) -> None:
    limits = RateLimits("20:1,30:60", now_s=clock)

    assert admitted(limits, 100) == 20
    clock.s += 1.0
    assert admitted(limits, 100) == 10  # the minute's band is empty, but for the half token that a second brings
    clock.s += 2.0
    assert admitted(limits, 100) == 1


def test_wait_is_exactly_until_the_token_is_there(clock) -> None:
    limits = RateLimits("4:2", now_s=clock)
    admitted(limits, 4)

    wait = limits.take(D1, UNLIMITED)
    clock.s += wait.seconds

    assert wait == (0.5, "device")
    assert limits.take(D1, UNLIMITED).seconds == 0.0
    assert limits.take(D1, UNLIMITED, ahead=3).seconds == pytest.approx(2.0)


def test_readings_of_one_message_are_a_debt_for_the_next(clock) -> None:
    limits = RateLimits("10:1", now_s=clock)

    assert limits.take(D1, UNLIMITED).seconds == 0.0
    limits.charge(D1, UNLIMITED, 30)

    assert limits.take(D1, UNLIMITED).seconds == pytest.approx(2.1)
    clock.s += 2.1
    assert admitted(limits, 5) == 1


def test_one_device_leaves_the_others_alone(clock) -> None:
    limits = RateLimits("5:1", now_s=clock)

    assert admitted(limits, 100, D1) == 5
    assert admitted(limits, 5, D2) == 5


def test_tenant_bounds_all_its_devices_together(clock) -> None:
    limits = RateLimits("", "5:1", now_s=clock)

    assert admitted(limits, 3, D1) + admitted(limits, 3, D2) == 5
    assert limits.take(D2, UNLIMITED).scope == "tenant"
    assert admitted(limits, 3, ("other", "d1")) == 3


def test_tenants_own_limit_goes_before_that_of_the_installation(clock) -> None:
    limits = RateLimits("", "5:1", now_s=clock)
    limits.limit_tenants({"default": "7:1", "free": ""})

    assert admitted(limits, 100, D1) == 7
    assert admitted(limits, 100, ("free", "d1")) == 100
    assert admitted(limits, 100, ("other", "d1")) == 5


def test_tenants_own_limit_is_set_and_lifted_while_messages_come(clock) -> None:
    limits = RateLimits(now_s=clock)
    limits.limit_tenants({"default": "3:1"})
    bounded = limits.is_on, admitted(limits, 100, D1), admitted(limits, 100, D2), admitted(limits, 9, ("other", "d"))
    limits.limit_tenants({"default": None})

    assert bounded == (True, 3, 0, 9)
    assert (limits.is_on, admitted(limits, 100, D1)) == (False, 100)


def test_limit_of_the_type_goes_before_that_of_the_installation(clock) -> None:
    limits = RateLimits("5:1", now_s=clock)

    assert admitted(limits, 100, D1, each("7:1")) == 7
    assert admitted(limits, 100, D2, each("")) == 100


def test_type_bounds_all_its_devices_together_and_no_others(clock) -> None:
    limits = RateLimits(now_s=clock)

    assert admitted(limits, 3, D1, together("5:1")) + admitted(limits, 3, D2, together("5:1")) == 5
    assert limits.take(D2, together("5:1")) == (pytest.approx(0.2), "type")
    assert admitted(limits, 3, D1, together("5:1", "fan")) == 3
    assert admitted(limits, 3, ("other", "d1"), together("5:1")) == 3


def test_device_with_a_limit_of_its_own_takes_from_its_types_too(clock) -> None:
    limits, of_type = RateLimits(now_s=clock), together("messages 4:1")

    assert admitted(limits, 9, D1, closer(to_bands("1:1"), of_type)) == 1
    assert admitted(limits, 9, D2, closer((), of_type)) == 3


def test_readings_of_a_message_are_a_debt_of_the_whole_type(clock) -> None:
    limits, of_type = RateLimits(now_s=clock), together("points 10:1")
    limits.take(D1, of_type)
    limits.charge(D1, of_type, 30)

    assert limits.take(D2, of_type) == (pytest.approx(2.1), "type")
    assert limits.take_part(D2, of_type, 1).scope == "type"
    clock.s += 2.1
    assert limits.take_part(D2, of_type, 5) == (0.0, "")
    assert limits.take(D1, of_type).seconds == pytest.approx(0.5)


def test_what_the_type_refuses_costs_neither_device_nor_tenant(clock) -> None:
    limits, both = RateLimits("", "10:1", now_s=clock), Limits(to_bands("3:1"), to_bands("1:1"), "pump")

    assert admitted(limits, 50, D1, both) == 1
    assert admitted(limits, 9, D1, each("3:1")) == 2
    assert admitted(limits, 50, D2) == 7


def test_type_that_says_nothing_is_not_asked_about() -> None:
    assert limits_of("t", DeviceTypeSpec()) is UNLIMITED
    assert limits_of("t", DeviceTypeSpec(type_rate_limit="")) is UNLIMITED


def test_what_one_message_may_not_take_costs_nothing(clock) -> None:
    limits = RateLimits("1:1", "100:1", now_s=clock)

    assert admitted(limits, 500, D1) == 1
    assert admitted(limits, 99, D2, each("")) == 99


def test_buckets_are_bounded(clock, monkeypatch) -> None:
    monkeypatch.setattr(rates, "MAX_BUCKETS", 10)
    limits = RateLimits("2:1", now_s=clock)
    admitted(limits, 2, D1)
    for number in range(9):
        limits.take(("default", f"x{number}"), UNLIMITED)
    clock.s += 0.6  # the others are full again, d1 is not

    limits.take(("default", "one more"), UNLIMITED)

    assert len(limits._devices) == 2
    assert admitted(limits, 5, D1) == 1
