"""Messages of claimed topics as a bridge hands them in: whose they are, and what becomes of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ingest.framing import Batch, Delivery
from ingest.intake import EVENTS
from ingest.protocols import PROTOCOLS
from ingest.protocols.base import Context
from ingest.quarantine import Selection
from tests.ingest.intake_support import World
from tests.ingest.test_cases import RECEIVED_NS
from wire.devices import DeviceIdentity

TOPIC = "tele/attic/SENSOR"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, PROTOCOLS)
    made.registry.add("d1")
    yield made
    made.close()


def said(content: bytes, topic: str = TOPIC, **more: object) -> Delivery:
    return Delivery("d1", topic, content, RECEIVED_NS, 7, protocol="tasmota", **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("topic", "name"),
    [("tele/attic/SENSOR", "attic"), ("home/my attic/tele/STATE", "home/my attic"), ("a/tele/b/SENSOR", "a/tele/b")],
)
def test_gateway_speaks_for_the_devices_that_its_topics_name(topic: str, name: str) -> None:
    decode, content = PROTOCOLS["tasmota"].decode, b'{"A":1}'

    [child] = decode(content, Context(RECEIVED_NS, topic=topic, transport="mqtt", is_gateway=True)).records
    [own] = decode(content, Context(RECEIVED_NS, topic=topic, transport="mqtt")).records
    [posted] = decode(content, Context(RECEIVED_NS, is_gateway=True)).records

    assert (child.device, own.device, posted.device) == (f"tasmota:{name}", None, None)


def test_children_of_a_gateway_that_claims_a_family_get_their_own_readings(world: World) -> None:
    world.registry.add("gw", gateway=True)
    topics = ("tele/attic/SENSOR", "tele/roof/SENSOR")

    sent = [Delivery("gw", topic, b'{"A":1}', RECEIVED_NS, 7, protocol="tasmota") for topic in topics]
    verdict = world.service.accept_batch(Batch("b", sent))

    assert verdict.endings == []
    assert [reading.device for reading in world.commit.readings] == ["attic", "roof"]


def test_retained_state_is_read_and_old_data_without_a_time_is_not(world: World) -> None:
    before = EVENTS.labels("tasmota")._value.get()

    verdict = world.service.accept_batch(
        Batch("b", [said(b"Online", "tele/attic/LWT", retain=True), said(b'{"A":1}', retain=True)])
    )

    assert [(ending.index, ending.code) for ending in verdict.endings] == [(1, "retained")]
    assert EVENTS.labels("tasmota")._value.get() == before + 1


def test_protocol_says_which_retained_messages_are_no_old_data(tmp_path: Path) -> None:
    world = World(tmp_path, {"tasmota": replace(PROTOCOLS["tasmota"], states=("/SENSOR",))})
    world.registry.add("d1")

    verdict = world.service.accept_batch(
        Batch("b", [said(b'{"A":1}', retain=True), said(b'{"A":1}', "tele/attic/STATE", retain=True)])
    )
    world.close()

    assert (verdict.accepted, [(ending.index, ending.code) for ending in verdict.endings]) == (1, [(1, "retained")])


def test_claiming_device_decides_what_becomes_of_its_messages(world: World) -> None:
    world.registry.put(DeviceIdentity(id="off", state="disabled"))
    world.registry.put(DeviceIdentity(id="new", state="held"))
    content = b'{"A":1}'
    sent = [Delivery(name, TOPIC, content, RECEIVED_NS, 7, protocol="tasmota") for name in ("off", "new", "gone")]
    sent.append(Delivery("d1", TOPIC, content, RECEIVED_NS, 7, protocol="of-later"))
    sent.append(Delivery("", "tele/nobody/SENSOR", content, RECEIVED_NS, 7))

    verdict = world.service.accept_batch(Batch("b", sent))

    codes = {ending.index: (ending.end, ending.code) for ending in verdict.endings}
    assert codes == {
        0: ("refused", "device_disabled"),
        1: ("quarantined", "device_held"),
        2: ("quarantined", "unknown_device"),
        3: ("quarantined", "unsupported"),
        4: ("quarantined", "bad_topic"),
    }


def test_message_that_waited_is_replayed_with_its_topic(world: World) -> None:
    world.registry.put(DeviceIdentity(id="new", state="held"))
    state = b'{"Time":"2026-03-04T05:06:07Z","POWER":"ON"}'
    world.service.accept_batch(
        Batch("b", [Delivery("new", "tele/new/STATE", state, RECEIVED_NS, 7, protocol="tasmota")])
    )

    world.registry.put(DeviceIdentity(id="new", state="active"))
    world.gate.poll()
    replayed = world.replayer.replay_selection(Selection(device="new"))

    assert (replayed.replayed, world.commit.readings[0].fields) == (1, {"state.POWER": "ON"})
