"""Dialects of JSON on topics of their own, by their cases: of a device for itself, and of a gateway for its children."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.framing import Batch, Delivery, Verdict
from ingest.intake import EVENTS
from ingest.message import Message
from ingest.protocols import PROTOCOLS
from ingest.protocols.base import Context
from tests.ingest.intake_support import World, case_folders, load_case
from tests.ingest.test_cases import RECEIVED_NS, shown, values
from wire import clock
from wire.devices import DeviceIdentity
from wire.errors import REASONS
from wire.external import to_device_id
from wire.points import UNCERTAIN

SHARED_NAMES = {"shelly": "shelly_gen2", "homie": "homie5"}  # of folders of fixtures that are called otherwise
NAMES = ("tasmota", "owntracks", "shelly", "zigbee2mqtt", "esphome", "homie", "collectd", "homeassistant")
FOLDERS = [
    (name, folder)
    for name in NAMES
    for folder in sorted({*case_folders(name), *case_folders(SHARED_NAMES.get(name, name))})
]
SHELLY = "shellyplus1pm-aabbccddeeff"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, PROTOCOLS)
    made.registry.add("d1")
    made.registry.add("gw", gateway=True)
    yield made
    made.close()


def say(world: World, sender: str, protocol: str, topic: str, content: bytes, **more: Any) -> Verdict:
    sent = Delivery(sender, topic, content, RECEIVED_NS, 7, protocol=protocol, **more)
    return world.service.accept_batch(Batch("b", [sent]))


def know(world: World, name: str, device: str) -> None:
    """Let a gateway's child be known by a name."""
    world.registry.put(DeviceIdentity(id=device, parent="gw"))
    world.registry.name(name, device, "gw")
    world.gate.poll()


def presence(world: World) -> dict[str, bool]:
    world.reports.send()
    return {name: told[0] for name, told in world.registry.presence.items()}


def named_ahead(expected: dict[str, Any], topic: str) -> dict[str, str]:
    """Give the devices by name that are there before a case; Zigbee2MQTT's is named as `bridge/devices` would."""
    told = [each["device"] for each in expected.get("events", [])]
    if "bridge_devices" in expected.get("context", {}) or any(name.startswith("zigbee:0x") for name in told):
        friendly = topic.removeprefix("zigbee2mqtt/").removesuffix("/availability")
        return {f"zigbee:{friendly}": to_device_id("zigbee:0x00158d0001020304")}
    return {name: to_device_id(name) for name in told}


def check(world: World, verdict: Verdict, expected: dict[str, Any], sender: str) -> None:
    points = expected["points"] if sender == "gw" else [point | {"device": sender} for point in expected["points"]]
    assert values([shown(reading) for reading in world.commit.readings]) == values(points)
    assert verdict.accepted == len(world.commit.readings)
    assert [ending.code for ending in verdict.endings] == [each["code"] for each in expected.get("quarantined", [])]
    uncertain = [bool(reading.flags & UNCERTAIN) for reading in world.commit.readings]
    if "basis" in expected:  # one of the shared fixtures: they tell the quality
        assert uncertain == ["uncertain" in point.get("quality", []) for point in points]


def told_of_fields(world: World) -> set[tuple[str, Any]]:
    """Give what the registry was told of fields: of whom, and what."""
    world.reports.send()
    assert all(each["device"] in ("d1", "gw") for each in world.registry.described)
    return {
        (each["name"], tuple(sorted(field.items()))) for each in world.registry.described for field in each["fields"]
    }


def described(expected: dict[str, Any], sender: str) -> set[tuple[str, Any]]:
    """Give what a case expects to be told: of whom a gateway names, else of the sender."""
    bounds = {"low": "min", "high": "max"}
    told = [
        (each["device"], {bounds.get(name, name): value for name, value in each.items() if name != "device"})
        for each in expected["described"]
    ]
    return {(name if sender == "gw" else "", tuple(sorted(members.items()))) for name, members in told}


@pytest.mark.parametrize("sender", ["d1", "gw"])
@pytest.mark.parametrize(("protocol", "folder"), FOLDERS, ids=lambda value: getattr(value, "name", value))
def test_case_gives_what_is_expected(protocol: str, folder: Path, sender: str, world: World) -> None:
    content, request, expected = load_case(folder)
    topic = request["mqtt"]["topic"]
    for name, device in named_ahead(expected, topic).items() if sender == "gw" else ():
        know(world, name, device)

    is_live = request.get("release") == 2  # the device's own word, which the broker does not pass on to who listens
    verdict = say(world, sender, protocol, topic, content, retain=request["mqtt"]["retain"] and not is_live)

    check(world, verdict, expected, sender)
    if "described" in expected:
        is_own = sender == "d1"
        assert told_of_fields(world) == (set() if is_own and protocol == "zigbee2mqtt" else described(expected, sender))
    words = [each for each in expected.get("events", []) if each["kind"] in ("online", "offline")]
    told = {device: each["kind"] == "online" for each in words for device in named_ahead(expected, topic).values()}
    assert presence(world) == (told if sender == "gw" else {})  # a device has a connection of its own


