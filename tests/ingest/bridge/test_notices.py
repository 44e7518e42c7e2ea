"""Devices are told about their bad messages, and a flood of them is bounded."""

from __future__ import annotations

import orjson

from ingest.bridge.notices import IN_ALL_S, PER_DEVICE_S, Notices
from ingest.framing import Delivery, Ending

ENDING = Ending(0, "quarantined", "bad_syntax", "not JSON")


class Fixture:
    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes]] = []
        self.now_s = 100.0
        self.notices = Notices(lambda topic, payload: self.sent.append((topic, payload)), lambda: self.now_s)

    def tell(self, device: str) -> bool:
        return self.notices.tell(Delivery(device, f"devices/{device}/telemetry", b"{", 1_000_000_000, 1), ENDING)


def test_notice_says_code_detail_time_and_topic():
    fixture = Fixture()

    fixture.tell("d1")

    ((topic, payload),) = fixture.sent
    assert topic == "devices/d1/errors"
    assert orjson.loads(payload) == {
        "code": "bad_syntax", "detail": "not JSON", "end": "quarantined", "index": 0,
        "time": "1970-01-01T00:00:01.000000000Z", "topic": "devices/d1/telemetry",
    }  # fmt: skip


def test_noisy_device_is_told_a_few_times_a_second():
    fixture = Fixture()

    told = [fixture.tell("d1") for _ in range(50)]
    fixture.now_s += 1

    assert sum(told) == PER_DEVICE_S
    assert fixture.tell("d2")
    assert fixture.tell("d1")


def test_broken_fleet_is_bounded_in_all():
    fixture = Fixture()

    told = [fixture.tell(f"d{number}") for number in range(IN_ALL_S + 100)]

    assert sum(told) == IN_ALL_S


def test_device_with_an_illegal_id_is_not_told():
    fixture = Fixture()

    assert not fixture.tell("a/b")
    assert not fixture.tell("")
    assert not fixture.tell("+")
