"""Devices that wait: each message at its time, in order, and none takes more than its share of the window."""

from __future__ import annotations

import pytest

from ingest.bridge.config import Limits
from ingest.bridge.holds import ALL_SHARE, DEVICE_SHARE, Holds
from ingest.framing import Delivery

WINDOW = 160
LIMITS = Limits(window_messages=WINDOW, window_bytes=WINDOW * 6_000, retry_first_s=30.0)


class Room:
    def __init__(self, messages: int = 1_000) -> None:
        self.taken: list[Delivery] = []
        self._messages = messages

    def fits(self, delivery: Delivery) -> bool:
        return len(self.taken) < self._messages

    def add(self, delivery: Delivery) -> None:
        self.taken.append(delivery)


def message(mid: int, device: str = "d1", payload: bytes = b"{}") -> Delivery:
    return Delivery(device, "t", payload, 0, mid)


@pytest.fixture
def holds() -> Holds:
    return Holds(LIMITS)


def hold(holds: Holds, waits_s: list[float], device: str = "d1") -> None:
    holds.postpone(device, waits_s[0])
    for mid, wait_s in reversed(list(enumerate(waits_s))):
        holds.put_back(message(mid, device), wait_s)


def taken(holds: Holds) -> list[int]:
    room = Room()
    holds.fill(room)
    return [each.mid for each in room.taken]


def taken_marks(holds: Holds) -> list[bool]:
    room = Room()
    holds.fill(room)
    return [each.is_surplus for each in room.taken]


def test_message_does_not_go_before_its_time(holds) -> None:
    hold(holds, [30.0, 60.0])

    assert taken(holds) == []
    assert 29.0 < holds.nap_s() < 30.2


def test_what_comes_later_waits_behind_and_goes_with_the_last(holds) -> None:
    hold(holds, [1e-9, 60.0])
    holds.put(message(7))

    assert 59.0 < holds._holds["d1"].waiting[-1][0] - holds._holds["d1"].waiting[0][0] < 61.0
    assert holds.nap_s() <= 0.1


def test_device_that_something_is_away_for_waits_as_a_whole(holds) -> None:
    hold(holds, [0.0, 0.0])

    assert taken(holds) == []
    assert 14.0 < holds.nap_s() <= 30.0


def test_device_over_its_rate_fills_only_its_share(holds) -> None:
    share = int(WINDOW * DEVICE_SHARE)
    hold(holds, [60.0] * (share + 3))
    holds.put(message(99))

    assert holds.nap_s() == 0.0
    assert taken(holds) == [99, share + 2, share + 1, share]  # the newest are surplus
    assert taken(holds) == []
    assert holds.nap_s() > 50.0


def test_surplus_is_marked(holds) -> None:
    hold(holds, [60.0] * 13)

    assert taken_marks(holds) == [True] * 3


def test_bytes_count_as_well_as_messages(holds) -> None:
    hold(holds, [60.0])
    holds.put(message(1, payload=bytes(80_000)))

    assert taken(holds) == [1]


def test_all_devices_over_their_rate_leave_half_of_the_window(holds) -> None:
    for number in range(WINDOW):
        hold(holds, [60.0], f"d{number}")

    assert len(taken(holds)) == WINDOW - WINDOW * ALL_SHARE


def test_room_comes_back_when_messages_go(holds) -> None:
    hold(holds, [1e-9] * 10)
    while holds.nap_s():
        pass

    assert taken_marks(holds) == [False] * 10
    hold(holds, [60.0] * 10)
    assert taken(holds) == []


def test_device_is_released_when_nothing_of_it_waits(holds) -> None:
    hold(holds, [60.0])
    hold(holds, [1e-9], "d2")
    while not taken(holds):
        pass

    holds.release(["d1", "d2", "d3"])

    assert ("d1" in holds, "d2" in holds) == (True, False)


def test_a_lost_connection_forgets_all(holds) -> None:
    hold(holds, [60.0] * 9)

    assert [each.mid for each in holds.clear()] == list(range(9))
    assert len(holds) == 0
    hold(holds, [60.0] * 9)
    assert taken(holds) == []
