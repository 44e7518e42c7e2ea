"""Dry runs as jobs: all of it is judged, whatever happens on the way, and the report says of how much."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

import devices.types.dry_run
from devices.jobs.service import Jobs, Runner
from devices.jobs.store import JobStore
from devices.rows import Who
from devices.types.dry_run import JOB_KIND, MAX_LIVE, DryRuns
from devices.types.service import DeviceTypes
from devices.types.store import TypeStore
from wire import clock
from wire.dry_runs import Counted, DeviceVerdict, DryRunRequest, Slice, WaitingSlice
from wire.errors import Conflict, NotFound, PeerUnavailable, Unprocessable
from wire.schemas import Example

BY = ("default", Who("token:tests"))
SPEC = {"fields": {"p": {"max": 6}}}
DAY_NS = 86_400 * clock.NS_PER_S


class FakeIngest:
    """Judges three slices of each chunk of devices: two of five readings of each device in a slice are refused."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.is_away = False

    def call(self, _method: str, path: str, body: Any = None, *, token: str | None = None) -> Any:
        if self.is_away:
            raise PeerUnavailable("away for the test")
        what = path.rpartition(":")[2]
        self.asked.append((what, body))
        return getattr(self, what.replace("-", "_"))(body).model_dump(mode="json")

    def count(self, body: Any) -> Counted:
        return Counted(readings=len(body["devices"]) * 5)

    def judge(self, body: Any) -> Slice:
        number = int(body["cursor"] or 0) + 1
        verdict = DeviceVerdict(readings=5, refused=2, codes={"out_of_range": 2})
        example = Example(device=body["devices"][0], time=0, field="p", code="out_of_range", detail="p: 9 is above 6")
        return Slice(
            devices=dict.fromkeys(body["devices"], verdict), lost_fields=1, examples=[example] * 3, since=None,
            next=str(number) if number < 3 else None,
        )  # fmt: skip

    def judge_waiting(self, body: Any) -> WaitingSlice:
        verdict = DeviceVerdict(readings=1, refused=1, codes={"bad_json": 1})
        return WaitingSlice(devices={body["devices"][0]: verdict}, examples=[], next=None if body["before"] else 7)


class World:
    def __init__(self, service) -> None:
        database = service.app.extensions["headwater.database"]
        service.app.extensions["headwater.workers"].stop()  # the turns are taken here, one by one
        self.rows, self.ingest, types = JobStore(database), FakeIngest(), TypeStore(database)
        self.runs = DryRuns(DeviceTypes(types), types, self.rows, self.ingest)
        kinds = {JOB_KIND: self.runs.kind()}
        self.jobs, self.runner = Jobs(self.rows, kinds), Runner(self.rows, kinds)

    def start(self, name: str = "pump", **more: Any) -> Any:
        wanted = DryRunRequest.model_validate({"spec": SPEC, "hours": 48} | more)
        return self.runs.start(self.jobs, name, wanted, BY)

    def take_turn(self) -> None:
        for job in self.rows.due(2**62):
            self.runner.take_turn(job)

    def finish(self, job: Any, turns: int = 100) -> Any:
        for _ in range(turns):
            self.take_turn()
        return self.jobs.find("default", job.id)


@pytest.fixture
def world(service, monkeypatch) -> World:
    monkeypatch.setattr(devices.types.dry_run, "MAX_DEVICES", 2)
    for name in ("p1", "p2", "p3"):
        service.register(name, type="pump")
    service.register("t1", type="tank")
    return World(service)


def test_all_readings_of_all_devices_are_judged_and_told(world) -> None:
    job = world.finish(world.start())

    found = job.result
    assert (job.state, job.done, job.total, job.error) == ("done", 45, 45, None)
    assert (found["readings"], found["stored"], found["devices"]) == (45, 30, 3)  # the fake counts 5 a device and day
    assert (found["refused_readings"], found["refused_devices"], found["lost_fields"]) == (18, 3, 6)
    assert (found["codes"], found["code_devices"]) == ({"out_of_range": 18}, {"out_of_range": 3})
    assert (found["waiting"], found["would_pass"], len(found["examples"])) == (4, 0, 5)
    assert [each["device"] for each in found["worst"]] == ["p1", "p2", "p3"]
    lines = [orjson.loads(line) for line in "".join(world.rows.read_output(job.id)).splitlines()]
    assert [(each["device"], each["readings"], each["refused"], each["waiting"]) for each in lines] == [
        ("p1", 15, 6, 2),
        ("p2", 15, 6, 0),
        ("p3", 15, 6, 2),
    ]
    spans = {(body["start"], body["end"]) for what, body in world.ingest.asked if what == "count"}
    assert len(spans) == 2  # a day each


def test_run_goes_on_where_it_was_when_ingestion_was_away_or_the_registry_restarted(world) -> None:
    job = world.start()
    for _ in range(6):
        world.take_turn()
    halfway = world.jobs.find("default", job.id)
    world.ingest.is_away = True
    for _ in range(7):
        world.take_turn()
    world.ingest.is_away = False
    world.runner = Runner(world.rows, {JOB_KIND: world.runs.kind()})  # a new process knows what the database says

    over = world.finish(job)

    assert 0 < halfway.done < 45
    assert (over.state, over.result["readings"], over.result["refused_readings"]) == ("done", 45, 18)


def test_cancelled_run_ends_with_what_it_found_so_far(world) -> None:
    job = world.start()
    for _ in range(7):
        world.take_turn()

    world.jobs.cancel("default", job.id, BY[1])
    over = world.finish(job, 2)

    assert over.state == "cancelled"
    assert 0 < over.result["readings"] < 45


def test_named_devices_and_a_sample_are_passed_on(world) -> None:
    job = world.finish(world.start(devices=["t1"], sample=0.5, hours=1))

    slices = [body for what, body in world.ingest.asked if what == "judge"]
    assert {(tuple(body["devices"]), body["sample"]) for body in slices} == {(("t1",), 0.5)}
    assert (job.spec, job.result["sample"]) == ({"type": "pump", "version": None, "hours": 1, "sample": 0.5}, 0.5)
    span_ns = clock.parse_time(job.result["end"]) - clock.parse_time(job.result["start"])
    assert span_ns == DAY_NS // 24


def test_what_cannot_be_run_is_refused_at_once(world) -> None:
    with pytest.raises(Unprocessable, match="no device has the type"):
        world.start("boiler")
    with pytest.raises(NotFound):
        world.start(spec=None, version=3)
    with pytest.raises(Unprocessable, match="above max"):
        world.start(spec={"fields": {"p": {"min": 3, "max": 1}}})


def test_few_runs_of_a_tenant_wait_at_a_time(world) -> None:
    for _ in range(MAX_LIVE):
        world.start()

    with pytest.raises(Conflict) as refused:
        world.start()

    assert refused.value.code == "too_many_dry_runs"


def test_route_answers_with_a_job_that_a_viewer_may_not_start(service) -> None:
    service.register("p9", type="pump")

    answer = service.admin("POST", "/v1/device-types/pump:dry-run", {"spec": SPEC})

    assert (answer.status_code, answer.json["kind"]) == (202, JOB_KIND)
    assert service.caller("viewer")("POST", "/v1/device-types/pump:dry-run", {"spec": SPEC}).status_code == 403
