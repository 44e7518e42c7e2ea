"""Sparkplug through the ingestion service: children of a gateway, in order, over faults and restarts."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import apsw
import msgspec
import pytest

from ingest.framing import Batch, Delivery, Verdict
from ingest.message import Message
from ingest.protocols import PROTOCOLS
from ingest.protocols.base import Context
from ingest.protocols.sparkplug.host import SparkplugHost, open_host
from ingest.protocols.sparkplug.messages import Payload
from ingest.quarantine import Selection
from ingest.service import IngestService
from tests.ingest.intake_support import World
from tests.ingest.sparkplug.made import DAY_MS, add, birth, data, death, payload
from tests.ingest.sparkplug.test_sessions import alias_data, device_birth
from wire import clock
from wire.errors import Unavailable

RECEIVED_NS = (DAY_MS + 1_000) * clock.NS_PER_MS
NODE, PUMP = "spBv1.0/Plant A/{}/Line 1", "spBv1.0/Plant A/{}/Line 1/Pump 7"


class Plant:
    """A service with its host on one folder, which can be started anew."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.world = World(folder, {})
        self.world.registry.add("gw", gateway=True)
        self.mid = 0
        self.start()

    def start(self) -> None:
        self.host = SparkplugHost(self.folder)
        hosted = {"sparkplug": PROTOCOLS["sparkplug"].hosted_by(self.host)}
        self.service = IngestService(self.world.ports, hosted, [self.host])

    def restart(self) -> None:
        self.host.close()
        self.start()

    def say(self, *said: tuple[str, bytes], retain: bool = False) -> Verdict:
        return self.service.accept_batch(Batch("b", [self.delivery(*each, retain=retain) for each in said]))

    def delivery(self, topic: str, content: bytes, *, retain: bool = False) -> Delivery:
        self.mid += 1
        return Delivery("gw", topic, content, RECEIVED_NS, self.mid, retain=retain, protocol="sparkplug")

    def values(self) -> list[tuple[str, dict[str, object]]]:
        return [(reading.device, reading.fields) for reading in self.world.commit.readings]


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    made = Plant(tmp_path)
    yield made
    made.host.close()
    made.world.close()


def test_node_and_device_are_children_of_the_gateway(plant: Plant) -> None:
    verdict = plant.say(
        (NODE.format("NBIRTH"), birth(t=20.5)),
        (PUMP.format("DBIRTH"), device_birth(1)),
        (PUMP.format("DDATA"), data(2, DAY_MS + 1, hum=51.5)),
    )

    assert verdict == Verdict(3)
    assert plant.values() == [
        ("Plant-A.Line-1", {"t": 20.5}),
        ("Plant-A.Line-1.Pump-7", {"hum": 50.0}),
        ("Plant-A.Line-1.Pump-7", {"hum": 51.5}),
    ]


def test_presence_is_what_births_and_deaths_say(plant: Plant) -> None:
    plant.say((NODE.format("NBIRTH"), birth()), (PUMP.format("DBIRTH"), device_birth(1)))
    plant.world.reports.send()
    assert {name: told[0] for name, told in plant.world.registry.presence.items()} == {
        "Plant-A.Line-1": True, "Plant-A.Line-1.Pump-7": True
    }  # fmt: skip

    verdict = plant.say((NODE.format("NDEATH"), death()))
    plant.world.reports.send()
    assert verdict == Verdict(0)
    assert {name: told[0] for name, told in plant.world.registry.presence.items()} == {
        "Plant-A.Line-1": False, "Plant-A.Line-1.Pump-7": False
    }  # fmt: skip


def test_data_before_a_birth_waits_and_a_birth_is_asked_for(plant: Plant) -> None:
    verdict = plant.say((NODE.format("NDATA"), data(1, t=1.0)))

    assert [ending.code for ending in verdict.endings] == ["not_born"]
    assert [saying.topic for saying in verdict.sayings] == [NODE.format("NCMD")]
    metric = Payload.FromString(verdict.sayings[0].payload).metrics[0]
    assert (metric.name, metric.datatype, metric.boolean_value) == ("Node Control/Rebirth", 11, True)

    assert plant.say((NODE.format("NDATA"), data(2, t=1.0))).sayings == []


def test_what_carries_names_and_types_can_be_replayed(plant: Plant) -> None:
    plant.say((NODE.format("NDATA"), data(1, t=1.5)), (NODE.format("NDATA"), alias_data(2, 9)))

    report = plant.world.replayer.replay_selection(Selection())

    assert report.replayed == 1
    assert plant.values() == [("Plant-A.Line-1", {"t": 1.5})]


def test_a_gap_is_looked_at_again_without_a_message(plant: Plant) -> None:
    plant.say((NODE.format("NBIRTH"), birth()))
    verdict = plant.say((NODE.format("NDATA"), data(2, t=1.0)))

    assert 1.5 < verdict.again_s <= 2.0
    assert plant.say().again_s <= verdict.again_s
    gaps = plant.host._sessions._gaps
    [key] = plant.host._sessions._nodes
    plant.host._sessions._nodes[key].gap_at_s = 0.0
    gaps.plan(key, 0.0)
    assert [saying.topic for saying in plant.say().sayings] == [NODE.format("NCMD")]


