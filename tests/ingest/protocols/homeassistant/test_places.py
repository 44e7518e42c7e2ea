"""Which field an entity of Home Assistant shows."""

from __future__ import annotations

import pytest

from ingest.protocols import PROTOCOLS
from ingest.protocols.base import Context
from ingest.protocols.homeassistant import places


@pytest.mark.parametrize(
    ("template", "path"),
    [
        ("", ()),
        ("{{ value }}", ()),
        ("{{ value | float }}", ()),
        ("{{value_json.a}}", ("a",)),
        ("{{- value_json.a.b_2 -}}", ("a", "b_2")),
        ("{{ value_json['DS18B20-1'].Temperature }}", ("DS18B20-1", "Temperature")),
        ('{{ value_json["a"][0].c }}', ("a", "0", "c")),
        ("{{ value_json.a | round(1) | is_defined }}", ("a",)),
        ("{{ value_json.a | default(0) }}", None),
        ("{{ value_json.a * 10 }}", None),
        ("{{ value_json.a | multiply(0.001) }}", None),
        ("{{ value_json[x] }}", None),
        ("{{ value_json.a }}{{ value_json.b }}", None),
        ("{% if value_json.a %}1{% endif %}", None),
        ("{{ value_json.a()  }}", None),
        ("{{ value_json['a' ~ 'b'] }}", None),
        ("{{ value_json" + ".a" * 200 + " }}", None),
        ("x" * 100_000, None),
        ("{{ value " + "| float " * 100_000, None),
    ],
)
def test_template_is_understood_only_where_it_names_a_member(template: str, path: tuple[str, ...] | None) -> None:
    assert places.path_of(template) == path


@pytest.mark.parametrize(
    ("topic", "path", "place"),
    [
        ("zigbee2mqtt/Hall/Plug", ("update", "state"), ("zigbee", "update.state", "zigbee:Hall/Plug")),
        ("tele/attic/STATE", ("Wifi", "RSSI"), ("tasmota", "state.Wifi.RSSI", "tasmota:attic")),
        ("tele/attic/SENSOR", ("a.b", "c"), ("tasmota", r"a\.b.c", "tasmota:attic")),
        ("shelly1-aabbccddeeff/status/switch:0", ("apower",), ("shelly", "switch0.apower", "shelly:shelly1-aabbccddeeff")),
        ("x/events/rpc", ("params", "switch:0", "apower"), ("shelly", "switch0.apower", "shelly:x")),
        ("home/kitchen/sensor/t/state", (), ("esphome", "t", "esphome:home/kitchen")),
        ("kitchen/light/l/state", ("brightness",), ("esphome", "light.l.brightness", "esphome:kitchen")),
        ("homie/car/engine/rpm", (), ("homie", "engine.rpm", "homie:car")),
        ("homie/5/car/engine/rpm", (), ("homie", "engine.rpm", "homie:car")),
        ("devices/d1/telemetry", ("t",), ("telemetry", "t", "headwater:d1")),
        ("zigbee2mqtt/Plug", (), None),
        ("homie/car/$state", (), None),
        ("somewhere/else", ("a",), None),
        ("somewhere", (), None),
        ("", ("a",), None),
    ],
)  # fmt: skip
def test_topic_tells_device_and_field(topic: str, path: tuple[str, ...], place: tuple[str, ...] | None) -> None:
    assert places.find(topic, path, "") == place


def test_device_tells_only_of_itself() -> None:
    config = b'{"stat_t":"zigbee2mqtt/Plug","unit_of_meas":"W","val_tpl":"{{ value_json.power }}"}'
    contexts = [
        Context(0, topic="homeassistant/sensor/x/config", transport="mqtt", is_gateway=is_gateway)
        for is_gateway in (True, False)
    ]

    told = [PROTOCOLS["homeassistant"].decode(config, context).described[0].device for context in contexts]

    assert told == ["zigbee:Plug", None]
