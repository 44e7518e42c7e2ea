"""Cases: folders that hold a message and what is to become of it, checked against the decoder alone.

`docs/adding-a-protocol.md` describes them. For tests and for authors of decoders: no service imports this.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ingest.protocols import PROTOCOLS, Protocol
from ingest.protocols.base import Context
from wire import clock, filters
from wire.devices import DeviceType

RECEIVED_NS = 1_772_700_000 * clock.NS_PER_S  # the arrival of every case: 2026-03-05T08:40:00Z
OWN = "devices/"

Told = set[tuple[object, ...]]  # values, each with where it belongs, and faults


def check(folder: Path) -> list[str]:
    """Give what a case's decoder gives otherwise than the case expects, a line each; none: all is as expected.

    Raises:
        OSError, ValueError, KeyError: it is no case.
    """
    content, expected = next(folder.glob("input.*")).read_bytes(), _read(next(folder.glob("[em]*ed.json")))
    found: list[str] = []
    for door in doors(folder):
        name = spoken(door, folder)
        if name is None:
            found.append(f"no protocol is spoken at {door}, and none is called as its folder is")
        elif "mqtt" in door or not PROTOCOLS[name].doors:  # what a door of its own tells the decoder, only it knows
            told = _decode(PROTOCOLS[name], content, _context(door, expected), is_described="described" in expected)
            found += _compare(told, _expected(expected))
    return found


def doors(folder: Path) -> list[dict[str, Any]]:
    """Give the ways by which a case's message comes."""
    request = _read(folder / "request.json")
    ways: list[dict[str, Any]] = request.get("any_of") or [request]
    return ways


def spoken(door: dict[str, Any], folder: Path) -> str | None:
    """Give the protocol of a case's door, else the one that its folder is called after; None: none of ours."""
    told = _of_topic(door["mqtt"]["topic"]) if "mqtt" in door else _of_path(door)
    return told or _known(folder.parent.name.partition("_")[0])


def _context(door: dict[str, Any], expected: dict[str, Any]) -> Context:
    own = dict(expected.get("context", {}))
    names = frozenset(own.pop("external_ids", ()))
    return Context(
        RECEIVED_NS,
        DeviceType.model_validate({"name": "case"} | own) if own else None,
        topic=door["mqtt"]["topic"] if "mqtt" in door else door["http"]["headers"].get("Content-Type", ""),
        transport="mqtt" if "mqtt" in door else "http",
        is_retained=door.get("mqtt", {}).get("retain", False),
        is_gateway=bool(names) or any(map(_is_of_child, (*expected["points"], *expected.get("described", ())))),
        names=names,
    )


def _decode(protocol: Protocol, content: bytes, context: Context, *, is_described: bool) -> Told:
    try:
        decoded = protocol.decode(content, context)
    except Exception as error:  # of the code that is tried
        return {("the decoder raised", type(error).__name__, str(error))}
    values = _described(map(asdict, decoded.described)) if is_described else set()
    for record in decoded.records:
        time_ns = RECEIVED_NS if record.time_ns is None else record.time_ns
        values |= _values((record.device or "", record.measurement, time_ns), record.tags, record.fields)
    return values | {(fault.index, fault.code) for fault in decoded.faults}


def _expected(expected: dict[str, Any]) -> Told:
    values = _described(expected.get("described", ()))
    for point in expected["points"]:
        where = _child(point["device"]), point["measurement"], _time_ns(point["time"])
        values |= _values(where, point["tags"], point["fields"])
    return values | {(each["index"], each["code"]) for each in expected.get("quarantined", ())}


def _values(where: tuple[object, ...], tags: Mapping[str, str], fields: Mapping[str, object]) -> Told:
    told = tuple(f"{tag}={value}" for tag, value in sorted(tags.items()))
    return {(*where, *told, name, type(value).__name__, value) for name, value in fields.items()}


def _described(told: Iterable[Mapping[str, object]]) -> Told:
    """Give what is told of fields, without what is not said."""
    return {tuple(f"{name}={said}" for name, said in sorted(each.items()) if said not in ("", None)) for each in told}


def _is_of_child(told: Mapping[str, str]) -> bool:
    return bool(_child(told["device"]))


def _child(device: str) -> str:
    return device if ":" in device else ""


def _time_ns(text: str) -> int:
    """Read a time; `received` is that of arrival, `received-5s` a while before it."""
    if text.startswith("received"):
        return RECEIVED_NS + int(text.removeprefix("received").removesuffix("s") or 0) * clock.NS_PER_S
    return clock.parse_rfc3339(text)[0]


def _compare(told: Told, expected: Told) -> list[str]:
    lacking = [f"lacking: {' '.join(map(str, each))}" for each in sorted(expected - told, key=str)]
    return lacking + [f"too much: {' '.join(map(str, each))}" for each in sorted(told - expected, key=str)]


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_bytes())
    return content


def _known(name: str) -> str | None:
    return name if name in PROTOCOLS else None


def _of_topic(topic: str) -> str | None:
    if topic.startswith(OWN):
        channel, _, rest = topic.split("/", 2)[2].partition("/")
        return _known(channel if channel == "media" else rest or "json")
    of_topics = ((name, each) for name, protocol in PROTOCOLS.items() for each in protocol.topics.up)
    return next((name for name, each in of_topics if filters.covers(each, topic)), None)


def _of_path(door: dict[str, Any]) -> str | None:
    http = door.get("http", {"path": "", "headers": {}})
    path = http["path"].partition("?")[0]
    media = http["headers"].get("Content-Type", "") if path == "/v1/telemetry" else None
    for name, protocol in PROTOCOLS.items():
        if media in protocol.media_types or path.startswith((f"/v1/telemetry/{name}", *protocol.paths)):
            return name
    return None
