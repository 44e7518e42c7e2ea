"""Real payloads through MQTT and through HTTP into the store and back out of the query API, field by field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.platform import Device, Installation, wait_until
from wire import clock

ROOT = Path(__file__).parent.parent.parent
FOLDERS = [ROOT.parent / "shared/fixtures/json", ROOT / "tests/cases/json"]
CASES = {path.name: path for folder in reversed(FOLDERS) if folder.is_dir() for path in folder.iterdir() if path.is_dir()}
pytestmark = pytest.mark.e2e


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
        found |= {(point["measurement"], time, name, f"{type(value).__name__} {value!r}") for name, value in point["fields"].items()}
    return found


CHOSEN = [(name, number) for name in sorted(CASES) for number in range(len(doors(CASES[name])))]


@pytest.mark.parametrize(("name", "door"), CHOSEN, ids=str)
def test_payload_comes_back_as_expected(installation: Installation, device: Device, name: str, door: int) -> None:
    case, expected = CASES[name], expectation(CASES[name])
    if expected.get("context"):
        kind = f"case-{name}-{door}"
        assert installation.call("PUT", f"/v1/device-types/{kind}", expected["context"]).status in (200, 201)
        device = installation.add_device(f"{device.id}-typed", type=kind)
    content = next(case.glob("input.*")).read_bytes()
    way = doors(case)[door]

    before_ns = clock.now_ns()
    if "http" in way:
        answer = installation.post(device, content, way["http"]["path"], **{k.replace("-", "_"): v for k, v in way["http"]["headers"].items()})
        wanted = expected.get("http_status", 202)
        assert answer.status == wanted, answer.body
        told = answer.body.get("quarantined", [])
        assert [(q["index"], q["code"]) for q in told] == [(q["index"], q["code"]) for q in expected.get("quarantined", [])]
    else:
        installation.wait_for_broker(device)
        topic = way["mqtt"]["topic"].replace("{device}", device.id)
        assert installation.publish(device, topic, content).returncode == 0

    wanted_points, wanted_codes = expected["points"], [q["code"] for q in expected.get("quarantined", [])]

    def arrived() -> bool:
        now = (before_ns, clock.now_ns())
        return flat(installation.points(device.id), now) == flat(wanted_points, now)

    wait_until(arrived, 5, what=f"{wanted_points} but have {installation.points(device.id)}")
    wait_until(lambda: sorted(q["code"] for q in installation.quarantined(device.id)) == sorted(wanted_codes), 5, what=str(wanted_codes))
