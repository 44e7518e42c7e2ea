"""Real payloads through MQTT and through HTTP into the store and back out of the query API, field by field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.platform import Answer, Device, Installation
from tests.support.waiting import wait_until
from wire import clock
from wire.errors import REASONS

ROOT = Path(__file__).parent.parent.parent
SOURCES = (ROOT / "tests/cases", ROOT.parent / "shared/fixtures")
pytestmark = pytest.mark.e2e


def cases_in(protocol: str) -> dict[str, Path]:
    """Cases of a protocol by name: the project's own, and those beside it when they are there."""
    folders = [source / protocol for source in SOURCES if (source / protocol).is_dir()]
    return {path.name: path for folder in folders for path in sorted(folder.iterdir()) if path.is_dir()}


def expectation(case: Path) -> dict[str, Any]:
    named = next(path for name in ("expected.json", "mapped.json") if (path := case / name).exists())
    return json.loads(named.read_text())


def doors(case: Path) -> list[dict[str, Any]]:
    request = json.loads((case / "request.json").read_text())
    return request.get("any_of", [request])


def flat(points: list[dict[str, Any]], sent_ns: tuple[int, int]) -> set[tuple[str, str, str, str]]:
    """(measurement, time, field, typed value) of all points; a time between sending and now reads `received`."""
    found = set()
    for point in points:
        time = point["time"]
        if time != "received":
            time_ns = clock.parse_time(time)
            time = "received" if sent_ns[0] <= time_ns <= sent_ns[1] else str(time_ns)
        found |= {
            (point["measurement"], time, name, f"{type(value).__name__} {value!r}")
            for name, value in point["fields"].items()
        }
    return found


LATER = "benchmark_two_records"  # device types do not say yet where in a message the records are
CASES = {
    name: path for protocol in ("json", "cbor", "msgpack") for name, path in cases_in(protocol).items() if name != LATER
}
CHOSEN = [(name, number) for name in sorted(CASES) for number in range(len(doors(CASES[name])))]


def deliver(installation: Installation, device: Device, way: dict[str, Any], content: bytes) -> Answer | None:
    """Send by the door a case names; the answer of HTTP."""
    if "mqtt" in way:
        installation.wait_for_broker(device)
        assert (
            installation.publish(device, way["mqtt"]["topic"].replace("{device}", device.id), content).returncode == 0
        )
        return None
    headers = {name.replace("-", "_"): value for name, value in way["http"]["headers"].items()}
    return installation.post(device, content, way["http"]["path"].replace("{token}", device.bearer), **headers)


def codes(found: list[dict[str, Any]]) -> list[tuple[int, str]]:
    return [(each["index"], each["code"]) for each in found]


def check_kept(installation: Installation, device: Device, expected: dict[str, Any], before_ns: int) -> None:
    """Wait until the store holds the expected points, and the quarantine the expected codes, and nothing else."""

    def arrived() -> bool:
        now = (before_ns, clock.now_ns())
        return flat(installation.points(device.id), now) == flat(expected["points"], now)

    wait_until(arrived, 5, what=f"{expected['points']} but have {installation.points(device.id)}")
    wanted = sorted(q["code"] for q in expected.get("quarantined", []))
    wait_until(lambda: sorted(q["code"] for q in installation.quarantined(device.id)) == wanted, 5, what=str(wanted))


@pytest.mark.parametrize(("name", "door"), CHOSEN, ids=str)
def test_payload_comes_back_as_expected(installation: Installation, device: Device, name: str, door: int) -> None:
    case, expected = CASES[name], expectation(CASES[name])
    if expected.get("context"):
        kind = f"case-{name}-{door}"
        assert installation.call("PUT", f"/v1/device-types/{kind}", expected["context"]).status in (200, 201)
        device = installation.add_device(f"{device.id}-typed", type=kind)

    before_ns = clock.now_ns()
    answer = deliver(installation, device, doors(case)[door], next(case.glob("input.*")).read_bytes())

    if answer is not None:
        nothing = REASONS[expected["quarantined"][0]["code"]] if not expected["points"] else 202
        assert answer.status == expected.get("http_status", nothing), answer.body
        assert codes(answer.body.get("quarantined", [])) == codes(expected.get("quarantined", []))
    check_kept(installation, device, expected, before_ns)


TELEMETRY = "/api/v1/{token}/telemetry"
THINGSBOARD = {
    name: path
    for name, path in cases_in("thingsboard").items()
    if any(way.get("http", {}).get("path") == TELEMETRY for way in doors(path))
}


@pytest.mark.parametrize("transport", ["http", "mqtt"])
@pytest.mark.parametrize("name", sorted(THINGSBOARD))
def test_thingsboard_payload_comes_back_as_expected(
    installation: Installation, device: Device, name: str, transport: str
) -> None:
    case, expected = THINGSBOARD[name], expectation(THINGSBOARD[name])
    way: dict[str, Any] = {"mqtt": {"topic": "devices/{device}/telemetry/thingsboard"}}
    if transport == "http":
        way = next(way for way in doors(case) if way.get("http", {}).get("path") == TELEMETRY)

    before_ns = clock.now_ns()
    answer = deliver(installation, device, way, next(case.glob("input.*")).read_bytes())

    if answer is not None:
        assert answer.status == expected.get("http_status", 200), answer.body
    check_kept(installation, device, expected, before_ns)


DIALECTS = {
    f"{folder}-{name}": path
    for folder in ("tasmota", "zigbee2mqtt", "shelly_gen2")
    for name, path in cases_in(folder).items()
    if path.is_relative_to(SOURCES[1]) and expectation(path)["points"]  # ours go into what JSON does not know
}


@pytest.mark.parametrize("transport", ["http", "mqtt"])
@pytest.mark.parametrize("name", sorted(DIALECTS))
def test_dialect_body_is_taken_as_plain_json(
    installation: Installation, device: Device, name: str, transport: str
) -> None:
    expected = expectation(DIALECTS[name])["points"][0]["fields"]
    way: dict[str, Any] = {"http": {"path": "/v1/telemetry", "headers": {"Content-Type": "application/json"}}}
    if transport == "mqtt":
        way = {"mqtt": {"topic": "devices/{device}/telemetry"}}

    answer = deliver(installation, device, way, next(DIALECTS[name].glob("input.*")).read_bytes())

    assert answer is None or answer.status == 202
    (point,) = wait_until(lambda: installation.points(device.id), 5)
    leaves = {(field.rpartition(".")[2], f"{value!r}") for field, value in point["fields"].items()}
    assert {(field.rpartition(".")[2], f"{value!r}") for field, value in expected.items()} <= leaves
