"""Devices behind Zigbee2MQTT by their addresses, over renaming and restarts."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ingest.framing import Batch, Delivery, Verdict
from ingest.protocols import PROTOCOLS
from ingest.protocols.zigbee2mqtt import host as zigbee_host
from ingest.protocols.zigbee2mqtt.host import Zigbee2mqttHost
from ingest.service import IngestService
from tests.ingest.intake_support import World
from wire.errors import Unavailable

NOW = 1_772_700_000_000_000_000
LAMP, PLUG = "0x00158d0001020304", "0x00158d0001020305"


class House:
    """A service with its host on one folder, which can be started anew."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.world = World(folder, {})
        self.world.registry.add("gw", gateway=True)
        self.world.registry.add("d1")
        self.start()

    def start(self) -> None:
        self.host = Zigbee2mqttHost(self.folder)
        hosted = {"zigbee2mqtt": PROTOCOLS["zigbee2mqtt"].hosted_by(self.host)}
        self.service = IngestService(self.world.ports, hosted, [self.host])

    def restart(self) -> None:
        self.host.close()
        self.start()

    def say(self, topic: str, content: Any, sender: str = "gw") -> Verdict:
        sent = Delivery(sender, topic, json.dumps(content).encode(), NOW, 7, protocol="zigbee2mqtt")
        return self.service.accept_batch(Batch("b", [sent]))

    def call(self, base: str = "zigbee2mqtt", **names: str) -> Verdict:
        """Tell which friendly names the devices have."""
        told = [{"friendly_name": name, "ieee_address": address} for name, address in names.items()]
        return self.say(f"{base}/bridge/devices", told)

    def devices(self) -> list[str]:
        return [reading.device for reading in self.world.commit.readings]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    made.host.close()
    made.world.close()


def test_renamed_device_stays_the_same_child_also_after_a_restart(house: House) -> None:
    house.call(Lamp=LAMP)
    house.say("zigbee2mqtt/Lamp", {"power": 1})
    house.call(Bulb=LAMP)
    house.restart()
    house.say("zigbee2mqtt/Bulb", {"power": 2})
    house.say("zigbee2mqtt/Bulb/availability", {"state": "online"})
    house.world.reports.send()

    assert house.devices() == [LAMP, LAMP]
    assert house.world.registry.presence.keys() == {LAMP}


def test_child_known_by_its_friendly_name_keeps_it_when_the_address_is_told(house: House) -> None:
    house.say("zigbee2mqtt/Lamp", {"power": 1})
    house.call(Lamp=LAMP)
    house.say("zigbee2mqtt/Lamp", {"power": 2})
    house.call(Bulb=LAMP)
    house.restart()
    house.say("zigbee2mqtt/Bulb", {"power": 3})

    assert house.devices() == ["Lamp"] * 3


def test_who_takes_over_a_friendly_name_does_not_become_its_old_bearer(house: House) -> None:
    house.say("zigbee2mqtt/Lamp", {"power": 1})
    house.call(Lamp=LAMP)
    house.call(Bulb=LAMP, Lamp=PLUG)

    house.say("zigbee2mqtt/Lamp", {"power": 2})
    house.say("zigbee2mqtt/Bulb", {"power": 3})

    assert house.devices() == ["Lamp", PLUG, "Lamp"]


def test_two_bridges_of_one_gateway_have_friendly_names_of_their_own(house: House) -> None:
    house.call("zigbee-east", Lamp=LAMP)
    house.call("zigbee-west", Lamp=PLUG)

    house.say("zigbee-east/Lamp", {"power": 1})
    house.say("zigbee-west/Lamp", {"power": 2})

    assert house.devices() == [LAMP, PLUG]


def test_units_go_to_the_child_by_its_address(house: House) -> None:
    exposes = [{"type": "numeric", "property": "power", "unit": "W", "access": 1}]
    device = {"friendly_name": "Lamp", "ieee_address": LAMP, "definition": {"exposes": exposes}}

    house.say("zigbee2mqtt/bridge/devices", [device])
    house.world.reports.send()

    assert [(each["device"], each["name"]) for each in house.world.registry.described] == [("gw", f"zigbee:{LAMP}")]


def test_what_was_told_in_a_batch_that_could_not_be_kept_is_forgotten(house: House) -> None:
    house.world.commit.error = Unavailable("no room")
    told = [{"friendly_name": "Lamp", "ieee_address": LAMP}]
    sent = [
        Delivery("gw", f"zigbee2mqtt/{topic}", json.dumps(content).encode(), NOW, 7, protocol="zigbee2mqtt")
        for topic, content in (("bridge/devices", told), ("Lamp", {"power": 1}))
    ]
    with pytest.raises(Unavailable):
        house.service.accept_batch(Batch("b", sent))
    house.world.commit.error = None

    house.say("zigbee2mqtt/Lamp", {"power": 1})

    assert house.devices() == ["Lamp"]


def test_odd_addresses_are_none_and_a_flood_of_them_has_an_end(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zigbee_host, "MAX_OF_SENDER", 1)
    house.call(A="0x1", B=7, C=LAMP, D=PLUG)  # type: ignore[arg-type]
    for name in "ABCD":
        house.say(f"zigbee2mqtt/{name}", {"power": 1})

    assert house.devices() == ["A", "B", "C", "D"]


def test_device_that_is_no_gateway_speaks_for_itself(house: House) -> None:
    house.say("zigbee2mqtt/bridge/devices", [{"friendly_name": "Lamp", "ieee_address": LAMP}], "d1")
    house.say("zigbee2mqtt/Lamp", {"power": 1}, "d1")

    assert house.devices() == ["d1"]
    with sqlite3.connect(house.folder / zigbee_host.FILE) as database:
        assert database.execute("SELECT count(*) FROM kept").fetchone() == (0,)
    database.close()
