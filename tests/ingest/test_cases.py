"""Every case of the protocols that need no state through gate, decoder, checks and quarantine, over HTTP and as a bridge's batch."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from ingest.framing import Batch, Delivery
from ingest.message import Message
from ingest.protocols import PROTOCOLS
from ingest.readings import Reading
from tests.ingest.intake_support import World, case_folders, load_case
from wire import clock
from wire.devices import DeviceIdentity
from wire.errors import REASONS
from wire.external import to_device_id

RECEIVED_NS = 1_772_700_000 * clock.NS_PER_S
NEAR_NS = clock.NS_PER_MS  # records of one message without a time follow each other by 1 ns
LATER = (
    "attributes",  # of ThingsBoard: the twin, which the registry keeps
    "benchmark_two_records",  # device types do not say yet where in a message the records are
)  # fmt: skip
NAMES = ("json", "cbor", "msgpack", "thingsboard", "line", "senml", "otlp", "prometheus")
MEDIA = {media: protocol.name for protocol in PROTOCOLS.values() for media in protocol.media_types}
OF_PATHS = ("thingsboard", "line", "otlp", "prometheus")  # told by the path alone
FOLDERS = [folder for name in NAMES for folder in case_folders(name) if folder.name not in LATER]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, PROTOCOLS)
    yield made
    made.close()


def doors(request: dict[str, Any]) -> list[dict[str, Any]]:
    return request.get("any_of") or [request]


def values(points: list[dict[str, Any]]) -> set[tuple[Any, ...]]:
    return {(*where(point), field, *typed(value)) for point in points for field, value in point["fields"].items()}


def where(point: dict[str, Any]) -> tuple[Any, ...]:
    time = point["time"]
    if time.startswith("received") and time != "received":  # received-5s
        at: Any = RECEIVED_NS + int(time.removeprefix("received").removesuffix("s")) * clock.NS_PER_S
    else:
        at = time if time == "received" else clock.parse_rfc3339(time)[0]
    device = to_device_id(point["device"]) if ":" in point["device"] else point["device"]
    return device, point["measurement"], at, tuple(sorted(point["tags"].items()))


def typed(value: Any) -> tuple[str, Any]:
    return type(value).__name__, _canonical(value)


def _canonical(value: Any) -> Any:
    return json.dumps(json.loads(value)) if isinstance(value, str) and value[:1] in ("{", "[") else value


def shown(reading: Reading) -> dict[str, Any]:
    is_arrival = 0 <= reading.time_ns - RECEIVED_NS < NEAR_NS
    time = "received" if is_arrival else clock.format_ns(reading.time_ns)
    return {
        "device": reading.device,
        "measurement": reading.measurement,
        "time": time,
        "tags": reading.tags,
        "fields": reading.fields,
    }


def only_over_http(folder: Path) -> bool:
    """Tell whether a case needs what only a path can say: the unit of its times."""
    return folder.parent.name == "line" and not any("mqtt" in each for each in doors(load_case(folder)[1]))


def only_over_mqtt(folder: Path) -> bool:
    """Tell whether a case has a topic that no path stands for: what a ThingsBoard gateway says."""
    return not any("http" in each for each in doors(load_case(folder)[1]))


def check(world: World, expected: dict[str, Any]) -> None:
    assert values([shown(reading) for reading in world.commit.readings]) == values(expected["points"])
    waiting = world.quarantine.totals()["quarantined"]
    assert waiting == len(expected.get("quarantined", []))


def add_device(world: World, expected: dict[str, Any]) -> None:
    context = dict(expected.get("context", {}))
    external = context.pop("external_ids", [])
    named = [each["device"] for each in (*expected["points"], *expected.get("events", ())) if "device" in each]
    if external or any(":" in name for name in named):
        world.registry.add("d1", gateway=True)
        for name in external:
            world.registry.put(DeviceIdentity(id=to_device_id(name), parent="d1"))
            world.registry.name(name, to_device_id(name), "d1")
        return
    if context:
        world.registry.put_type(name="case", **context)
    world.registry.add("d1", type="case" if context else None)


@pytest.mark.parametrize(
    "folder",
    [folder for folder in FOLDERS if not only_over_mqtt(folder)],
    ids=lambda folder: f"{folder.parent.parent.name}-{folder.parent.name}-{folder.name}",
)
def test_case_over_http_gives_what_is_expected(folder: Path, world: World) -> None:
    content, request, expected = load_case(folder)
    door = next(each["http"] for each in doors(request) if "http" in each)
    content = gzip.decompress(content) if "Content-Encoding" in door["headers"] else content
    add_device(world, expected)
    known = world.gate.find(["d1"]).known["d1"]
    name = folder.parent.name if folder.parent.name in OF_PATHS else MEDIA[door["headers"]["Content-Type"]]
    source = urlsplit(door["path"]).query.rpartition("&")[2] if name == "line" else door["headers"]["Content-Type"]

    receipt = world.service.accept(Message(known, PROTOCOLS[name], content, RECEIVED_NS, source=source))

    check(world, expected)
    told = [{"index": item.record or 0, "code": item.code} for item in receipt.quarantined]
    assert told == [{"index": each["index"], "code": each["code"]} for each in expected.get("quarantined", [])]
    if "http_status" in expected and name != "line":  # InfluxDB's clients are told 400, whatever it was
        assert REASONS[receipt.quarantined[0].code] == expected["http_status"]


@pytest.mark.parametrize(
    "folder",
    [folder for folder in FOLDERS if not only_over_http(folder)],
    ids=lambda folder: f"{folder.parent.parent.name}-{folder.parent.name}-{folder.name}",
)
def test_case_over_mqtt_gives_what_is_expected(folder: Path, world: World) -> None:
    content, request, expected = load_case(folder)
    door = next((each["mqtt"] for each in doors(request) if "mqtt" in each), None)
    if door is not None and door["topic"].startswith("v1/gateway/"):
        topic = door["topic"]
    elif door is None or not door["topic"].startswith("devices/"):
        name = folder.parent.name
        topic = "devices/d1/telemetry" if name == "json" else f"devices/d1/telemetry/{name}"
    else:
        topic = door["topic"].replace("{device}", "d1")
    add_device(world, expected)
    protocol = folder.parent.name if topic.startswith("v1/") else ""  # its door says whose such a topic is

    batch = Batch("b", [Delivery("d1", topic, content, RECEIVED_NS, 7, protocol=protocol)])
    verdict = world.service.accept_batch(batch)

    check(world, expected)
    assert verdict.accepted == len(world.commit.readings)
    told = [(ending.end, ending.code) for ending in verdict.endings]
    assert told == [("quarantined", each["code"]) for each in expected.get("quarantined", [])]
