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
