"""Devices that a gateway speaks for: whose data they are, and what becomes of those nobody knows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.framing import Batch, Delivery
from tests.ingest.intake_support import World
from wire.devices import DeviceIdentity

T = 1_760_000_000_000_000_000


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    made.registry.add("g1", gateway=True)
    made.registry.add("plain")
    made.gate.poll()
    yield made
    made.close()


def send(world: World, child: str, gateway: str = "g1", tail: str = "telemetry", payload: bytes = b'{"t":1}'):
    topic = f"devices/{gateway}/children/{child}/{tail}"
    verdict = world.service.accept_batch(Batch("b", [Delivery(gateway, topic, payload, T, 7)]))
    return verdict.accepted, [(ending.end, ending.code) for ending in verdict.endings]


def test_unknown_child_is_registered_and_its_data_is_its_own(world) -> None:
    assert send(world, "c1") == (1, [])
    assert send(world, "c1", tail="telemetry/ndjson") == (1, [])

    assert [reading.device for reading in world.commit.readings] == ["c1", "c1"]
    assert world.registry.calls.count("/internal/children:admit") == 1
    world.reports.send()
    assert {"g1", "c1"} <= world.registry.seen_by_mqtt.keys()


def test_data_of_a_held_child_waits(world) -> None:
    world.registry.rules = "hold"

    assert send(world, "c1") == (0, [("quarantined", "device_held")])
    assert world.quarantine.devices_waiting("device_held", 10) == [("default", "c1")]


def test_refused_child_is_refused_and_not_asked_for_each_time(world) -> None:
    world.registry.rules = "child_refused"

    assert send(world, "c1") == send(world, "c1") == (0, [("refused", "child_refused")])
    assert world.registry.calls.count("/internal/children:admit") == 1


@pytest.mark.parametrize(
    "members",
    [{}, {"parent": "g2"}, {"parent": "g1", "tenant": "other"}],
    ids=["child of none", "of another gateway", "of another tenant"],
)
def test_gateway_speaks_for_its_own_children_only(world, members) -> None:
    world.registry.put(DeviceIdentity(id="c1", **members))

    assert send(world, "c1") == (0, [("refused", "identity_mismatch")])
    assert world.commit.readings == []
    world.reports.send()
    assert world.registry.audit[0]["object"] == "device:c1"


@pytest.mark.parametrize("child", ["other-1", "line"])
def test_rights_of_a_gateway_end_at_its_prefixes(world, child) -> None:
    world.registry.put(DeviceIdentity(id="g3", gateway=True, prefixes=["line1-", "line2-"]))
    world.registry.put(DeviceIdentity(id="other-1", parent="g3"))

    assert send(world, child, "g3") == (0, [("refused", "identity_mismatch")])
    assert send(world, "line2-a", "g3") == (1, [])


def test_moved_child_is_spoken_for_by_its_new_gateway_only(world) -> None:
    world.registry.add("g2", gateway=True)
    send(world, "c1")
    world.registry.put(DeviceIdentity(id="c1", parent="g2"))
    world.gate.poll()

    assert send(world, "c1") == (0, [("refused", "identity_mismatch")])
    assert send(world, "c1", "g2") == (1, [])


def test_device_that_is_no_gateway_speaks_for_nobody(world) -> None:
    world.registry.put(DeviceIdentity(id="c1", parent="plain"))

    assert send(world, "c1", "plain") == (0, [("refused", "identity_mismatch")])
    assert send(world, "new", "plain") == (0, [("refused", "identity_mismatch")])
    assert "/internal/children:admit" not in world.registry.calls


def test_disabled_gateway_or_child_is_refused(world) -> None:
    world.registry.put(DeviceIdentity(id="off", gateway=True, state="disabled"))
    world.registry.put(DeviceIdentity(id="c1", parent="g1", state="disabled"))

    assert send(world, "c1") == send(world, "c2", "off") == (0, [("refused", "device_disabled")])


@pytest.mark.parametrize("child", ["a b", "\u0131", "x" * 65])
def test_odd_children_are_refused_without_asking(world, child) -> None:
    assert send(world, child) == (0, [("refused", "identity_mismatch")])
    assert "/internal/children:admit" not in world.registry.calls


@pytest.mark.parametrize(
    ("tail", "code"), [("status", "bad_topic"), ("telemetry/no", "unsupported"), ("", "bad_topic")]
)
def test_other_topics_below_a_child_are_quarantined(world, tail, code) -> None:
    assert send(world, "c1", tail=tail) == (0, [("quarantined", code)])


def test_registry_away_defers_unknown_children_only(world) -> None:
    send(world, "c1")
    world.registry.is_away = True

    assert send(world, "c1") == (1, [])
    assert send(world, "c2") == (0, [("deferred", "peer_unavailable")])


def test_replay_gives_nobody_what_a_topic_names_of_another(world) -> None:
    send(world, "c1", tail="telemetry/no")  # kept as the child's
    world.registry.put(DeviceIdentity(id="g1"))
    send(world, "c9", "gone")  # a gateway nobody knows: kept as its own
    world.registry.add("gone", gateway=True)
    world.gate.poll()

    replayed = world.replayer.replay_ids([1, 2], tenant="default")

    assert replayed.replayed == 0
    assert {failure.code for failure in replayed.failed} == {"unsupported", "identity_mismatch"}
    assert world.commit.readings == []
