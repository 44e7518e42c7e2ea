"""A device of another system on its own topics, unmodified, through a whole installation."""

from __future__ import annotations

import json

import paho.mqtt.client as paho
import pytest

from tests.e2e.platform import Device, Installation
from tests.support.waiting import wait_until

pytestmark = pytest.mark.e2e


class Lamp:
    """Speaks MQTT 5, in which the broker says that it refuses a publish; Tasmota's topics and payloads."""

    def __init__(self, installation: Installation, device: Device) -> None:
        self.codes: dict[int, bool] = {}
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, device.id, protocol=paho.MQTTv5)
        self.client.username_pw_set(device.id, device.secret)
        self.client.reconnect_delay_set(1, 1)
        self.client.on_publish = lambda _c, _u, mid, code, _p: self.codes.update({mid: not code.is_failure})
        self.client.connect_async("127.0.0.1", installation.mqtt)
        self.client.loop_start()
        wait_until(self.client.is_connected, 10)

    def says(self, topic: str, content: object) -> bool:
        """Publish; tell whether the broker took it."""
        sent = self.client.publish(topic, json.dumps(content), 1)
        wait_until(lambda: sent.mid in self.codes, 10)
        return self.codes[sent.mid]

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def test_topics_claimed_for_a_device_carry_its_data_until_they_are_released(installation: Installation) -> None:
    topic, filters = "tele/lamp in the hall", ("tele/lamp in the hall/#", "stat/lamp in the hall/#")
    lamp, other = (Lamp(installation, installation.add_device(name)) for name in ("lamp-1", "lamp-2"))
    for each in filters:
        installation.run("topic", "claim", "lamp-1", each, "--protocol", "tasmota", check=True)
    taken = installation.run("topic", "claim", "lamp-2", "tele/#", "--protocol", "tasmota")

    wait_until(lambda: lamp.says(f"{topic}/STATE", {"POWER": "ON"}), 2.0)
    sensor = {"Time": "2026-03-04T05:06:07", "DS18B20": {"Temperature": 19.5}, "TempUnit": "C"}
    assert lamp.says(f"{topic}/SENSOR", sensor)
    assert not other.says(f"{topic}/SENSOR", {"DS18B20": {"Temperature": 99}})
    assert lamp.says(f"{topic}/SENSOR", [17])
    found = wait_until(lambda: [p for p in installation.points("lamp-1") if "DS18B20.Temperature" in p["fields"]], 10)
    wait_until(lambda: installation.quarantined("lamp-1"), 10)
    installation.run("topic", "release", "lamp-1", filters[0], check=True)
    wait_until(lambda: not lamp.says(f"{topic}/STATE", {"POWER": "ON"}), 2.0)
    lamp.close()
    other.close()

    assert (taken.returncode, "topic_taken" in taken.stderr or "taken by lamp-1" in taken.stderr) == (1, True)
    assert (found[0]["measurement"], found[0]["time"]) == ("tasmota", "2026-03-04T05:06:07.000000000Z")
    assert found[0]["fields"] == {"DS18B20.Temperature": 19.5}
    assert [(each["code"], each["protocol"]) for each in installation.quarantined("lamp-1")] == [
        ("bad_structure", "tasmota")
    ]
    listed = json.loads(installation.run("topic", "list", "--json", check=True).stdout)
    assert [each["filter"] for each in listed] == [filters[1]]


