"""Messages that name several devices: each record is its device's, and costs nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ingest import children
from ingest.framing import Batch, Delivery
from ingest.message import Message
from ingest.quarantine import Selection
from ingest.readings import Reading
from tests.ingest.intake_support import World
from tests.ingest.named import NAMED, named
from wire.devices import DeviceIdentity
from wire.errors import PeerUnavailable, Unavailable

T = 1_760_000_000_000_000_000
TOPIC = "devices/g1/telemetry/named"
A, B = "tb:Sensor A", "tb:Sensor/B"
V = {"t": 1.0}
ODD = [" a  b ", "a/b", "+/#", "Müller 泵", "<b>x</b>", "x" * 253]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, {"named": NAMED})
    made.replayer._protocols = {"named": NAMED}
    made.registry.add("g1", gateway=True)
    made.registry.add("plain")
    made.gate.poll()
    yield made
    made.close()


def send(
    world: World, content: bytes, sender: str = "g1", **more: Any
) -> tuple[int, list[tuple[str, str, int | None]]]:
    delivery = Delivery(sender, TOPIC.replace("g1", sender), content, T, 7, **more)
    verdict = world.service.accept_batch(Batch("b", [delivery]))
    return verdict.accepted, [(ending.end, ending.code, ending.record) for ending in verdict.endings]


def post(world: World, content: bytes, sender: str = "g1") -> Any:
    return world.service.accept(Message(world.gate.find([sender]).known[sender], NAMED, content, T))


def kept(world: World) -> list[tuple[str, dict[str, Any]]]:
    return [(reading.device, dict(reading.fields)) for reading in world.commit.readings]


def waiting(world: World) -> list[tuple[str, str, str, int | None]]:
    page = world.quarantine.page(Selection())
    return sorted((entry.device, entry.sender, entry.code, entry.record) for entry in page)


def test_each_record_is_its_devices(world) -> None:
    content = named((A, {"t": 1.0}), (None, {"t": 2.0}), (B, {"t": 3.0}), (A, {"t": 4.0}))

    assert send(world, content) == (4, [])
    assert sorted(kept(world), key=str) == sorted(
        [("g1", {"t": 2.0}), ("Sensor-A", {"t": 1.0}), ("Sensor-A", {"t": 4.0}), ("Sensor.B", {"t": 3.0})], key=str
    )
    assert send(world, content)[0] == 4
    assert world.registry.calls.count("/internal/children:admit") == 1
    world.reports.send()
    assert {"g1", "Sensor-A", "Sensor.B"} <= world.registry.seen_by_mqtt.keys()


@pytest.mark.parametrize("odd", ODD)
def test_odd_names_are_names(world, odd) -> None:
    assert send(world, named((f"tb:{odd}", V))) == (1, [])
    assert ("g1", f"tb:{odd}") in world.registry.names


@pytest.mark.parametrize("odd", ["tb:" + "x" * 254, "tb:a\nb", "nothing", "tb:\ud800", ""])
def test_bad_name_costs_its_record_only(world, odd) -> None:
    assert send(world, named((A, V), (odd, V))) == (1, [("quarantined", "bad_name", 1)])


@pytest.mark.parametrize("code", ["child_refused", "too_many_children", "identity_mismatch"])
def test_refused_child_costs_its_records_only(world, code) -> None:
    send(world, named((A, V)))
    world.registry.rules = code
    world.gate.poll()

    for _ in range(2):
        assert send(world, named((B, V), (A, V), (B, V))) == (1, [("quarantined", code, 0), ("quarantined", code, 2)])
    assert world.registry.calls.count("/internal/children:admit") == 2
    world.reports.send()
    assert {entry["actor"] for entry in world.registry.audit} <= {"device:g1"}
    assert [entry["object"] for entry in world.registry.audit] == ["device:tb:Sensor/B"] * (code == "identity_mismatch")


def test_data_of_a_held_child_waits_and_is_stored_when_it_is_accepted(world) -> None:
    world.registry.name(A, "a", "g1")
    world.registry.put(DeviceIdentity(id="a", state="held", parent="g1"))

    assert send(world, named((B, V), (A, {"t": 7.0}))) == (1, [("quarantined", "device_held", 1)])
    assert world.quarantine.devices_waiting("device_held", 10) == [("default", "a")]
    assert waiting(world) == [("a", "g1", "device_held", 1)]
    world.registry.put(DeviceIdentity(id="a", parent="g1"))
    world.gate.poll()
    for _ in range(2):  # the second finds nothing
        world.replayer.replay_selection(Selection(device="a", code="device_held"))
    assert kept(world) == [("Sensor.B", V), ("a", {"t": 7.0})]


def test_data_that_waited_stays_whose_it_was(world) -> None:
    """Though the name means another device by now, and its gateway is gone."""
    world.registry.name(A, "a", "g1")
    world.registry.put(DeviceIdentity(id="a", state="held", parent="g1"))
    send(world, named((A, {"t": 7.0})))
    world.registry.name(A, "b", "g1")
    world.registry.put(DeviceIdentity(id="b", parent="g1"))
    world.registry.put(DeviceIdentity(id="a", parent="g2"))
    del world.registry.devices["g1"]
    world.registry._change("devices", "g1")
    world.gate.poll()

    replayed = world.replayer.replay_ids([1], tenant="default")

    assert (replayed.replayed, kept(world)) == (1, [("a", {"t": 7.0})])


def test_refused_records_are_stored_by_a_replay_once_the_rules_let_them(world, monkeypatch) -> None:
    monkeypatch.setattr(children, "REFUSED_S", 0)
    world.registry.rules = "child_refused"
    content = named((A, {"t": 1.0}), (None, {"t": 2.0}), (B, {"t": 3.0}))
    send(world, content)
    assert world.replayer.replay_selection(Selection()).replayed == 0
    world.registry.rules = "auto"

    assert world.replayer.replay_ids([1], tenant="default").replayed == 1
    assert kept(world) == [("g1", {"t": 2.0}), ("Sensor-A", {"t": 1.0})]
    assert world.replayer.replay_selection(Selection()).replayed == 1
    assert kept(world)[2:] == [("Sensor.B", {"t": 3.0})]
    assert world.replayer.replay_selection(Selection(state="all")).replayed == 0


def test_kill_between_storing_and_marking_gives_the_same_points_again(world, monkeypatch) -> None:
    monkeypatch.setattr(children, "REFUSED_S", 0)
    world.registry.rules = "child_refused"
    send(world, named((A, V), (B, V)))
    world.registry.rules = "auto"
    mark = world.quarantine.mark_replayed
    world.quarantine.mark_replayed = lambda *_: (_ for _ in ()).throw(Unavailable("killed"))
    with pytest.raises(Unavailable):
        world.replayer.replay_selection(Selection())
    first = list(world.commit.readings)
    world.quarantine.mark_replayed = mark

    assert world.replayer.replay_selection(Selection()).replayed == 2

    def key(reading: Reading) -> tuple[Any, ...]:
        return reading.device, reading.time_ns, tuple(reading.fields.items())

    assert sorted(map(key, first)) == sorted(map(key, world.commit.readings[2:]))


def test_rehearsal_registers_nobody(world) -> None:
    world.registry.rules = "child_refused"
    send(world, named((A, V)))
    world.registry.rules = "auto"
    intake = world.ports.intake.rehearsal()

    found = intake.sort(Message(world.gate.find(["g1"]).known["g1"], NAMED, named((A, V), (None, V)), T), None)

    assert [item.code for item in found.items] == ["unknown_device"]
    assert A not in {name for _, name in world.registry.names}


def test_message_waits_whole_while_a_name_cannot_be_resolved(world) -> None:
    send(world, named((A, V)))
    before = kept(world)
    world.registry.is_away = True

    assert send(world, named((A, V))) == (1, [])
    assert send(world, named((A, V), (B, V), (None, V))) == (0, [("deferred", "peer_unavailable", None)])
    with pytest.raises(PeerUnavailable):
        post(world, named((A, V), (B, V)))
    assert (kept(world), waiting(world)) == (before * 2, [])
    world.registry.is_away = False
    assert send(world, named((A, V), (B, V), (None, V))) == (3, [])


def test_batch_goes_on_beside_a_message_that_waits(world) -> None:
    send(world, named((None, V)))
    world.registry.is_away = True
    contents = (named((A, V)), named((None, V)))
    verdict = world.service.accept_batch(Batch("b", [Delivery("g1", TOPIC, content, T, 7) for content in contents]))

    assert (verdict.accepted, [(each.index, each.end) for each in verdict.endings]) == (1, [(0, "deferred")])


def test_moved_child_is_known_at_its_new_gateway_only(world) -> None:
    world.registry.add("g2", gateway=True)
    send(world, named((A, V)))
    world.registry.put(DeviceIdentity(id="Sensor-A", parent="g2"))
    del world.registry.names["g1", A]
    world.registry.name(A, "Sensor-A", "g2")
    world.registry._change("devices", "g1")
    world.registry.rules = "child_refused"
    world.gate.poll()

    assert send(world, named((A, V)), "g2") == (1, [])
    assert send(world, named((A, V))) == (0, [("quarantined", "child_refused", 0)])


def test_gateway_speaks_for_its_own_children_only(world) -> None:
    world.registry.name(A, "a", "g1")
    world.registry.put(DeviceIdentity(id="a", parent="g2"))
    world.registry.name(B, "b", "g1")
    world.registry.put(DeviceIdentity(id="b", parent="g1", state="disabled"))

    assert send(world, named((A, V), (B, V), (None, V))) == (
        1,
        [("quarantined", "identity_mismatch", 0), ("quarantined", "device_disabled", 1)],
    )
    assert waiting(world) == [("b", "g1", "device_disabled", 1), ("g1", "g1", "identity_mismatch", 0)]


def test_device_that_is_no_gateway_names_itself_only(world) -> None:
    world.registry.name(A, "plain")

    assert send(world, named((A, V), (B, V)), "plain") == (1, [("quarantined", "identity_mismatch", 1)])
    assert kept(world) == [("plain", V)]
    assert "/internal/children:admit" not in world.registry.calls


def test_removed_name_ends_within_one_poll(world) -> None:
    send(world, named((A, V)))
    del world.registry.names["g1", A]
    world.registry._change("devices", "g1")
    world.registry.rules = "child_refused"
    world.gate.poll()

    assert send(world, named((A, V))) == (0, [("quarantined", "child_refused", 0)])


def test_child_that_was_deleted_is_asked_for_again(world) -> None:
    send(world, named((A, V)))
    del world.registry.devices["Sensor-A"], world.registry.names["g1", A]
    world.registry._change("devices", "Sensor-A")
    world.gate.poll()

    assert send(world, named((A, V))) == (1, [])
    assert "Sensor-A" in world.registry.devices


def test_rules_of_its_own_type_hold_for_a_child(world) -> None:
    world.registry.put_type(name="strict", fields={"t": {"type": "float", "max": 10}}, unknown_fields="quarantine")
    world.registry.name(A, "a", "g1")
    world.registry.put(DeviceIdentity(id="a", parent="g1", type="strict"))

    outcome = send(world, named((A, {"t": 99.0}), (B, {"t": 99.0}), (A, {"t": 1.0, "bad": "x"})))

    assert outcome == (2, [("quarantined", "out_of_range", 0), ("quarantined", "bad_value", 2)])
    assert kept(world) == [("a", {"t": 1.0}), ("Sensor.B", {"t": 99.0})]
    assert waiting(world) == [("a", "g1", "bad_value", 2), ("a", "g1", "out_of_range", 0)]


def test_field_types_are_the_childs(world) -> None:
    send(world, named((A, {"x": "on"}), (B, {"x": 1.0})))

    assert send(world, named((A, {"x": 1.0}), (B, {"x": 2.0}))) == (1, [("quarantined", "type_conflict", 0)])
    world.replayer.replay_selection(Selection())
    assert waiting(world) == [("Sensor-A", "g1", "type_conflict", 0)]


def test_child_over_its_rate_keeps_no_neighbour_waiting(world) -> None:
    world.registry.put_type(name="slow", rate_limit="2:3600")
    world.registry.name(A, "a", "g1")
    world.registry.put(DeviceIdentity(id="a", parent="g1", type="slow"))
    content = named((A, V), (B, V), (A, V))

    assert send(world, content) == (3, [])
    assert send(world, content) == (1, [("quarantined", "rate_limited", 0), ("quarantined", "rate_limited", 2)])
    assert world.replayer.replay_selection(Selection()).replayed == 2


def test_children_of_a_type_over_its_limit_keep_no_neighbour_waiting(world) -> None:
    world.registry.put_type(name="slow", type_rate_limit="points 1:3600")
    for name, device in ((A, "a"), (B, "b")):
        world.registry.name(name, device, "g1")
        world.registry.put(DeviceIdentity(id=device, parent="g1", type="slow"))

    assert send(world, named((A, V), (B, V), (None, V))) == (2, [("quarantined", "rate_limited", 1)])


def test_points_count_for_the_children_and_the_message_for_its_gateway(world) -> None:
    world.registry.put_type(name="t", fields={"x": {"max": 5}})
    world.registry.name(A, "a", "g1")
    world.registry.put(DeviceIdentity(id="a", parent="g1", type="t"))
    content = named((A, {"x": 1.0}), (A, {"x": 2.0}), (None, {"x": 3.0}))

    send(world, content)

    used = world.reports.usage
    assert used.take_devices() == {("default", "g1"): [1, 1, len(content)], ("default", "a"): [0, 2, 0]}
    assert used.take_types() == {("default", ""): [1, 1, len(content)], ("default", "t"): [0, 2, 0]}


def test_names_a_sender_may_use_are_known_to_its_decoder(world) -> None:
    world.registry.name(A, "a", "g1")
    world.registry.put(DeviceIdentity(id="a", parent="g1"))

    assert send(world, named((A, V), asks=A)) == (1, [])
    assert send(world, named((A, V), asks=B)) == (0, [("quarantined", "no_values", None)])
    assert send(world, named((None, V), asks=A), "plain") == (0, [("quarantined", "no_values", None)])


def test_records_without_a_time_stay_apart_and_are_no_duplicates_of_each_other(world) -> None:
    send(world, named((A, V), (A, V)))

    first, second = world.commit.readings
    assert first.time_ns != second.time_ns
    assert first.content == second.content != 0


def test_numbers_of_a_child_are_its_own(world) -> None:
    send(world, named((A, V), (B, V), boot_id="b", seq=1, ts=T))

    assert [(reading.device, reading.boot_id, reading.seq) for reading in world.commit.readings] == [
        ("Sensor-A", "b", 1),
        ("Sensor.B", "b", 1),
    ]


def test_erased_child_takes_what_waits_of_it_along(world) -> None:
    world.registry.rules = "hold"
    send(world, named((A, V), (B, V)))

    assert world.quarantine.erase("Sensor-A") == 1
    assert waiting(world) == [("Sensor.B", "g1", "device_held", 1)]
    assert world.quarantine.totals()["quarantined"] == 1


def test_what_was_sent_over_http_is_told_by_record(world) -> None:
    world.registry.rules = "child_refused"

    receipt = post(world, named((A, V), (None, V)))

    assert (receipt.accepted, [(item.record, item.code) for item in receipt.quarantined]) == (1, [(0, "child_refused")])