@pytest.mark.parametrize(
    ("protocol", "content", "fields"),
    [
        ("tasmota", b'{"DS18B20":{"Temperature":19.5}}', {"DS18B20.Temperature": 19.5}),
        ("zigbee2mqtt", b'{"temperature":19.5}', {"temperature": 19.5}),
        ("owntracks", b'{"_type":"location","lat":52.5}', {"lat": 52.5}),
        ("esphome", b'{"temperature":19.5}', {"temperature": 19.5}),
        (
            "shelly",
            b'{"src":"s","method":"NotifyStatus","params":{"switch:0":{"id":0,"apower":1.5}}}',
            {"switch0.apower": 1.5},
        ),
    ],
)
@pytest.mark.parametrize("source", ["", "application/json"])
def test_door_of_ours_takes_readings(
    world: World, protocol: str, content: bytes, fields: dict[str, Any], source: str
) -> None:
    known = world.gate.find(["d1"]).known["d1"]

    world.service.accept(Message(known, PROTOCOLS[protocol], content, RECEIVED_NS, source=source))
    say(world, "d1", "", f"devices/d1/telemetry/{protocol}", content)

    assert [(reading.device, reading.fields) for reading in world.commit.readings] == [("d1", fields)] * 2


def test_event_is_counted_and_nothing_of_it_is_kept(world: World) -> None:
    before = EVENTS.labels("zigbee2mqtt")._value.get()

    verdict = say(world, "gw", "zigbee2mqtt", "zigbee2mqtt/bridge/devices", b'[{"friendly_name":"Plug"}]', retain=True)

    assert (verdict.endings, world.commit.readings, world.registry.devices.keys()) == ([], [], {"d1", "gw"})
    assert EVENTS.labels("zigbee2mqtt")._value.get() == before + 1


@pytest.mark.parametrize(
    ("protocol", "topic", "content"),
    [
        ("tasmota", "tele/attic/LWT", b"Online"),
        ("shelly", f"{SHELLY}/online", b"true"),
        ("esphome", "home/kitchen/status", b"online"),
        ("homie", "homie/super-car/$state", b"ready"),
        ("zigbee2mqtt", "zigbee2mqtt/Plug/availability", b"online"),
    ],
)
def test_only_of_others_presence_is_told(protocol: str, topic: str, content: bytes) -> None:
    told = [
        PROTOCOLS[protocol].decode(content, Context(RECEIVED_NS, topic=topic, transport="mqtt", is_gateway=is_gateway))
        for is_gateway in (True, False)
    ]

    assert [list(decoded.presence.values()) for decoded in told] == [[True], []]


def test_online_under_a_free_prefix_registers_no_second_child(world: World) -> None:
    say(world, "gw", "shelly", "home/blinds/online", b"true", retain=True)
    assert (presence(world), "home.blinds" in world.registry.devices) == ({}, False)

    know(world, "shelly:home/blinds", "blinds")
    say(world, "gw", "shelly", "home/blinds/online", b"true", retain=True)
    assert presence(world) == {"blinds": True}


def test_online_under_the_usual_prefix_registers_a_child(world: World) -> None:
    say(world, "gw", "shelly", f"{SHELLY}/online", b"true")

    assert presence(world) == {SHELLY: True}
    assert world.registry.devices[SHELLY].parent == "gw"


def test_retained_data_without_a_time_is_old_and_a_state_is_none(world: World) -> None:
    said = [
        say(world, "d1", "shelly", f"{SHELLY}/status/switch:0", b'{"id":0,"output":true}', retain=True),
        say(world, "d1", "zigbee2mqtt", "zigbee2mqtt/Plug", b'{"power":1.5}', retain=True),
        say(world, "d1", "zigbee2mqtt", "zigbee2mqtt/Plug/availability", b"online", retain=True),
        say(world, "d1", "shelly", f"{SHELLY}/online", b"true", retain=True),
        say(world, "d1", "esphome", "kitchen/sensor/t/state", b"21.5", retain=True),
        say(world, "d1", "homie", "homie/super-car/engine/temperature", b"21.5", retain=True),
        say(world, "d1", "collectd", "collectd/h/load/load", b"1772600000:1:2:3", retain=True),
    ]

    old = [["retained"], ["retained"], [], [], ["retained"], ["retained"], []]
    assert [[ending.code for ending in verdict.endings] for verdict in said] == old


TOPICS = {
    "tasmota": ["tele/x/SENSOR", "tele/x/STATE", "tele/x/LWT", "tele/x/RESULT", "x"],
    "owntracks": ["owntracks/a/b", "owntracks/a/b/event", "owntracks/a/b/cmd", "owntracks/a", "x"],
    "shelly": ["x/events/rpc", "x/online", "x/status/switch:0", "x/rpc", "x"],
    "zigbee2mqtt": ["zigbee2mqtt/x", "zigbee2mqtt/x/availability", "zigbee2mqtt/x/set", "zigbee2mqtt/bridge/devices", "x"],
    "esphome": ["x/sensor/a/state", "x/status", "x/light/a/state", "x/climate/a/mode/state", "x"],
    "homie": ["homie/x/a/b", "homie/5/x/$description", "homie/x/$state", "homie/x/a/b/$format", "x"],
    "collectd": ["collectd/h/load/load", "collectd/h/a-b/c", "collectd/h/df/df", "collectd/h/cpu/cpu", "x"],
    "homeassistant": ["homeassistant/a/b/config", "homeassistant/status", "x/config", "homeassistant/a/b/c/config", "x"],
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@given(content=st.binary(max_size=200), kind=st.integers(0, 4))
def test_no_bytes_break_the_decoder(name: str, content: bytes, kind: int) -> None:
    context = Context(clock.now_ns(), topic=TOPICS[name][kind], transport="mqtt", is_gateway=True)

    decoded = PROTOCOLS[name].decode(content, context)

    assert all(fault.code in REASONS for fault in decoded.faults)
    assert decoded.is_event or decoded.records or decoded.faults
