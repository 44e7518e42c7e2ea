"""The device is told the truth on every transport: the same input gives the same codes over HTTP and over MQTT."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import paho.mqtt.client as paho
import pytest

from tests.e2e.platform import Device, Installation
from tests.support.waiting import wait_until

pytestmark = pytest.mark.e2e

DAY_MS = 86_400_000
NOW_MS = int(time.time() * 1_000)


class Case(NamedTuple):
    """What a device sends, and the type it has."""

    content: bytes
    type: dict[str, Any] | None = None
    protocol: str = ""
    is_worded_alike: bool = True  # not where the detail holds the time of arrival, or what was too large
    rules: dict[str, Any] | None = None  # of the gateway that brings it for a child


def of_fields(**fields: Any) -> dict[str, Any]:
    return {"fields": fields}


CASES = {
    "bad_encoding": Case(b'{"a":"\xe4"}'),
    "bad_syntax": Case(b'{"a":'),
    "bad_structure": Case(b"21.5"),
    "trailing_data": Case(b'{"a":1} x'),
    "too_deep": Case(b'{"a":' * 20 + b"1" + b"}" * 20),
    "too_many_fields": Case(json.dumps({f"f{n}": n for n in range(257)}).encode()),
    "too_large": Case(
        json.dumps({"a": "x" * 256 * 1024}).encode(), is_worded_alike=False
    ),  # a little more and the broker closes the connection
    "unsupported": Case(b"{}", protocol="morse"),
    "bad_name": Case(b'{"":1}'),
    "bad_value": Case(b'{"ts":1,"boot_id":"b","seq":-1,"values":{"a":1}}'),
    "no_values": Case(b"{}"),
    "version": Case(b'[{"bver":11,"n":"a","v":1}]', protocol="senml"),
    "must_understand": Case(b'[{"n":"a","v":1,"x_":1}]', protocol="senml"),
    "bad_time": Case(b'{"ts":"noon","a":1}'),
    "too_old": Case(json.dumps({"ts": NOW_MS - DAY_MS, "a": 1}).encode(), {"time_back_s": 60}, is_worded_alike=False),
    "too_new": Case(json.dumps({"ts": NOW_MS + DAY_MS, "a": 1}).encode(), {"time_ahead_s": 60}, is_worded_alike=False),
    "out_of_range": Case(b'{"a":900}', of_fields(a={"max": 85})),
    "nonfinite": Case(b'{"a":1e400}'),
    "type_conflict": Case(b'{"a":"warm"}', of_fields(a={"type": "float"})),
    "missing_field": Case(b'{"b":1}', of_fields(a={"required": True})),
    "unknown_field": Case(b'{"b":1}', of_fields(a={}) | {"unknown_fields": "quarantine"}),
    "device_held": Case(b'{"a":1}', rules={"children": "hold"}),
    "child_refused": Case(b'{"a":1}', rules={"children": "refuse"}),
    "too_many_children": Case(b'{"a":1}', rules={"max_children": 0}),
}
REFUSED = ("too_large", "child_refused", "too_many_children")  # not even kept
MIXED = Case(
    json.dumps([{"a": 1}, {"a": 900, "b": 1}, 5, {"ts": "noon", "a": 1}, {"a": 2, "b": 2}]).encode(),
    of_fields(a={"max": 85}, b={"max": 1}),
)
ONE_TRANSPORT = {
    "media_type": "MQTT has no content type: the topic names the protocol",
    "identity_mismatch": "the broker lets a device publish on its own branch only",
    "unknown_device": "the broker lets no stranger in; over HTTP it is a 401",
    "device_disabled": "the broker closes the connection of a disabled device",
    "bad_topic": "the bridge listens to topics of telemetry only",
    "not_born": "Sparkplug is MQTT only",
    "unknown_alias": "Sparkplug is MQTT only",
    "retained": "HTTP retains nothing",
    "rate_limited": "over MQTT a message is acknowledged late instead (test_overload)",
    "codec": "only bytes of a LoRaWAN server have a codec (tests/ingest/lorawan/test_codecs.py)",
    "store_refused": "the store says it, after the acknowledgement",
}


def documented() -> set[str]:
    page = (Path(__file__).parents[2] / "docs/errors.md").read_text().partition("## Codes of data")[2]
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    return {code for row in rows for code in re.findall(r"`(\w+)`", row)}


def child_of(gateway: Device) -> str:
    return f"{gateway.id}-child"


class Listener:
    """A device on MQTT that keeps the notices it gets."""

    def __init__(self, installation: Installation, device: Device) -> None:
        self.told: list[dict[str, Any]] = []
        self._device = device
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=device.id)
        self._client.username_pw_set(device.id, device.secret)
        self._client.on_message = lambda _c, _u, message: self.told.append(json.loads(message.payload))
        self._client.on_connect = lambda client, *_: client.subscribe(f"devices/{device.id}/errors")
        subscribed: list[int] = []
        self._client.on_subscribe = lambda *_: subscribed.append(1)
        self._client.connect("127.0.0.1", installation.mqtt)
        self._client.loop_start()
        wait_until(lambda: subscribed, 5, what="subscribed")

    def publish(self, case: Case) -> None:
        owner = self._device.id if case.rules is None else f"{self._device.id}/children/{child_of(self._device)}"
        topic = f"devices/{owner}/telemetry" + (f"/{case.protocol}" if case.protocol else "")
        self._client.publish(topic, case.content, qos=1).wait_for_publish(5)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture(scope="module")
def fleet(installation: Installation) -> dict[str, Device]:
    """A device for each case, of a type of its own where the case needs one."""
    rows = ["id,type,gateway"]
    for name, case in (CASES | {"mixed": MIXED}).items():
        if case.type is not None:
            answer = installation.call("PUT", f"/v1/device-types/truth-{name}", case.type)
            assert answer.status == 201, answer
        named = f"truth-{name}" if case.type is not None else ""
        rows.append(f"truth-{name},{named},{'' if case.rules is None else 'true'}")
    answer = installation.call("POST", "/v1/devices:import", "\n".join(rows).encode(), Content_Type="text/csv")
    devices = {
        each["device"]: Device(each["device"], each["secret"], each["bearer"]) for each in answer.body["credentials"]
    }
    for name, case in CASES.items():
        if case.rules is not None:
            assert installation.call("PUT", f"/v1/devices/truth-{name}/gateway", case.rules).status == 200
    installation.wait_for_broker(devices["truth-mixed"])
    return devices


@pytest.fixture
def listener(
    request: pytest.FixtureRequest, installation: Installation, fleet: dict[str, Device]
) -> Iterator[Listener]:
    name = request.node.callspec.params["code"] if hasattr(request.node, "callspec") else "mixed"
    made = Listener(installation, fleet[f"truth-{name}"])
    yield made
    made.close()


def over_http(installation: Installation, device: Device, case: Case) -> Any:
    path = f"/v1/telemetry/{case.protocol}" if case.protocol else "/v1/telemetry"
    path += "" if case.rules is None else f"?device={child_of(device)}"
    return installation.post(device, case.content, path)


def told_of(found: dict[str, Any], *, with_detail: bool) -> tuple[Any, ...]:
    return (found["code"], found.get("index", 0), found.get("field"), found["detail"] if with_detail else None)


def test_every_documented_code_is_tried_or_has_a_reason() -> None:
    assert documented() == CASES.keys() | ONE_TRANSPORT.keys()


@pytest.mark.parametrize("code", CASES)
def test_same_input_is_told_alike_over_both_transports(installation, fleet, listener, code) -> None:
    case, device = CASES[code], fleet[f"truth-{code}"]

    answer = over_http(installation, device, case)
    listener.publish(case)
    wait_until(lambda: listener.told, 5, what="the notice")

    [said] = answer.body.get("quarantined", [answer.body])
    assert said["code"] == code
    [notice] = listener.told
    with_detail = case.is_worded_alike
    assert told_of(notice, with_detail=with_detail) == told_of(said, with_detail=with_detail)
    assert notice.keys() - {"index", "field"} == {"code", "detail", "time", "topic", "end"}
    assert notice["end"] == ("refused" if code in REFUSED else "quarantined")


def test_every_fault_of_a_mixed_message_is_told_alike(installation, fleet, listener) -> None:
    answer = over_http(installation, fleet["truth-mixed"], MIXED)
    listener.publish(MIXED)
    wait_until(lambda: len(listener.told) == 4, 5, what="the notices")

    assert (answer.status, answer.body["accepted"]) == (202, 3)
    assert [told_of(each, with_detail=True) for each in listener.told] == [
        told_of(each, with_detail=True) for each in answer.body["quarantined"]
    ]
    assert [(each["code"], each["index"], each.get("field")) for each in listener.told] == [
        ("bad_structure", 2, None), ("bad_time", 3, None), ("out_of_range", 1, "a"), ("out_of_range", 4, "b"),
    ]  # fmt: skip
