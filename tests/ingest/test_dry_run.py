"""A dry run slice by slice gives what one look at everything would, whatever the size of the slices."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import ingest.dry_run
from ingest.dry_run import DryRuns
from ingest.message import Message
from ingest.protocols import PROTOCOLS
from ingest.quarantine import Selection
from series import open_reader, open_writer
from tests.ingest.intake_support import World
from wire import clock
from wire.dry_runs import DeviceVerdict, Place, SliceRequest, WaitingRequest
from wire.errors import BadRequest
from wire.points import Point

S = clock.NS_PER_S
END_NS = 1_800_000_000 * S
HOUR_NS = 3_600 * S


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    made.registry.put_type(name="g", version=1, fields={"t": {"max": 50}})
    for name in ("d1", "d2"):
        made.registry.add(name, type="g")
    yield made
    made.close()


@pytest.fixture
def runs(world: World, tmp_path: Path, monkeypatch) -> DryRuns:
    monkeypatch.setattr(ingest.dry_run, "PAGE", 7)
    monkeypatch.setattr(ingest.dry_run, "SLICE_S", 0.0)  # every slice is one page
    return DryRuns(world.ports, PROTOCOLS, lambda: open_reader("embedded:", tmp_path))


@pytest.fixture
def stored(tmp_path: Path) -> list[Point]:
    """Two readings a minute over the last hour, the older half above 50 for d1; and what lies outside."""
    points = [
        Point(device, "telemetry", END_NS - at * 30 * S - 1, {"t": float(at) if device == "d1" else 1.0})
        for at in range(120)
        for device in ("d1", "d2")
    ]
    outside = [
        Point("d1", "telemetry", END_NS - 2 * HOUR_NS, {"t": 99.0}),
        Point("d1", "telemetry", END_NS, {"t": 99.0}),
        Point("d3", "telemetry", END_NS - S, {"t": 99.0}),
        Point("d1", "telemetry", END_NS - S, {"t": 99.0}, tenant="other"),
    ]
    writer = open_writer("embedded:", tmp_path)
    writer.write(points + outside)
    writer.close()
    return points


def place(**more) -> dict[str, object]:
    ends = {"start": clock.format_ns(END_NS - HOUR_NS), "end": clock.format_ns(END_NS)}
    return {"devices": ["d1", "d2"], "tenant": "default"} | ends | more


def judge(runs: DryRuns, **more) -> tuple[dict[str, DeviceVerdict], int]:
    """Judge to the end; give the sums by device, and the number of slices."""
    cursor: str | None = ""
    sums: dict[str, DeviceVerdict] = {}
    slices = 0
    while cursor is not None:
        spec = {"name": "g", "fields": {"t": {"max": 60}}, "unknown_fields": "quarantine"}
        found = runs.judge(SliceRequest.model_validate(place(spec=spec, cursor=cursor, **more)))
        for device, each in found.devices.items():
            known = sums.setdefault(device, DeviceVerdict())
            known.readings += each.readings
            known.refused += each.refused
        cursor, slices = found.next, slices + 1
    return sums, slices


def test_slices_together_judge_each_reading_of_the_span_once(runs, stored) -> None:
    sums, slices = judge(runs)

    assert {device: (each.readings, each.refused) for device, each in sums.items()} == {"d1": (120, 59), "d2": (120, 0)}
    assert slices > 30
    assert runs.count(Place.model_validate(place())).readings == 240


def test_sample_is_of_whole_minutes_and_the_same_each_time(runs, stored) -> None:
    sums, _ = judge(runs, sample=0.4)
    again, _ = judge(runs, sample=0.4)

    assert sums == again
    assert sums["d1"].readings == sums["d2"].readings
    assert 0 < sums["d1"].readings < 80


def test_examples_tell_each_reason_though_one_is_everywhere(runs, stored, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(ingest.dry_run, "PAGE", 1_000)  # all of it in one slice
    writer = open_writer("embedded:", tmp_path)
    writer.write([Point("d2", "telemetry", END_NS - 2, {"extra": 1.0})])
    writer.close()
    spec = {"name": "g", "fields": {"t": {"max": -1}}, "unknown_fields": "quarantine"}

    found = runs.judge(SliceRequest.model_validate(place(spec=spec)))

    assert [each.code for each in found.examples] == ["out_of_range"] * 5 + ["unknown_field"]
    assert found.devices["d2"].codes == {"out_of_range": 120, "unknown_field": 1}
    assert found.next is None


def test_cursor_of_somebody_else_is_refused(runs, stored) -> None:
    with pytest.raises(BadRequest):
        runs.judge(SliceRequest.model_validate(place(spec={"name": "g"}, cursor="x y")))


def test_waiting_messages_are_judged_once_and_stay(world, runs) -> None:
    for content in (b'[{"t":60},{"t":70}]', b'{"t":90}', b'{"t":55}'):
        known = world.gate.find(["d1"]).known["d1"]
        world.service.accept(Message(known, PROTOCOLS["json"], content, clock.now_ns()))
    before = world.quarantine.page(Selection())

    verdicts, number = [], None
    while True:
        asked = {"spec": {"name": "g", "fields": {"t": {"max": 65}}}, "devices": ["d1"], "tenant": "default"}
        found = runs.judge_waiting(WaitingRequest.model_validate(asked | {"before": number}))
        verdicts += list(found.devices.values())
        if (number := found.next) is None:
            break

    assert [each.readings for each in verdicts] == [1, 1, 2]
    assert sum(each.refused for each in verdicts) == 2
    assert world.quarantine.page(Selection()) == before
