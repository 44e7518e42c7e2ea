"""A device: numbers without reuse, times without repetition, faults at the rate told."""

from __future__ import annotations

import json
import random
from typing import Any

from simulators.device import Device, Habits
from simulators.faults import LATE_MS, FaultRates
from simulators.outbox import Outgoing
from simulators.scenario import load

NOW_NS = 1_790_000_000_000_000_000


class Basket:
    """A sender that keeps."""

    def __init__(self) -> None:
        self.kept: list[Outgoing] = []

    @property
    def backlog(self) -> int:
        return len(self.kept)

    def offer(self, outgoing: Outgoing) -> None:
        self.kept.append(outgoing)


def make(seed: int = 1, **habits: Any) -> tuple[Device, Basket]:
    faults = habits.pop("faults", FaultRates())
    rng, basket = random.Random(seed), Basket()
    model = load("plain").make(rng, NOW_NS / 1e9)
    device = Device(0, "d1", "boot", Habits(faults, **({"backlog_limit": 10**6} | habits)), model, rng)
    device.sender = basket  # type: ignore[assignment]
    return device, basket


def test_reading_has_the_shape_of_the_contract() -> None:
    device, basket = make()

    device.fire(NOW_NS)

    body = json.loads(basket.kept[0].payload)
    assert (body["ts"], body["boot_id"], body["seq"]) == (NOW_NS // 1_000_000, "boot", 1)
    assert set(body["values"]) == set(load("plain").fields)


def test_times_are_unique_even_within_a_millisecond() -> None:
    device, basket = make(faults=FaultRates(late=0.3, dup=0.0))
    for number in range(2000):
        device.fire(NOW_NS + number * 1000)

    times = [outgoing.ts for outgoing in basket.kept]

    assert len(set(times)) == 2000
    assert 450 < sum(ts < NOW_NS // 1_000_000 - LATE_MS // 2 for ts in times) < 750


def test_clock_that_goes_back_repeats_no_time() -> None:
    device, basket = make()
    for step in (0, 5, -3_600, 1):
        device.fire(NOW_NS + step * 1_000_000_000)

    times = [outgoing.ts for outgoing in basket.kept]

    assert times == sorted(set(times))


def test_faults_happen_at_their_rates() -> None:
    device, basket = make(faults=FaultRates(drop=0.1, dup=0.1, malformed=0.1))
    for number in range(10_000):
        device.fire(NOW_NS + number * 10_000_000)

    distinct = {id(outgoing) for outgoing in basket.kept}
    malformed = {id(outgoing) for outgoing in basket.kept if outgoing.is_malformed}

    assert 8800 < len(distinct) == device.offered < 9200
    assert 700 < len(malformed) < 1000
    assert 650 < len(basket.kept) - len(distinct) < 950
    assert max(outgoing.seq for outgoing in basket.kept) > 9990


def test_same_seed_gives_the_same_messages() -> None:
    payloads = []
    for _ in range(2):
        device, basket = make(seed=7, faults=FaultRates(drop=0.2, dup=0.2, late=0.2, malformed=0.2))
        for number in range(200):
            device.fire(NOW_NS + number * 1_000_000_000)
        payloads.append([outgoing.payload for outgoing in basket.kept])

    assert payloads[0] == payloads[1]


def test_payload_is_padded_to_its_size() -> None:
    device, basket = make(size=300)

    device.fire(NOW_NS)

    assert len(basket.kept[0].payload) == 300


def test_full_memory_takes_no_reading() -> None:
    device, basket = make(backlog_limit=3)

    taken = [device.fire(NOW_NS + number * 1_000_000_000) for number in range(5)]

    assert taken == [True, True, True, False, False]
    assert [outgoing.seq for outgoing in basket.kept] == [1, 2, 3]
