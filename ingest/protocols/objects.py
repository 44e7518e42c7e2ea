"""JSON objects on topics of another system: what its dialects share. Knows none of them, no device and no store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from ingest.protocols import times
from ingest.protocols.base import Context, Decoded, Fault, Record
from ingest.protocols.flatten import Refused, flatten
from ingest.protocols.json.decoder import place, read_value, unreadable
from ingest.protocols.parse import Unreadable, trim
from wire.points import UNCERTAIN


@dataclass(slots=True, frozen=True)
class Said:
    """What an object says."""

    members: dict[str, Any]  # yet to be flattened
    device: str | None = None  # external name of whose they are; None: the sender's
    token: Any = None  # of its time; None: it tells none
    unit: times.Unit = "auto"


Open = Callable[[dict[str, Any]], Said | None]  # None: it rightly holds no reading. Raises Refused


def own_topic(context: Context) -> str:
    """Give the topic of a message on a topic of its protocol; empty where it came over a door of ours."""
    is_own = context.transport == "mqtt" and not context.topic.startswith("devices/")
    return context.topic if is_own else ""


def tell_presence(name: str | None, is_online: bool, context: Context) -> Decoded:
    """Give the outcome of a word on somebody's presence: a gateway's counts, others have their own connection."""
    told = {name: is_online} if name is not None and context.is_gateway else {}
    return Decoded(is_event=True, presence=told)


def read(content: bytes, context: Context, measurement: str, open_: Open, *, may_be_empty: bool = False) -> Decoded:
    """Decode an object, or an array of them.

    Args:
        content: the message.
        context: of the message.
        measurement: of its readings.
        open_: tells what an object says.
        may_be_empty: an object without values is rightly no reading; else it is a fault.
    """
    reader = _Reader(context, measurement, may_be_empty=may_be_empty)
    try:
        read_value(trim(content), reader.decoded, partial(reader.take, open_))
    except Unreadable as error:
        return unreadable(error)
    return reader.decoded


class _Reader:
    def __init__(self, context: Context, measurement: str, *, may_be_empty: bool) -> None:
        self.decoded = Decoded()
        self._measurement, self._may_be_empty = measurement, may_be_empty
        self._received_ns = context.received_ns
        self._policy = times.policy_of(context.type) if context.type is not None else times.GUARDED

    def take(self, open_: Open, value: Any, index: int, is_exact: bool) -> None:
        try:
            self._take(open_, value, index, is_exact=is_exact)
        except Refused as error:
            self.decoded.faults.append(Fault(index, error.code, error.detail))

    def _take(self, open_: Open, value: Any, index: int, *, is_exact: bool) -> None:
        if type(value) is not dict:
            raise Refused("bad_structure", "a message is a JSON object")
        said = open_(value)
        if said is None:
            self.decoded.is_event = True
            return
        record = Record(index, {}, measurement=self._measurement, device=said.device)
        self._set_time(record, said, is_exact=is_exact)
        record.fields, faults = flatten(said.members, is_exact=is_exact)
        self.decoded.faults += [Fault(index, fault.code, fault.detail, fault.name) for fault in faults]
        if record.fields or faults:
            self.decoded.records.append(record)
        elif self._may_be_empty:
            self.decoded.is_event = True
        else:
            raise Refused("no_values", "the reading holds no values")

    def _set_time(self, record: Record, said: Said, *, is_exact: bool) -> None:
        if said.token is None:
            return
        try:
            time_ns, is_certain = times.read(said.token, said.unit, is_exact=is_exact)
        except ValueError as error:
            raise Refused("bad_time", str(error)) from None
        place(record, time_ns, self._received_ns, self._policy)
        if not is_certain:
            record.flags |= UNCERTAIN
