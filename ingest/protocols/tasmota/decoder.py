"""Tasmota's messages to records: SENSOR at the root, STATE under `state.`; all else it says is no reading.

Which it is tells the last level of the topic, whatever the levels before it are: FullTopic is free (Tasmota's
documentation, "MQTT"). A gateway speaks for the devices that its topics name; any other sender for itself.
"""

from __future__ import annotations

import re
from typing import Any

from ingest.protocols import parse, times
from ingest.protocols.base import Context, Decoded, Fault, Record
from ingest.protocols.flatten import Refused, flatten
from ingest.protocols.json.decoder import place, read_value, unreadable
from wire.points import UNCERTAIN

WORDS = (b"Online", b"Offline")
PREFIXES = ("tele", "stat")
_OLD_TIME = re.compile(r"(\d{4})\.(\d\d)\.(\d\d) (\d\d:\d\d:\d\d)")  # firmware before 6.0


def decode(content: bytes, context: Context) -> Decoded:
    """Decode one object of SENSOR or STATE."""
    kind = _kind_of(context.topic)
    content = parse.trim(content)
    if kind == "LWT" and content not in WORDS:
        return unreadable(parse.Unreadable("bad_value", "the last will says Online or Offline"))
    if kind not in ("SENSOR", "STATE"):
        return Decoded(is_event=True)
    reader = _Reader(context, "state" if kind == "STATE" else "")
    try:
        read_value(content, reader.decoded, reader.take)
    except parse.Unreadable as error:
        return unreadable(error)
    return reader.decoded


def _kind_of(topic: str) -> str:
    """Give SENSOR also of what came over a door of ours, whose name tells nothing."""
    return topic.rpartition("/")[2] if topic and not topic.startswith("devices/") else "SENSOR"


def _name_of(topic: str) -> str | None:
    """Give the external name of the device that a topic names: its levels without prefix and kind; None: no name."""
    levels = topic.split("/")[:-1]
    if levels and levels[0] in PREFIXES:
        levels = levels[1:]
    elif levels and levels[-1] in PREFIXES:
        levels = levels[:-1]
    return f"tasmota:{'/'.join(levels)}" if levels and not topic.startswith("devices/") else None


class _Reader:
    def __init__(self, context: Context, prefix: str) -> None:
        self.decoded = Decoded()
        self._device = _name_of(context.topic) if context.is_gateway else None
        self._prefix = prefix
        self._received_ns = context.received_ns
        self._policy = times.policy_of(context.type)

    def take(self, value: Any, index: int, is_exact: bool) -> None:
        """Add the record or the faults of one object; see ingest.protocols.json.decoder.Reader.take."""
        try:
            self._take(value, index, is_exact=is_exact)
        except Refused as error:
            self.decoded.faults.append(Fault(index, error.code, error.detail))

    def _take(self, value: Any, index: int, *, is_exact: bool) -> None:
        if type(value) is not dict:
            raise Refused("bad_structure", "a reading is a JSON object")
        record = Record(index, {}, measurement="tasmota", device=self._device)
        members = {name: member for name, member in value.items() if name not in ("Time", "Epoch", "TempUnit")}
        self._set_time(record, value, is_exact=is_exact)
        named = {self._prefix: members} if self._prefix else members
        record.fields, faults = flatten(named, is_exact=is_exact)
        self.decoded.faults += [Fault(index, fault.code, fault.detail, fault.name) for fault in faults]
        if not record.fields and not faults:
            raise Refused("no_values", "the reading holds no values")
        self.decoded.records.append(record)

    def _set_time(self, record: Record, value: dict[str, Any], *, is_exact: bool) -> None:
        token = value.get("Epoch", value.get("Time"))
        if token is None:
            return
        if isinstance(token, str):
            token = _OLD_TIME.sub(r"\1-\2-\3T\4", token)
        try:
            time_ns, is_certain = times.read(token, "s" if "Epoch" in value else "auto", is_exact=is_exact)
        except ValueError as error:
            raise Refused("bad_time", str(error)) from None
        place(record, time_ns, self._received_ns, self._policy)
        if not is_certain:
            record.flags |= UNCERTAIN
