"""Tasmota's messages to records: SENSOR at the root, STATE under `state.`; all else it says is no reading.

Which it is tells the last level of the topic, whatever the levels before it are: FullTopic is free (Tasmota's
documentation, "MQTT"). A gateway speaks for the devices that its topics name; any other sender for itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import Any

from ingest.protocols import objects, parse
from ingest.protocols.base import Context, Decoded, Description, Record
from ingest.protocols.json.decoder import unreadable
from ingest.protocols.objects import Said

WORDS = {b"Online": True, b"Offline": False}
PREFIXES = ("tele", "stat")
NO_FIELDS = ("Time", "Epoch", "TempUnit")
MEASUREMENT = "tasmota"
UNITS = ("TempUnit", "PressureUnit")
UNIT_OF = {
    "Temperature": "TempUnit", "DewPoint": "TempUnit", "Pressure": "PressureUnit", "SeaPressure": "PressureUnit"
}  # fmt: skip
DEGREES = {"C": "°C", "F": "°F"}
_OLD_TIME = re.compile(r"(\d{4})\.(\d\d)\.(\d\d) (\d\d:\d\d:\d\d)")  # firmware before 6.0


def decode(content: bytes, context: Context) -> Decoded:
    """Decode one object of SENSOR or STATE, or a last will; over a door of ours, SENSOR."""
    topic = objects.own_topic(context)
    kind, device = topic.rpartition("/")[2] if topic else "SENSOR", name_of(topic)
    if kind == "LWT":
        is_online = WORDS.get(parse.trim(content))
        if is_online is None:
            return unreadable(parse.Unreadable("bad_value", "the last will says Online or Offline"))
        return objects.tell_presence(device, is_online, context)
    if kind not in ("SENSOR", "STATE"):
        return Decoded(is_event=True)
    prefix = "state" if kind == "STATE" else ""
    units = dict[str, Any]()
    open_ = partial(_open, device if context.is_gateway else None, prefix, units)
    decoded = objects.read(content, context, MEASUREMENT, open_)
    if units:
        decoded.described = [told for record in decoded.records for told in _describe(record, units)]
    return decoded


def name_of(topic: str) -> str | None:
    """Give the external name of the device that a topic names: its levels without prefix and kind; None: no name."""
    levels = topic.split("/")[:-1]
    if levels and levels[0] in PREFIXES:
        levels = levels[1:]
    elif levels and levels[-1] in PREFIXES:
        levels = levels[:-1]
    return f"tasmota:{'/'.join(levels)}" if levels else None


def _describe(record: Record, units: dict[str, Any]) -> Iterator[Description]:
    """Tell the units of a reading's temperatures and pressures."""
    for name in record.fields:
        unit = units.get(UNIT_OF.get(name.rpartition(".")[2], ""))
        if type(unit) is str:
            yield Description(name, MEASUREMENT, record.device, unit=DEGREES.get(unit, unit))


def _open(device: str | None, prefix: str, units: dict[str, Any], value: dict[str, Any]) -> Said:
    units.update((name, value[name]) for name in UNITS if name in value)
    members = {name: member for name, member in value.items() if name not in NO_FIELDS}
    named = {prefix: members} if prefix else members
    token = value.get("Epoch", value.get("Time"))
    if isinstance(token, str):
        token = _OLD_TIME.sub(r"\1-\2-\3T\4", token)
    return Said(named, device, token, "s" if "Epoch" in value else "auto")
