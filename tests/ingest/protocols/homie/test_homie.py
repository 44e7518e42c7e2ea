"""Homie's properties: typed by what was told before, over restarts and faults."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.framing import Batch, Delivery, Verdict
from ingest.protocols import PROTOCOLS
from ingest.protocols.base import MAX_FIELDS, Context
from ingest.protocols.homie import host as homie_host
from ingest.protocols.homie.host import HomieHost
from ingest.service import IngestService
from tests.ingest.intake_support import World
from wire.devices import DeviceIdentity
from wire.errors import Unavailable

NOW = 1_772_700_000_000_000_000
PLATE = "homie/car/body/plate"


class Home:
    """A service with its host on one folder, which can be started anew."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.world = World(folder, {})
        for name in ("gw", "gw2"):
            self.world.registry.add(name, gateway=True)
        self.start()

    def start(self) -> None:
        self.host = HomieHost(self.folder)
        self.service = IngestService(self.world.ports, {"homie": PROTOCOLS["homie"].hosted_by(self.host)}, [self.host])

    def restart(self) -> None:
        self.host.close()
        self.start()

    def say(self, *said: tuple[str, str], sender: str = "gw", retain: bool = False) -> Verdict:
        sent = [
            Delivery(sender, topic, text.encode(), NOW, at + 1, retain=retain, protocol="homie")
            for at, (topic, text) in enumerate(said)
        ]
        return self.service.accept_batch(Batch("b", sent))

    def values(self) -> list[object]:
        return [value for reading in self.world.commit.readings for value in reading.fields.values()]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path)
    yield made
    made.host.close()
    made.world.close()


def description(**properties: str) -> str:
    told = {name: {"datatype": datatype} for name, datatype in properties.items()}
    return json.dumps({"nodes": {"body": {"properties": told}}})


def test_value_has_the_type_that_was_told_also_after_a_restart(home: Home) -> None:
    home.say((f"{PLATE}/$datatype", "string"), (PLATE, "0012"))
    home.restart()
    home.say((PLATE, "true"), ("homie/car/body/doors", "4"))

    assert home.values() == ["0012", "true", 4.0]


def test_description_says_all_properties_of_a_device(home: Home) -> None:
    home.say(("homie/5/car/$description", description(plate="string", doors="integer")))
    home.say(("homie/5/car/$description", description(plate="enum", on="boolean")))

    verdict = home.say(
        ("homie/5/car/body/plate", "7"), ("homie/5/car/body/on", "true"), ("homie/5/car/body/doors", "four"),
        ("homie/5/car/body/on", "perhaps"),
    )  # fmt: skip

    assert home.values() == ["7", True, "four"]
    assert [ending.code for ending in verdict.endings] == ["bad_value"]


def test_datatypes_are_those_of_one_sender_and_device(home: Home) -> None:
    home.world.registry.put(DeviceIdentity(id="another", parent="gw2"))
    home.world.registry.name("homie:car", "another", "gw2")
    home.say((f"{PLATE}/$datatype", "string"))

    home.say((PLATE, "12"), sender="gw2")
    home.say(("homie/van/body/plate", "12"))
    home.say((PLATE, "12"))

    assert home.values() == [12.0, 12.0, "12"]


def test_batch_that_could_not_be_kept_leaves_no_datatypes(home: Home) -> None:
    home.world.commit.error = Unavailable("no room")
    with pytest.raises(Unavailable):
        home.say((f"{PLATE}/$datatype", "string"), (PLATE, "12"))
    home.world.commit.error = None

    context = Context(NOW, topic=PLATE, transport="mqtt", sender="default/gw")
    [record] = home.host.decode(b"12", context).records
    assert record.fields == {"body.plate": 12.0}


def test_sender_teaches_only_so_many(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(homie_host, "MAX_OF_SENDER", 2)
    for name in ("a", "b", "c"):
        home.say((f"homie/car/body/{name}/$datatype", "string"))

    home.say(("homie/car/body/b", "1"), ("homie/car/body/c", "1"))

    assert home.values() == ["1", 1.0]


def test_device_teaches_only_so_many(home: Home) -> None:
    names = [f"p{at}" for at in range(MAX_FIELDS + 1)]
    home.say(*((f"homie/car/body/{name}/$datatype", "string") for name in names))

    home.say(("homie/car/body/p0", "1"), (f"homie/car/body/p{MAX_FIELDS}", "1"))

    assert home.values() == ["1", 1.0]


def test_old_values_that_the_broker_kept_are_no_readings(home: Home) -> None:
    verdict = home.say((PLATE, "12"), ("homie/car/$state", "ready"), retain=True)

    assert [ending.code for ending in verdict.endings] == ["retained"]
    assert home.values() == []


def test_over_http_there_is_nothing_to_know_a_property_by(home: Home) -> None:
    decoded = home.host.decode(b"12", Context(NOW))

    assert [fault.code for fault in decoded.faults] == ["unsupported"]
