"""Held devices: their data waits, and is replayed by itself when they are accepted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.framing import Batch, Delivery
from ingest.held import HeldData
from ingest.message import Message
from ingest.protocols import PROTOCOLS
from ingest.quarantine import HELD, Selection
from tests.ingest.intake_support import World
from wire import clock
from wire.errors import TooManyRequests

T = 1_772_700_000 * clock.NS_PER_S


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    made.registry.add("d1", state="held")
    made.registry.add("d2", state="held")
    made.gate.poll()
    yield made
    made.close()


@pytest.fixture
def held(world: World, tmp_path: Path) -> HeldData:
    return HeldData(world.ports, world.replayer, tmp_path / "held.lock")


def send(world: World, device: str, payload: bytes = b'{"t": 1}') -> None:
    verdict = world.service.accept_batch(Batch("b", [Delivery(device, f"devices/{device}/telemetry", payload, T, 7)]))
    assert [(ending.end, ending.code) for ending in verdict.endings] == [("quarantined", HELD)]


def accept(world: World, device: str) -> None:
    world.registry.put(world.registry.devices[device].model_copy(update={"state": "active"}))
    world.gate.poll()


def post(world: World, device: str, payload: bytes = b'{"t": 2}'):
    known = world.gate.find([device]).known[device]
    return world.service.accept(Message(known, PROTOCOLS["json"], payload, T, "http", "application/json"))


def waiting(world: World, device: str) -> int:
    return world.quarantine.count_by_code(device).get(HELD, 0)


def test_data_of_a_held_device_is_kept_whole_over_both_transports(world) -> None:
    send(world, "d1")
    receipt = post(world, "d1")

    assert (receipt.accepted, receipt.quarantined[0].code) == (0, HELD)
    assert (waiting(world, "d1"), world.commit.readings) == (2, [])


def test_acceptance_replays_what_waits_and_only_of_that_device(world, held) -> None:
    send(world, "d1")
    send(world, "d2")
    accept(world, "d1")

    assert (held.look(), held.look()) == (1, 0)
    assert [(reading.device, reading.fields, reading.time_ns) for reading in world.commit.readings] == [
        ("d1", {"t": 1.0}, T)
    ]
    assert (waiting(world, "d1"), waiting(world, "d2")) == (0, 1)


def test_operators_replay_does_not_get_round_the_hold(world) -> None:
    send(world, "d1")

    outcome = world.replayer.replay_selection(Selection(device="d1"))

    assert [failure.code for failure in outcome.failed] == [HELD]
    assert (waiting(world, "d1"), world.commit.readings) == (1, [])


@pytest.mark.parametrize("state", ["held", "disabled"])
def test_data_of_devices_not_accepted_stays(world, held, state) -> None:
    send(world, "d1")
    world.registry.put(world.registry.devices["d1"].model_copy(update={"state": state}))
    world.gate.poll()

    assert (held.look(), waiting(world, "d1")) == (0, 1)


def test_data_of_another_tenants_namesake_stays(world, held) -> None:
    send(world, "d1")
    moved = world.registry.devices["d1"].model_copy(update={"state": "active", "tenant": "other"})
    world.registry.put(moved)
    world.gate.poll()

    assert (held.look(), waiting(world, "d1")) == (0, 1)


def test_what_a_held_device_may_keep_is_bounded(tmp_path) -> None:
    (tmp_path / "small").mkdir()
    world = World(tmp_path / "small", limit_bytes=16 * 1024)
    world.registry.add("d1", state="held")
    world.gate.poll()

    big = b'{"t": "' + b"x" * 200 + b'"}'
    post(world, "d1", big)
    with pytest.raises(TooManyRequests, match="share of the quarantine"):
        post(world, "d1", big)
    world.close()


def test_one_process_replays_at_a_time(world, held, tmp_path) -> None:
    send(world, "d1")
    accept(world, "d1")

    with held._alone() as is_alone:
        assert is_alone
        assert HeldData(world.ports, world.replayer, tmp_path / "held.lock").look() == 0
    assert held.look() == 1
