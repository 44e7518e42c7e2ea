from __future__ import annotations

from typing import Any

import pytest

from devices.rows import Who
from devices.types.checks import Checks
from devices.types.service import DeviceTypes
from devices.types.store import TypeStore
from wire.descriptions import FieldDescription
from wire.devices import DeviceTypeSpec
from wire.errors import PeerUnavailable, Unprocessable
from wire.schemas import CheckRequest, DryRun, LearnRequest, Observation, QuarantineReport, TrafficReport

ME = Who("token:tests")
WIDE = DeviceTypeSpec.model_validate({"fields": {"p": {"max": 10}}})
NARROW = DeviceTypeSpec.model_validate({"fields": {"p": {"max": 6}}})
TRAFFIC = {"readings": 9, "devices": 1, "refused_readings": 3, "refused_devices": 1, "lost_fields": 0}
WAITING = {"entries": 0, "devices": 0, "would_pass": 0, "codes": {}, "examples": [], "complete": True}


class FakeIngest:
    """Answers trials; `asked` holds what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.is_away = False
        self.readings = 20

    def call(self, _method: str, path: str, body: Any = None, *, token: str | None = None) -> Any:
        self.asked.append((path, body))
        if self.is_away:
            raise PeerUnavailable("away for the test")
        if path.endswith(":observe"):
            fields = {"p": {"types": {"float": self.readings}, "count": self.readings, "low": 1, "high": 5}}
            return Observation(readings=self.readings, devices=1, gap_s=5, fields=fields, complete=True).model_dump()
        traffic = TrafficReport(**TRAFFIC, codes={"out_of_range": 3}, examples=[], since=None, complete=True)
        return DryRun(traffic=traffic, quarantine=QuarantineReport(**WAITING)).model_dump(mode="json")


class World:
    def __init__(self, service) -> None:
        rows = TypeStore(service.app.extensions["headwater.database"])
        self.types = DeviceTypes(rows)
        self.ingest = FakeIngest()
        self.checks = Checks(self.types, rows, self.ingest, self)

    def of(self, _tenant, _devices):
        return {"p1": [FieldDescription(measurement="m", field="p", unit="bar")]}

    def check(self, **members):
        return self.checks.check("default", "pump", CheckRequest(**members))


@pytest.fixture
def world(service) -> World:
    service.register("p1", type="pump")
    service.register("t1", type="tank")
    return World(service)


def test_check_compares_with_what_is_in_force_and_tries_the_devices_of_the_type(world) -> None:
    world.types.put("default", "pump", WIDE, ME)

    found = world.check(spec=NARROW, hours=3)

    assert (found.before, found.after, found.compatible) == (1, None, False)
    assert [(change.path, change.code) for change in found.changes] == [("fields.p.max", "out_of_range")]
    assert (found.traffic.refused_readings, found.traffic.readings) == (3, 9)
    path, asked = world.ingest.asked[0]
    assert (path, asked["devices"], asked["hours"]) == ("/internal/types:try", ["p1"], 3)
    assert (asked["spec"]["name"], asked["spec"]["fields"]["p"]["max"]) == ("pump", 6)


def test_check_of_a_version_against_another(world) -> None:
    world.types.put("default", "pump", WIDE, ME)
    world.types.put("default", "pump", NARROW, ME)

    found = world.check(version=1, against=2)

    assert (found.before, found.after, found.compatible) == (2, 1, True)


def test_type_that_is_not_there_yet_is_compared_with_no_rules(world) -> None:
    found = world.check(spec=NARROW)

    assert found.before is None
    assert [change.path for change in found.changes] == ["fields.p"]


def test_check_without_ingestion_gives_the_comparison_and_says_so(world) -> None:
    world.types.put("default", "pump", WIDE, ME)
    world.ingest.is_away = True

    found = world.check(spec=NARROW)

    assert (found.compatible, found.traffic, found.note) == (False, None, "no dry run: away for the test")


@pytest.mark.parametrize("members", [{}, {"spec": WIDE, "version": 1}])
def test_check_takes_a_spec_or_a_version(world, members) -> None:
    with pytest.raises(Unprocessable):
        world.check(**members)


def test_learned_version_is_a_draft_made_from_the_devices_named(world) -> None:
    found = world.checks.learn("default", "pump", LearnRequest(devices=["t1"], hours=2, note="first"), ME)

    assert world.ingest.asked == [("/internal/types:observe", {"devices": ["t1"], "tenant": "default", "hours": 2})]
    assert found.draft.spec.fields["p"].unit == "bar"
    assert (found.draft.state, found.draft.origin, found.draft.note) == ("draft", "learned", "first")
    assert found.draft.spec.fields["p"].required
    assert found.readings == 20


def test_nothing_is_learned_from_silence(world) -> None:
    world.ingest.readings = 0

    with pytest.raises(Unprocessable, match="nothing is stored"):
        world.checks.learn("default", "pump", LearnRequest(), ME)


def test_routes_answer_while_ingestion_is_away(service) -> None:
    service.admin("PUT", "/v1/device-types/pump", WIDE.model_dump())

    checked = service.admin("POST", "/v1/device-types/pump:check", {"spec": NARROW.model_dump(), "hours": 1})
    learned = service.admin("POST", "/v1/device-types/pump:learn", {})

    assert (checked.status_code, checked.json["compatible"], checked.json["traffic"]) == (200, False, None)
    assert (learned.status_code, learned.json["code"]) == (503, "peer_unavailable")
