from __future__ import annotations

import pytest

from chassis import guessing
from chassis.guessing import BackOff, DeviceGuesses, TokenGuesses, origin_of
from wire.errors import TooManyRequests


class Hands:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def is_waiting(guesses: DeviceGuesses, device: str, address: str) -> bool:
    try:
        guesses.wrong(device, address)
    except TooManyRequests as error:
        return error.code == "device_back_off"
    return False


def test_back_off_doubles_and_is_forgotten_after_success() -> None:
    back_off = BackOff(now_s=Hands())
    for _ in range(7):
        back_off.failed(("a", "ip"))

    with pytest.raises(TooManyRequests) as caught:
        back_off.demand(("a", "ip"))
    assert caught.value.retry_after_s == 5
    back_off.demand(("b", "ip"))
    back_off.succeeded(("a", "ip"))
    back_off.demand(("a", "ip"))


def test_wrong_ones_are_forgiven_after_a_while() -> None:
    clock = Hands()
    back_off = BackOff(now_s=clock)
    for _ in range(20):
        back_off.failed(("a", "ip"))

    clock.now_s += guessing.MAX_WAIT_S + guessing.FORGIVEN_S + 1
    back_off.failed(("a", "ip"))

    back_off.demand(("a", "ip"))


def test_guesses_of_one_device_wait_and_those_of_its_neighbours_do_not() -> None:
    guesses = DeviceGuesses(Hands())

    told = [is_waiting(guesses, "d1", "nat") for _ in range(12)]

    assert told == [False] * 10 + [True, True]
    assert not is_waiting(guesses, "d2", "nat")
    assert not is_waiting(guesses, "d1", "elsewhere")


def test_guesses_of_many_devices_from_one_address_wait() -> None:
    guesses = DeviceGuesses(Hands())

    told = [is_waiting(guesses, "" if number % 2 else f"d{number}", "nat") for number in range(150)]

    assert told == [False] * guessing.FREE_OF_ADDRESS + [True] * 50


def test_waits_double_to_a_minute() -> None:
    clock = Hands()
    guesses = DeviceGuesses(clock)
    waits = []
    for _ in range(20):
        try:
            guesses.wrong("d1", "ip")
        except TooManyRequests as error:
            waits.append(error.retry_after_s)
            clock.now_s += error.retry_after_s

    assert waits[:3] == [2, 3, 5]
    assert max(waits) <= guessing.MAX_RANDOM_WAIT_S + 1


def test_memory_is_bounded() -> None:
    guesses = DeviceGuesses(Hands())

    for number in range(guessing.MAX_REMEMBERED):
        guesses.wrong("d", f"address-{number}")

    assert len(guesses._back_off._failures) == guessing.MAX_REMEMBERED


def test_wrong_tokens_of_an_address_wait_and_those_of_others_do_not() -> None:
    guesses = TokenGuesses(Hands())
    for _ in range(guessing.FREE_OF_ADDRESS):
        guesses.wrong("nat")

    with pytest.raises(TooManyRequests) as refused:
        guesses.wrong("nat")

    assert (refused.value.code, refused.value.retry_after_s) == ("token_back_off", 2)
    guesses.wrong("elsewhere")


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"), ("::ffff:192.0.2.7", "192.0.2.7"), ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"), ("::1", "::/64"), ("", ""), ("no:address", "no:address"),
    ],
)  # fmt: skip
def test_addresses_of_one_ipv6_network_are_one(address: str, counted: str) -> None:
    assert origin_of(address) == counted


def test_who_moves_within_an_ipv6_network_has_to_wait() -> None:
    back_off, guesses = BackOff(now_s=Hands()), DeviceGuesses(Hands())
    for number in range(6):
        back_off.failed(("a", f"2001:db8::{number:x}"))

    with pytest.raises(TooManyRequests):
        back_off.demand(("a", "2001:db8::ffff:1"))
    back_off.demand(("a", "2001:db8:0:1::1"))
    back_off.succeeded(("a", "2001:db8::9"))
    back_off.demand(("a", "2001:db8::1"))
    assert [is_waiting(guesses, "d1", f"2001:db8::{number:x}") for number in range(11)] == [False] * 10 + [True]
