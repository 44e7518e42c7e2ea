"""A device: numbers without reuse, times without repetition, faults at the rate told."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import cbor2
import msgpack
import pytest

from ingest.protocols import PROTOCOLS
from ingest.protocols.base import Context
from simulators.device import Device, Habits
from simulators.dice import Dice
from simulators.faults import CLOCK_JUMPS_MS, LATE_MS, FaultRates
from simulators.outbox import Outgoing
from simulators.scenario import load
from tests.support.pictures import size_of

NOW_NS = 1_790_000_000_000_000_000
MS, S = 1_000_000, 1_000_000_000
CALM = FaultRates()


class Basket:
    """A sender that keeps."""

    def __init__(self) -> None:
        self.kept: list[Outgoing] = []
        self.power_losses = 0

    @property
    def backlog(self) -> int:
        return len(self.kept)

    def offer(self, outgoing: Outgoing) -> None:
        self.kept.append(outgoing)

    def lose_power(self) -> None:
        self.power_losses += 1


class Bench:
    """A device on a workbench, with a sender that keeps."""

    def __init__(self, seed: int = 1, faults: FaultRates = CALM, **habits: Any) -> None:
        dice = Dice(str(seed))
        self.faults, self.basket = faults, Basket()
        odd = bool(faults.late or faults.clock)
        model = load("plain").groups[0].make(dice, NOW_NS / 1e9)
        wanted = Habits(**({"backlog_limit": 10**6, "has_odd_times": odd} | habits))
        self.device = Device(0, "d1", "boot", wanted, model, dice)
        self.device.sender = self.basket  # type: ignore[assignment]

    def fire(self, after_ns: int = 0) -> bool:
        now_ns = NOW_NS + after_ns
        return self.device.fire(now_ns, now_ns / 1e9, self.faults)

    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(outgoing.payload) for outgoing in self.basket.kept]


def test_reading_has_the_shape_of_the_contract() -> None:
    bench = Bench()

    bench.fire()

    body = bench.bodies()[0]
    assert (body["ts"], body["boot_id"], body["seq"]) == (NOW_NS // MS, "boot", 1)
    assert set(body["values"]) == set(load("plain").groups[0].fields)


def test_times_are_unique_even_within_a_millisecond() -> None:
    bench = Bench(faults=FaultRates(late=0.3))
    for number in range(2000):
        bench.fire(number * 1000)

    times = [outgoing.ts for outgoing in bench.basket.kept]

    assert len(set(times)) == 2000
    assert 450 < sum(ts < NOW_NS // MS - LATE_MS // 2 for ts in times) < 750


def test_clock_that_goes_back_repeats_no_time() -> None:
    bench = Bench()
    for step in (0, 5, -3_600, 1):
        bench.fire(step * S)

    times = [outgoing.ts for outgoing in bench.basket.kept]

    assert times == sorted(set(times))


def test_wrong_clocks_jump_both_ways_and_repeat_no_time() -> None:
    bench = Bench(faults=FaultRates(clock=0.2, late=0.2))
    for number in range(5000):
        bench.fire(number * MS)

    times = [outgoing.ts for outgoing in bench.basket.kept]
    off = {round((ts - NOW_NS // MS) / 30_000) * 30_000 for ts in times}

    assert len(set(times)) == 5000
    assert {0, -LATE_MS, *CLOCK_JUMPS_MS} <= off


def test_clocks_that_meet_repeat_no_time() -> None:
    bench = Bench(faults=FaultRates(clock=0.3, late=0.1))
    for number in range(3000):
        bench.fire(number * 30 * S)  # what one clock shows now another showed some readings ago

    assert len({outgoing.ts for outgoing in bench.basket.kept}) == 3000


def test_faults_happen_at_their_rates() -> None:
    bench = Bench(faults=FaultRates(drop=0.1, dup=0.1, malformed=0.1))
    for number in range(10_000):
        bench.fire(number * 10 * MS)

    kept = bench.basket.kept
    distinct = {id(outgoing) for outgoing in kept}
    malformed = {id(outgoing) for outgoing in kept if outgoing.is_malformed}

    assert 8800 < len(distinct) == bench.device.offered < 9200
    assert 850 < len(malformed) < 1150
    assert 850 < len(kept) - len(distinct) < 1150
    assert max(outgoing.seq for outgoing in kept) > 9990


def test_power_loss_begins_another_boot_and_keeps_what_was_taken() -> None:
    bench = Bench(faults=FaultRates(power=0.05))
    for number in range(400):
        bench.fire(number * S)

    bodies = bench.bodies()
    boots = list(dict.fromkeys(body["boot_id"] for body in bodies))

    assert len(bodies) == 400
    assert boots == ["boot", *(f"boot-{number}" for number in range(1, len(boots)))]
    assert bench.basket.power_losses == len(boots) - 1 > 5
    for boot in boots:
        numbers = [body["seq"] for body in bodies if body["boot_id"] == boot]
        assert numbers == list(range(1, len(numbers) + 1))


def test_same_seed_gives_the_same_messages() -> None:
    rates = FaultRates(drop=0.1, dup=0.1, late=0.1, malformed=0.1, clock=0.1, power=0.1)
    payloads = []
    for _ in range(2):
        bench = Bench(seed=7, faults=rates)
        for number in range(200):
            bench.fire(number * S)
        payloads.append([outgoing.payload for outgoing in bench.basket.kept])

    assert payloads[0] == payloads[1]


@pytest.mark.parametrize("size", [150, 300])
def test_payload_is_padded_to_its_size(size: int) -> None:
    bench = Bench(size=size)

    bench.fire()

    assert len(bench.basket.kept[0].payload) == size
    assert "pad" in bench.bodies()[0]["values"]


def test_full_memory_takes_no_reading() -> None:
    bench = Bench(backlog_limit=3)

    taken = [bench.fire(number * S) for number in range(5)]

    assert taken == [True, True, True, False, False]
    assert [outgoing.seq for outgoing in bench.basket.kept] == [1, 2, 3]


def read_line(content: bytes) -> Any:
    (record,) = PROTOCOLS["line"].decode(content, Context(NOW_NS)).records
    time = (record.time_ns or 0) // MS
    return {"ts": time, "boot_id": record.boot_id, "seq": record.seq, "values": record.fields}


@pytest.mark.parametrize(
    ("protocol", "before"),
    [("senml", ""), ("senml-cbor", ""), ("tasmota", "SIM."), ("shelly", "sim0."), ("zigbee2mqtt", "")],
)
@pytest.mark.parametrize("size", [0, 500])
def test_formats_of_others_say_values_and_time(protocol: str, before: str, size: int) -> None:
    bench, plain = Bench(protocol=protocol, size=size), Bench()

    bench.fire()
    plain.fire()

    content, said = bench.basket.kept[0].payload, plain.bodies()[0]
    decoded = PROTOCOLS[protocol].decode(content, Context(NOW_NS))
    named = ((name.removeprefix(before), value) for record in decoded.records for name, value in record.fields.items())
    fields = {name: value for name, value in named if name != "pad"}
    assert ({record.time_ns for record in decoded.records}, fields) == ({said["ts"] * MS}, said["values"])
    assert len(content) >= size


@pytest.mark.parametrize("size", [0, 70_000])
def test_snapshot_is_a_whole_picture_of_that_size(size: int) -> None:
    bench = Bench(protocol="media", size=size)

    bench.fire()
    bench.fire(S)

    first, second = (each.payload for each in bench.basket.kept)
    assert size_of(first) == ("PNG", (32, 32))
    assert first != second
    assert len(first) >= size


@pytest.mark.parametrize(
    ("protocol", "read"),
    [("json", json.loads), ("cbor", cbor2.loads), ("line", read_line), ("msgpack", msgpack.unpackb)],
)
@pytest.mark.parametrize("size", [0, 60, 130, 500, 70_000])
def test_every_format_says_the_same_in_as_many_bytes(protocol: str, read: Callable[[bytes], Any], size: int) -> None:
    bench, plain = Bench(protocol=protocol, size=size), Bench()

    bench.fire()
    plain.fire()

    content = bench.basket.kept[0].payload
    found, expected = read(content), plain.bodies()[0]
    is_padded = found["values"].pop("pad", None) is not None
    assert size <= len(content)
    assert len(content) <= size + 4 or not size or not is_padded
    assert found == expected
