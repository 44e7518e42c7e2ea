"""Homie's messages to records, presence and what is told of properties. Pure.

A property's value is a text; which type it has was said before, on topics of its own (Homie 4.0 "Properties", 5.0
"Property object"): `ingest.protocols.homie.host` remembers it. A gateway speaks for the devices that the topics name;
any other sender for itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ingest.protocols import objects, parse, scalar
from ingest.protocols.base import MAX_FIELDS, Context, Decoded, Description
from ingest.protocols.homie import topics
from ingest.protocols.homie.topics import MEASUREMENT, Spoken
from ingest.protocols.json.decoder import unreadable
from ingest.protocols.scalar import Kind, Place

# Who begins or sleeps is neither here nor gone.
STATES = {"ready": True, "alert": True, "disconnected": False, "lost": False, "init": None, "sleeping": None}
KINDS: dict[str, Kind] = {
    "integer": "number", "float": "number", "percent": "number", "boolean": "flag", "string": "text", "enum": "text",
    "color": "text", "datetime": "text", "duration": "text", "json": "text",
}  # fmt: skip
_SPAN = re.compile(r"(-?\d+(?:\.\d+)?)?:(-?\d+(?:\.\d+)?)?(?::\d+(?:\.\d+)?)?", re.ASCII)  # least, greatest, step
_LONGEST_SPAN = 100


@dataclass(slots=True)
class Taken:
    """What a message says."""

    decoded: Decoded
    device: str = ""  # whose datatypes it tells, by its external name
    datatypes: dict[str, str] = field(default_factory=dict)  # by field
    is_whole: bool = False  # these are all that the device has


def decode(content: bytes, context: Context) -> Decoded:
    """Decode a single message: without what was said before, a value goes by its text."""
    return take(content, context, {}).decoded


def take(content: bytes, context: Context, datatypes: Mapping[str, str]) -> Taken:
    """Decode a message; `datatypes` are those of its device by field, as far as they were told."""
    topic = objects.own_topic(context)
    if not topic:
        return Taken(unreadable(parse.Unreadable("unsupported", "Homie comes by MQTT only, on its own topics")))
    spoken = topics.read(topic)
    if spoken is None or (spoken.rest[-1] in topics.TOLD and not spoken.is_value):
        return Taken(Decoded(is_event=True))
    if spoken.is_value:
        name = topics.field_of(*spoken.rest)
        place = scalar.take(context, Place(MEASUREMENT, name, spoken.device))
        return Taken(scalar.decode(content, place, KINDS.get(datatypes.get(name, ""), "any")))
    try:
        return _take_attribute(content, context, spoken)
    except parse.Unreadable as error:
        return Taken(unreadable(error))


def _take_attribute(content: bytes, context: Context, spoken: Spoken) -> Taken:
    if spoken.rest == ("$state",):
        word = scalar.text_of(content)
        if word not in STATES:
            raise parse.Unreadable("bad_value", f"a state is one of {', '.join(STATES)}")
        is_online = STATES[word]
        told = is_online is not None
        return Taken(objects.tell_presence(spoken.device, bool(is_online), context) if told else Decoded(is_event=True))
    if spoken.rest == ("$description",):
        return _take_description(parse.parse(parse.trim(content))[0], context, spoken)
    if len(spoken.rest) == 3 and spoken.rest[2].startswith("$"):  # noqa: PLR2004 - node, property, attribute
        node, name, attribute = spoken.rest
        return _take_properties({(node, name): {attribute[1:]: scalar.text_of(content)}}, context, spoken)
    return Taken(Decoded(is_event=True))


def _take_description(value: Any, context: Context, spoken: Spoken) -> Taken:
    if type(value) is not dict:
        raise parse.Unreadable("bad_structure", "a description is a JSON object")
    taken = _take_properties(dict(_properties(value)), context, spoken)
    taken.is_whole = True
    return taken


def _properties(description: dict[str, Any]) -> Iterator[tuple[tuple[str, str], dict[str, Any]]]:
    for node, members in _objects(description.get("nodes")):
        for name, told in _objects(members.get("properties")):
            yield (node, name), told


def _objects(value: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    members = value.items() if type(value) is dict else ()
    return ((key, member) for key, member in members if type(member) is dict)


def _take_properties(properties: Mapping[tuple[str, str], dict[str, Any]], context: Context, spoken: Spoken) -> Taken:
    taken = Taken(Decoded(is_event=True), spoken.device)
    device = spoken.device if context.is_gateway else None
    for (node, name), told in list(properties.items())[:MAX_FIELDS]:
        called = topics.field_of(node, name)
        if not called:
            continue
        unit, label, datatype = (_text(told.get(member)) for member in ("unit", "name", "datatype"))
        low, high = _span(_text(told.get("format")))
        if datatype in KINDS:
            taken.datatypes[called] = datatype
        if unit or label or low is not None or high is not None:
            said = Description(called, MEASUREMENT, device, unit=unit, label=label, low=low, high=high)
            taken.decoded.described.append(said)
    return taken


def _text(value: Any) -> str:
    return value if type(value) is str else ""


def _span(text: str) -> tuple[float | None, float | None]:
    """Give the least and the greatest value of a format of numbers."""
    match = _SPAN.fullmatch(text) if len(text) <= _LONGEST_SPAN else None
    if match is None:
        return None, None
    low, high = (float(bound) if bound else None for bound in match.groups())
    return low, high
