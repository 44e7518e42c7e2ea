from __future__ import annotations

import pytest

from devices.enrolment.holds import KEPT_S, HoldStore
from tests.devices.running import Caller, Service
from wire import clock
from wire.clock import NS_PER_S


@pytest.fixture
def service(config):
    started = Service(config)
    started.admin("POST", "/v1/enrolments", {"name": "hall", "policy": "hold", "max_devices": 10})
    yield started
    started.stop()


def come(service: Service, device_id: str) -> None:
    made = service.admin("POST", "/v1/enrolments", {"name": f"by-{device_id}", "policy": "hold"}).json["secret"]
    answer = Caller(service.app, made)("POST", "/v1/enrol", {"id": device_id, "hardware": {"board": "r2"}})
    assert (answer.status_code, answer.json["state"]) == (201, "held")


def state_of(service: Service, device_id: str) -> str:
    return str(service.admin("GET", f"/v1/devices/{device_id}").json["state"])


def test_held_device_is_listed_with_how_it_came(service) -> None:
    come(service, "d1")
    service.register("other")

    [item] = service.admin("GET", "/v1/holds").json["items"]

    assert (item["id"], item["source"], item["hardware"]) == ("d1", "token:by-d1", {"board": "r2"})
    found = service.internal("POST", "/internal/devices:lookup", {"ids": ["d1"]}).json["devices"][0]
    assert (found["state"], len(found["credentials"])) == ("held", 1)


def test_accepted_device_is_like_any_other_and_refused_one_is_disabled(service) -> None:
    come(service, "d1")
    come(service, "d2")
    service.register("other")

    accepted = service.admin("POST", "/v1/holds:accept", {"ids": ["d1", "other", "nobody"]})
    refused = service.admin("POST", "/v1/holds:refuse", {"ids": ["d2", "d1"]})

    assert (accepted.json, refused.json) == ({"decided": ["d1"]}, {"decided": ["d2"]})
    assert [state_of(service, name) for name in ("d1", "d2", "other")] == ["registered", "disabled", "registered"]
    assert service.admin("GET", "/v1/holds").json["items"] == []
    actions = [item["action"] for item in service.admin("GET", "/v1/audit").json["items"]]
    assert {"hold.accept", "hold.refuse"} <= set(actions)


def test_device_nobody_decides_about_is_refused_in_the_end(service) -> None:
    come(service, "d1")
    holds = HoldStore(service.app.extensions["headwater.database"])

    assert holds.expire(clock.now_ns()) == 0
    assert holds.expire(clock.now_ns() + (KEPT_S + 60) * NS_PER_S) == 1
    assert state_of(service, "d1") == "disabled"
