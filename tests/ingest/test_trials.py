"""What a version of a type would have done: the verdict of a trial is that of the real thing, and leaves no trace."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.message import Message
from ingest.protocols import PROTOCOLS
from ingest.quarantine import Item, RawMessage, Refused, Selection
from ingest.trials import Trials
from series import open_reader, open_writer
from tests.ingest.intake_support import World
from wire import clock
from wire.points import Point
from wire.schemas import ObserveRequest, TryRequest

S = clock.NS_PER_S


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    made.registry.put_type(name="g", version=1, fields={"t": {"max": 50}})
    for name in ("d1", "d2"):
        made.registry.add(name, type="g")
    yield made
    made.close()


@pytest.fixture
def trials(world: World, tmp_path: Path) -> Trials:
    return Trials(world.ports, PROTOCOLS, lambda: open_reader("embedded:", tmp_path))


def store(folder: Path, *points: Point) -> None:
    writer = open_writer("embedded:", folder)
    writer.write(points)
    writer.close()


def request(hours: float = 24, devices: tuple[str, ...] = ("d1", "d2"), **spec) -> TryRequest:
    return TryRequest.model_validate(
        {"spec": {"name": "g"} | spec, "devices": devices, "tenant": "default", "hours": hours}
    )


def send(world: World, content: bytes, device: str = "d1") -> None:
    message = Message(world.gate.find([device]).known[device], PROTOCOLS["json"], content, clock.now_ns())
    world.service.accept(message)


def test_stored_readings_that_would_be_refused_are_counted_and_shown(trials, tmp_path) -> None:
    now_ns = clock.now_ns()
    points = [Point("d1", "telemetry", now_ns - at * 600 * S, {"t": float(at)}) for at in range(1, 11)]
    store(tmp_path, *points, Point("d2", "telemetry", now_ns - S, {"t": 1.0, "extra": 1.0}))

    found = trials.run(request(fields={"t": {"max": 7}}, unknown_fields="quarantine")).traffic

    assert (found.readings, found.devices, found.refused_readings, found.refused_devices) == (11, 2, 4, 2)
    assert found.codes == {"unknown_field": 1, "out_of_range": 3}
    assert found.complete
    assert found.since == points[-1].time_ns
    assert [(e.device, e.field, e.code) for e in found.examples][:2] == [
        ("d2", "extra", "unknown_field"),
        ("d1", "t", "out_of_range"),
    ]
    assert found.examples[1].detail == "t: 10.0 is above 7"


def test_only_the_hours_and_devices_asked_for_are_looked_at(trials, tmp_path) -> None:
    now_ns = clock.now_ns()
    store(tmp_path, *[Point(f"d{at % 3}", "telemetry", now_ns - at * 3600 * S - S, {"t": 9.0}) for at in range(9)])

    assert trials.run(request(hours=4, devices=("d0", "d1"))).traffic.readings == 3
    assert trials.run(request(hours=4, devices=())).traffic.readings == 0
    assert trials.run(request(hours=0)).traffic is None


def test_missing_required_field_and_dropped_ones_are_told(trials, tmp_path) -> None:
    now_ns = clock.now_ns()
    store(
        tmp_path,
        Point("d1", "telemetry", now_ns - S, {"t": 1.0, "u": 2.0}),
        Point("d2", "telemetry", now_ns - S, {"u": 1.0}),
    )

    found = trials.run(request(fields={"t": {"required": True}}, unknown_fields="drop")).traffic

    assert (found.codes, found.lost_fields, found.refused_readings) == ({"missing_field": 1}, 1, 1)


def test_series_of_int_refuse_a_type_that_makes_them_float(trials, tmp_path) -> None:
    store(tmp_path, Point("d1", "telemetry", clock.now_ns() - S, {"n": 3}))

    found = trials.run(request(fields={"n": {"type": "float"}})).traffic

    assert found.codes == {"type_conflict": 1}


def test_a_bounded_trial_looks_at_the_newest_and_says_so(trials, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("ingest.trials.MAX_READINGS", 5)
    now_ns = clock.now_ns()
    store(tmp_path, *[Point("d1", "telemetry", now_ns - at * 600 * S - S, {"t": 1.0}) for at in range(20)])

    found = trials.run(request()).traffic

    assert not found.complete
    assert found.since >= now_ns - 8 * 3600 * S
    assert found.readings < 20


def test_waiting_entries_that_would_pass_are_told_and_left_alone(world, trials) -> None:
    for value in (b"60", b"70", b"90"):
        send(world, b'{"t":' + value + b"}")
    before = world.quarantine.page(Selection())

    found = trials.run(request(fields={"t": {"max": 80}})).quarantine

    assert (found.entries, found.would_pass, found.codes, found.devices) == (3, 2, {"out_of_range": 1}, 1)
    assert [example.code for example in found.examples] == ["out_of_range", "", ""]
    assert world.quarantine.page(Selection()) == before
    assert world.commit.readings == []


def test_waiting_data_of_held_devices_is_judged_as_if_accepted(world, trials) -> None:
    world.registry.add("h1", type="g", state="held")  # no version of the type was in force for the second one
    world.registry.add("h2", type="draft", state="held")
    for device, value in (("h1", b"60"), ("h1", b"90"), ("h2", b"70")):
        send(world, b'{"t":' + value + b"}", device)

    found = trials.run(request(devices=("h1", "h2"), fields={"t": {"max": 80}})).quarantine

    assert (found.entries, found.would_pass, found.codes, found.devices) == (3, 2, {"out_of_range": 1}, 2)
    assert world.commit.readings == []


def test_waiting_data_of_a_device_nobody_registered_is_judged_when_named(world, trials) -> None:
    for device, code in (("u1", "unknown_device"), ("u2", "unknown_device"), ("u1", "bad_json")):
        raw = RawMessage(device, "json", "mqtt", b'{"t":60}', clock.now_ns(), f"devices/{device}/telemetry")
        world.quarantine.add([Refused(raw, [Item(None, code, "")])])

    found = trials.run(request(devices=("u1",), fields={"t": {"max": 80}})).quarantine

    assert (found.entries, found.would_pass, found.codes) == (2, 1, {"unknown_device": 1})


def test_entries_that_another_type_refused_are_judged_by_the_devices_type(world, trials) -> None:
    world.registry.add("d3", type="g")
    send(world, b'{"t":60}', "d3")
    world.registry.add("d3", type="other")
    world.gate.poll()

    assert trials.run(request(devices=("d3",), name="other")).quarantine.would_pass == 1
    assert trials.run(request(devices=("d1",))).quarantine.entries == 0


def test_rehearsal_remembers_no_type_of_a_field(world, trials) -> None:
    send(world, b'{"t":60,"new":"text"}')  # the new field is taken and recorded as string
    send(world, b'{"t":60}')
    world.registry.put_type(name="g", version=2, fields={"t": {"max": 50}}, unknown_fields="quarantine")
    world.gate.poll()
    send(world, b'{"other":"text"}')

    trials.run(request())
    world.registry.put_type(name="g", version=3)
    world.gate.poll()
    send(world, b'{"other":5}')

    assert world.commit.readings[-1].fields == {"other": 5.0}


def test_observation_tells_fields_with_types_ranges_and_rhythm(trials, tmp_path) -> None:
    now_ns = clock.now_ns()
    points = [
        Point(
            name,
            "telemetry",
            now_ns - at * 10 * S - S,
            {"t": float(at), "on": at % 2 == 0} | ({"n": 1} if at == 3 else {}),
        )
        for at in range(30)
        for name in ("d1", "d2")
    ]
    store(tmp_path, *points)

    seen = trials.observe(ObserveRequest(devices=["d1", "d2"], tenant="default", hours=24))

    assert (seen.readings, seen.devices, seen.gap_s, seen.complete) == (60, 2, 10.0, True)
    assert (seen.fields["t"].types, seen.fields["t"].low, seen.fields["t"].high) == ({"float": 60}, 0.0, 29.0)
    assert (seen.fields["n"].types, seen.fields["n"].count) == ({"int": 2}, 2)
    assert seen.fields["on"].types == {"bool": 60}
