"""ThingsBoard's device API for attributes and RPC, as its clients ask it."""

from __future__ import annotations

from functools import partial

import pytest

from tests.devices.running import Service
from tests.support.tiny_loop import TinyLoop
from wire import clock


class Thing:
    """A device that knows ThingsBoard's API only."""

    def __init__(self, service: Service, device_id: str = "d1") -> None:
        self._service = service
        self.base = f"/api/v1/{device_id}.{service.register(device_id)}"

    def get(self, path: str):
        return self._service.nobody("GET", f"{self.base}/{path}")

    def post(self, path: str, body):
        return self._service.nobody("POST", f"{self.base}/{path}", body)


@pytest.fixture
def thing(service) -> Thing:
    return Thing(service)


def send(service, name: str = "setGpio", **more) -> str:
    return str(service.admin("POST", "/v1/devices/d1/commands", {"name": name} | more).json["id"])


def shown(service, command_id: str) -> tuple[str, object, object]:
    command = service.admin("GET", f"/v1/commands/{command_id}").json
    return command["state"], command["result"], command["error"]


def wish(service, patch) -> None:
    assert service.admin("PATCH", "/v1/devices/d1/twin/desired", patch).status_code == 200


def test_attributes_are_the_twin(service, thing) -> None:
    wish(service, {"interval": 5, "cfg": {"a": 1}, "led": True})

    assert thing.post("attributes", {"fw": "1.2", "ip": "10.0.0.1", "n": {"x": [1]}}).status_code == 200
    everything = thing.get("attributes").json
    some = thing.get("attributes?clientKeys=fw,none&sharedKeys=cfg,led").json
    repeated = thing.get("attributes?sharedKeys=cfg&sharedKeys=led").json

    assert everything == {
        "client": {"fw": "1.2", "ip": "10.0.0.1", "n": {"x": [1]}},
        "shared": {"interval": 5, "cfg": {"a": 1}, "led": True},
    }
    assert some == {"client": {"fw": "1.2"}, "shared": {"cfg": {"a": 1}, "led": True}}
    assert repeated == {"shared": {"cfg": {"a": 1}, "led": True}}
    assert thing.get("attributes?clientKeys=none").json == {}
    assert service.admin("GET", "/v1/devices/d1/twin").json["reported"]["fw"] == "1.2"


def test_update_of_shared_attributes_comes_to_who_waits(service, thing) -> None:
    wish(service, {"interval": 5, "led": True, "gone": 1})
    loop, answers = TinyLoop(), []
    loop.begin(lambda: answers.append(thing.get("attributes/updates?timeout=20000")))
    loop.run_until(lambda: any(loop.parked))

    wish(service, {"interval": 9, "new": None, "gone": None, "more": 1})
    loop.run_until(lambda: answers)

    assert answers[0].json == {"interval": 9, "more": 1, "deleted": ["gone"]}
    assert thing.get("attributes/updates?timeout=1").status_code == 408


def test_rpc_is_a_command_and_its_answer_the_result(service, thing) -> None:
    first = send(service, params={"pin": 7, "on": True})
    second = send(service, "getTemperature")

    asked = thing.get("rpc?timeout=1000").json
    assert (asked["method"], asked["params"]) == ("setGpio", {"pin": 7, "on": True})
    assert isinstance(asked["id"], int)
    assert thing.get("rpc?timeout=1").status_code == 408  # the next after the end of this one
    assert shown(service, first)[0] == "sent"
    assert service.admin("GET", f"/v1/commands/{first}").json["via"] == "thingsboard"
    assert thing.post(f"rpc/{asked['id']}", {"ok": 1}).status_code == 200
    again = thing.get("rpc").json
    thing.post(f"rpc/{again['id']}", {"error": "no sensor"})

    assert shown(service, first) == ("succeeded", {"ok": 1}, None)
    assert (again["method"], shown(service, second)) == ("getTemperature", ("failed", None, "no sensor"))


def test_rpc_comes_to_who_waits_one_at_a_time(config) -> None:
    service = Service(config.model_copy(update={"command_window": 2}))
    try:
        thing = Thing(service)
        loop, answers = TinyLoop(), []
        loop.begin(lambda: answers.append(thing.get("rpc")))
        loop.run_until(lambda: any(loop.parked))

        ids = [send(service, "a"), send(service, "b")]
        loop.run_until(lambda: answers)

        assert answers[0].json["method"] == "a"
        assert [shown(service, id_)[0] for id_ in ids] == ["sent", "queued"]
        assert thing.get("rpc").json["method"] == "b"
    finally:
        service.stop()


def test_answer_to_no_command_of_this_device_is_404(service, thing) -> None:
    other = Thing(service, "d2")
    send(service)
    number = thing.get("rpc").json["id"]

    for caller, wrong in ((other, number), (thing, number + 1), (thing, number - 1), (thing, "x"), (thing, "9" * 30)):
        refused = caller.post(f"rpc/{wrong}", {})
        assert (refused.status_code, refused.json["code"]) == (404, "command_not_found")
    assert thing.post(f"rpc/{number}", {}).status_code == 200


@pytest.mark.parametrize("path", ["attributes", "attributes/updates?timeout=1", "rpc?timeout=1"])
def test_wrong_token_is_401_and_a_disabled_device_403(service, thing, path) -> None:
    ask = partial(service.nobody, "GET")

    assert ask(f"/api/v1/d1.wrong/{path}").status_code == 401
    assert ask(f"/api/v1/nothing/{path}").status_code == 401
    service.admin("POST", "/v1/devices/d1:disable")
    assert thing.get(path).status_code == 403


def test_odd_requests_are_refused(thing) -> None:
    assert thing.get("rpc?timeout=soon").json["code"] == "bad_request"
    assert thing.post("attributes", [1]).status_code == 422 or thing.post("attributes", [1]).status_code == 400


def test_device_asks_the_server_for_the_time(thing) -> None:
    before_ms = clock.now_ns() // clock.NS_PER_MS

    told = thing.post("rpc", {"method": "getCurrentTime", "params": {}})
    limits = thing.post("rpc", {"method": "getSessionLimits"}).json

    assert before_ms <= told.json <= clock.now_ns() // clock.NS_PER_MS
    assert limits["maxInflightMessages"] == 100


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("rpc", {"method": "openDoor"}, "unsupported"),
        ("rpc", {"params": {}}, "bad_structure"),
        ("claim", {"secretKey": "s", "durationMs": 1}, "unsupported"),
    ],
)
def test_what_there_is_not_is_refused_in_words(service, thing, path, body, code) -> None:
    refused = thing.post(path, body)

    assert (refused.status_code, refused.json["code"]) == (400, code)
    assert service.nobody("POST", f"/api/v1/d1.wrong/{path}", body).status_code == 401