def test_devices_behind_gateways_are_children_with_the_presence_that_is_told(installation: Installation) -> None:
    claims = {"shelly": "shelly/#", "zigbee2mqtt": "zigbee2mqtt/#"}
    gateways = {}
    for protocol, topics in claims.items():
        gateways[protocol] = Lamp(installation, installation.add_device(f"gw-{protocol}", gateway=True))
        installation.run("topic", "claim", f"gw-{protocol}", topics, "--protocol", protocol, check=True)
    zigbee, shelly = gateways["zigbee2mqtt"], gateways["shelly"]
    ident = "shellyplus1pm-aabbccddeeff"
    status = {"ts": 1.61, "switch:0": {"id": 0, "apower": 42.5}}

    wait_until(lambda: zigbee.says("zigbee2mqtt/bridge/devices", [{"friendly_name": "Cellar/Climate"}]), 2.0)
    assert zigbee.says("zigbee2mqtt/Cellar/Climate", {"temperature": 19.5, "last_seen": "2026-03-04T05:06:07Z"})
    assert zigbee.says("zigbee2mqtt/Cellar/Climate/availability", {"state": "offline"})
    wait_until(
        lambda: shelly.says("shelly/hall/events/rpc", {"src": ident, "method": "NotifyStatus", "params": status}), 2
    )
    assert shelly.says(f"shelly/{ident}/online", True)
    [climate] = wait_until(lambda: installation.points("Cellar.Climate"), 20)
    [relay] = wait_until(lambda: installation.points(ident), 20)
    wait_until(lambda: presence(installation, "Cellar.Climate") == "offline", 10)
    wait_until(lambda: presence(installation, ident) == "online", 10)
    assert shelly.says(f"shelly/{ident}/online", False)
    wait_until(lambda: presence(installation, ident) == "offline", 10)
    for each in gateways.values():
        each.close()

    assert (climate["time"], climate["fields"]) == ("2026-03-04T05:06:07.000000000Z", {"temperature": 19.5})
    assert (relay["measurement"], relay["fields"]) == ("shelly", {"switch0.apower": 42.5})
    assert [installation.quarantined(f"gw-{protocol}") for protocol in claims] == [[], []]


def test_single_values_are_typed_and_described_by_what_was_told(installation: Installation) -> None:
    car, kitchen = (
        Lamp(installation, installation.add_device(name, gateway=name == "cars")) for name in ("cars", "kitchen")
    )
    claims = {"cars": ("homie", "homie/#"), "kitchen": ("esphome", "kitchen/#")}
    for device, (protocol, topics) in claims.items():
        installation.run("topic", "claim", device, topics, "--protocol", protocol, check=True)
    installation.run(
        "topic", "claim", "kitchen", "homeassistant/+/kitchen/#", "--protocol", "homeassistant", check=True
    )
    properties = {"plate": {"datatype": "string"}, "speed": {"datatype": "float", "unit": "km/h", "name": "Speed"}}
    config = {"stat_t": "kitchen/sensor/t/state", "unit_of_meas": "°C", "dev_cla": "temperature", "name": "Air"}

    wait_until(lambda: car.says("homie/5/car-1/$description", {"nodes": {"n": {"properties": properties}}}), 2.0)
    assert car.says("homie/5/car-1/n/plate", 12)
    assert car.says("homie/5/car-1/n/speed", 88.5)
    wait_until(lambda: kitchen.says("homeassistant/sensor/kitchen/t/config", config), 2.0)
    wait_until(lambda: kitchen.says("kitchen/sensor/t/state", 21.5), 2.0)
    wait_until(lambda: len(installation.points("car-1")) == 2 and installation.points("kitchen"), 20)
    found = {name: wait_until(lambda name=name: described(installation, name), 20) for name in ("car-1", "kitchen")}
    [shown] = installation.call("GET", "/v1/query/latest?device=kitchen&described=true").body["points"]
    learned = installation.call("POST", "/v1/device-types/nodes:learn", {"devices": ["kitchen"]})
    for each in (car, kitchen):
        each.close()

    fields = {name: value for point in installation.points("car-1") for name, value in point["fields"].items()}
    assert fields == {"n.plate": "12", "n.speed": 88.5}
    assert found["car-1"] == {"n.speed": ("km/h", "Speed", "")}
    assert found["kitchen"] == {"t": ("°C", "Air", "temperature")}
    assert shown["described"] == {"t": {"unit": "°C", "label": "Air", "kind": "temperature"}}
    assert learned.body["draft"]["spec"]["fields"]["t"]["unit"] == "°C"


def described(installation: Installation, device: str) -> dict[str, tuple[str, str, str]]:
    told = installation.call("GET", f"/v1/devices/{device}").body["described"]
    return {each["field"]: (each["unit"], each["label"], each["kind"]) for each in told}


def presence(installation: Installation, device: str) -> str:
    return "online" if installation.call("GET", f"/v1/devices/{device}").body["online"] else "offline"
