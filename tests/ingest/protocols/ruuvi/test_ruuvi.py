"""Ruuvi's sensors through the ingestion service, as children of their gateway and as a device of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.framing import Batch, Delivery
from ingest.message import Message
from ingest.protocols import PROTOCOLS
from tests.ingest.intake_support import CASES, World

NOW_NS = 1_772_600_001_000_000_000
ALL = (CASES / "ruuvi/all_sensors_over_http/input.json").read_bytes()
TAG, OTHER = "CB:B8:33:4C:88:4F", "F4:1F:0C:28:CB:D6"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, PROTOCOLS)
    made.registry.add("gw", gateway=True)
    made.registry.add("d1")
    yield made
    made.close()


def post(world: World, sender: str, content: bytes) -> list[str]:
    known = world.gate.find([sender]).known[sender]
    receipt = world.service.accept(Message(known, PROTOCOLS["ruuvi"], content, NOW_NS, source="application/json"))
    return [item.code for item in receipt.quarantined]


def test_sensors_become_children_of_their_gateway(world: World) -> None:
    assert post(world, "gw", ALL) == ["unsupported"]

    assert [reading.device for reading in world.commit.readings] == [TAG.replace(":", "-"), OTHER.replace(":", "-")]
    assert world.registry.devices[TAG.replace(":", "-")].parent == "gw"


def test_sensors_of_a_plain_device_are_told_apart_by_a_tag(world: World) -> None:
    assert post(world, "d1", ALL) == ["unsupported"]

    assert [(reading.device, reading.tags) for reading in world.commit.readings] == [
        ("d1", {"sensor": TAG}),
        ("d1", {"sensor": OTHER}),
    ]


def test_sensor_over_a_topic_of_ours_is_named_by_what_it_sends(world: World) -> None:
    content = (CASES / "ruuvi/rawv2_of_a_sensor/input.json").read_bytes()

    world.service.accept_batch(Batch("b", [Delivery("gw", "devices/gw/telemetry/ruuvi", content, NOW_NS, 7)]))

    assert [reading.device for reading in world.commit.readings] == [TAG.replace(":", "-")]