def test_a_batch_that_cannot_be_kept_leaves_its_session_as_it_was(plant: Plant) -> None:
    plant.say((NODE.format("NBIRTH"), made_birth("old")))
    moved = [(NODE.format("NDATA"), alias_data(1, 9)), (NODE.format("NBIRTH"), made_birth("new", DAY_MS + 5))]
    plant.world.commit.error = Unavailable("full")
    with pytest.raises(Unavailable):
        plant.say(*moved)

    plant.world.commit.error = None
    plant.say(*moved, (NODE.format("NDATA"), alias_data(1, 9, later_ms=50)))

    assert [fields for _, fields in plant.values()] == [{"old": 1.0}, {"old": 3.5}, {"new": 1.0}, {"new": 3.5}]


def test_a_batch_waits_as_a_whole_while_the_registry_is_away(plant: Plant) -> None:
    plant.say((NODE.format("NBIRTH"), birth(t=1.0)))
    plant.world.registry.is_away = True
    said = ((NODE.format("NDATA"), data(1, t=2.0)), (PUMP.format("DBIRTH"), device_birth(2)))
    with pytest.raises(Unavailable):
        plant.say(*said)
    assert len(plant.values()) == 1

    plant.world.registry.is_away = False
    assert plant.say(*said) == Verdict(2)
    assert len(plant.values()) == 3


def test_sessions_go_on_after_a_restart(plant: Plant) -> None:
    plant.say((NODE.format("NBIRTH"), made_birth("t")), (PUMP.format("DBIRTH"), device_birth(1)))
    plant.restart()

    verdict = plant.say((NODE.format("NDATA"), alias_data(2, 9)), (PUMP.format("DDATA"), alias_data(3, 4)))

    assert verdict == Verdict(2)
    assert [fields for _, fields in plant.values()[2:]] == [{"t": 3.5}, {"hum": 3.5}]


def test_what_comes_again_after_a_restart_is_not_read_by_the_aliases_of_another_birth(plant: Plant) -> None:
    before = [(NODE.format("NBIRTH"), made_birth("old")), (NODE.format("NDATA"), alias_data(1, 9))]
    after = [(NODE.format("NDATA"), alias_data(1, 9, later_ms=50)), (NODE.format("NDATA"), alias_data(2, 9))]
    plant.say(*before, (NODE.format("NBIRTH"), made_birth("new", DAY_MS + 5)), *after)
    plant.restart()

    plant.say((NODE.format("NDATA"), alias_data(1, 9)))

    assert all(fields.keys() <= {"old", "new"} for _, fields in plant.values())
    assert len(plant.values()) == 5


@pytest.mark.parametrize("is_killed", [True, False])
def test_what_was_kept_before_a_birth_and_comes_again_is_not_read_by_that_birth(plant: Plant, is_killed: bool) -> None:
    plant.say((NODE.format("NBIRTH"), made_birth("old")))
    said = ((NODE.format("NDATA"), alias_data(1, 9)), (NODE.format("NBIRTH"), made_birth("new", DAY_MS + 50)))
    plant.say(*said)
    if is_killed:  # between its commit and its answer, so that the bridge sends the batch again
        plant.restart()

    verdict = plant.say(*said, (NODE.format("NDATA"), alias_data(1, 9, later_ms=60)))

    assert (verdict.endings, verdict.sayings) == ([], [])
    assert [fields for _, fields in plant.values()] == [{"old": 1.0}, {"old": 3.5}, {"new": 1.0}, {"new": 3.5}]


def test_a_batch_that_comes_again_after_a_restart_asks_for_nothing(plant: Plant) -> None:
    said = ((NODE.format("NBIRTH"), made_birth("t")), (NODE.format("NDATA"), alias_data(1, 9)))
    plant.say(*said)
    plant.restart()

    assert plant.say(*said) == Verdict(0)
    assert plant.say() == Verdict(0)


def test_what_the_bridge_hands_in_before_its_turn_is_not_decoded(plant: Plant) -> None:
    plant.say((NODE.format("NBIRTH"), made_birth("old")))
    early = msgspec.structs.replace(plant.delivery(NODE.format("NDATA"), alias_data(1, 9)), is_surplus=True)

    verdict = plant.service.accept_batch(Batch("b", [early]))

    assert [(ending.end, ending.code) for ending in verdict.endings] == [("quarantined", "rate_limited")]
    assert plant.values() == [("Plant-A.Line-1", {"old": 1.0})]
    assert plant.say((NODE.format("NDATA"), alias_data(1, 9))) == Verdict(1)


def test_a_gateway_that_has_a_topic_later_does_not_get_the_names_of_the_one_before(plant: Plant) -> None:
    plant.world.registry.add("other", gateway=True)
    plant.say((NODE.format("NBIRTH"), made_birth("secret recipe")))
    moved = msgspec.structs.replace(plant.delivery(NODE.format("NDATA"), alias_data(1, 9)), device="other")

    verdict = plant.service.accept_batch(Batch("b", [moved]))

    assert [ending.code for ending in verdict.endings] == ["not_born"]
    assert [fields for _, fields in plant.values()] == [{"secret recipe": 1.0}]


def test_nobody_speaks_for_an_edge_node_over_http(plant: Plant) -> None:
    plant.say((NODE.format("NBIRTH"), made_birth("t")))
    stranger = plant.world.ports.gate.find(["gw"]).known["gw"]
    topic = NODE.format("NDEATH")  # as a Content-Type, which is what a decoder is told over HTTP

    receipt = plant.service.accept(Message(stranger, plant.service.protocols["sparkplug"], death(), 1, "http", topic))

    assert [item.code for item in receipt.quarantined] == ["unsupported"]
    assert plant.say((NODE.format("NDATA"), alias_data(1, 9))) == Verdict(1)


def test_what_waits_of_data_with_aliases_is_kept_with_its_names(plant: Plant) -> None:
    plant.say((NODE.format("NBIRTH"), made_birth("t")))
    made = payload(1, DAY_MS + 1)
    add(made, None, float("nan"), alias=9, datatype=0)
    made.metrics.add(alias=8).double_value = 1.0
    plant.say((NODE.format("NDATA"), made.SerializeToString()))

    [content] = {plant.world.quarantine.get(entry.id).raw for entry in plant.world.quarantine.page(Selection())}
    assert [(each.name, each.alias, each.datatype) for each in Payload.FromString(content or b"").metrics] == [
        ("t", 9, 10), ("", 8, 0)
    ]  # fmt: skip


def made_birth(name: str, time_ms: int = DAY_MS) -> bytes:
    made = payload(0, time_ms)
    add(made, name, 1.0, alias=9)
    content: bytes = made.SerializeToString()
    return content


def test_retained_messages_and_other_topics_are_none_of_the_specification(plant: Plant) -> None:
    assert [ending.code for ending in plant.say((NODE.format("NBIRTH"), birth()), retain=True).endings] == ["retained"]
    assert [ending.code for ending in plant.say((NODE.format("XDATA"), birth())).endings] == ["bad_topic"]
    assert plant.say((NODE.format("NCMD"), data(0, x=1))) == Verdict(0)


def spoil(path: Path, how: str) -> None:
    """Damage the file of sessions as a bad disk, or a stranger, would."""
    Path(f"{path}-wal").unlink(missing_ok=True)
    if how == "head":
        path.write_bytes(b"no database" * 1_000)
    elif how == "pages":
        content = path.read_bytes()
        path.write_bytes(content[:4096] + b"\xa5" * (len(content) - 4096))
    else:
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE births SET declared = 'no JSON'")
        connection.close()


@pytest.mark.parametrize("how", ["head", "pages", "rows"])
def test_damaged_sessions_are_set_aside_and_births_asked_for(plant: Plant, how: str) -> None:
    plant.say((NODE.format("NBIRTH"), made_birth("t")))
    plant.host.close()
    path = plant.folder / "sparkplug.db"
    spoil(path, how)
    plant.start()

    verdict = plant.say((NODE.format("NDATA"), alias_data(1, 9)))

    assert [ending.code for ending in verdict.endings] == ["not_born"]
    assert [saying.topic for saying in verdict.sayings] == [NODE.format("NCMD")]
    assert len(list(plant.folder.glob("sparkplug.db.damaged-*[0-9]"))) == 1
    plant.say((NODE.format("NBIRTH"), made_birth("t", DAY_MS + 50)))
    plant.restart()
    assert plant.say((NODE.format("NDATA"), alias_data(1, 9))) == Verdict(1)


def test_sessions_damaged_while_they_are_used_cost_no_message(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant.say((NODE.format("NBIRTH"), made_birth("t")))
    said = (NODE.format("NDATA"), alias_data(1, 9))

    def fail() -> None:
        raise apsw.CorruptError

    monkeypatch.setattr(plant.host._kept._database, "_commit", fail)
    with pytest.raises(Unavailable):
        plant.say(said)

    assert plant.say(said) == Verdict(1)
    plant.restart()
    assert plant.say((NODE.format("NDATA"), alias_data(2, 9, later_ms=5))) == Verdict(1)


def test_setting_says_how_long_messages_may_come_out_of_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_SPARKPLUG_REORDER_MS", "5000")
    host = open_host(tmp_path)

    for seq, content in ((0, birth(t=1.0)), (2, data(2, t=2.0))):
        topic = NODE.format("NDATA" if seq else "NBIRTH")
        host.decode(content, Context(RECEIVED_NS, topic=topic, transport="mqtt"))
        host.commit()

    assert 4.5 < host.due().again_s <= 5.0
    host.close()
