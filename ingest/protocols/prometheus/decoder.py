"""Remote write to records: a record a sample, whose neighbours do not touch it. Knows no device and no store."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from typing import Any

from ingest.protocols import times
from ingest.protocols.base import MAX_INFLATED_BYTES, MAX_RECORDS, Context, Decoded, Fault, Record
from ingest.protocols.flatten import Refused, is_name
from ingest.protocols.json.decoder import place, too_many_records, unreadable
from ingest.protocols.parse import Unreadable
from ingest.protocols.prometheus import messages
from ingest.protocols.tags import MAX_TAGS, check_tag
from wire import clock

SCHEME = "prometheus:"  # of the names that labels have for devices
NAME = "__name__"
NAMING = ("device", "instance", "host")  # the first of these labels names whom a gateway speaks for
STALE = 0x7FF0000000000002  # the bits of the NaN that says that a series ended

_EXACT = times.policy_of(None, is_exact=True)


def decode(content: bytes, context: Context) -> Decoded:
    """Decode a request that is no longer compressed; the index of a record is the number of its sample, from 0."""
    reader = _Reader(context)
    try:
        for series in messages.parse(content).timeseries:
            reader.take(series)
    except Unreadable as error:
        return unreadable(error)
    except _TooMany:
        return too_many_records()
    decoded = reader.decoded
    decoded.is_event = not decoded.records and not decoded.faults  # nothing but metadata, or series that ended
    return decoded


class _TooMany(Exception):  # noqa: N818 - a signal
    """More samples than a message may have."""


class _Series:
    """What the samples of a series share."""

    def __init__(self, labels: Iterable[Any], *, is_gateway: bool) -> None:
        """Raises Refused: they can be no series."""
        self.tags = _tags_of(labels)
        self.measurement = self.tags.pop(NAME, "")
        if not is_name(self.measurement):
            raise Refused("bad_name", f"{NAME} is 1 to 256 bytes without control characters")
        named = next((label for label in NAMING if label in self.tags), None) if is_gateway else None
        self.device = SCHEME + self.tags.pop(named) if named is not None else None
        self.size = sum(len(key) + len(value) for key, value in self.tags.items()) + len(self.measurement)


def _tags_of(labels: Iterable[Any]) -> dict[str, str]:
    tags: dict[str, str] = {}
    for label in labels:
        key, value = label.name, label.value
        if type(key) is not str or type(value) is not str:
            raise Refused("bad_encoding", "a label that is not UTF-8")
        if key in tags:
            raise Refused("bad_structure", "a label stands there twice")
        if value:  # an empty label is none
            check_tag(key, value)
            tags[key] = value
        if len(tags) > MAX_TAGS:
            raise Refused("too_many_fields", f"more than {MAX_TAGS} labels")
    return tags


class _Reader:
    def __init__(self, context: Context) -> None:
        self.decoded = Decoded()
        self._received_ns = context.received_ns
        self._is_gateway = context.is_gateway
        self._policy = times.policy_of(context.type, is_exact=True) if context.type is not None else _EXACT
        self._index = 0
        self._repeated = 0  # characters of labels: sent once a series, kept for each sample

    def take(self, series: Any) -> None:
        """Add the records and faults of a series.

        Raises:
            Unreadable: what its samples share would make the message many times as large.
            _TooMany: see there.
        """
        try:
            shared: _Series | Refused = _Series(series.labels, is_gateway=self._is_gateway)
        except Refused as error:
            shared = error
        if type(shared) is _Series:
            self._repeated += shared.size * len(series.samples)
        if self._repeated > MAX_INFLATED_BYTES:
            raise Unreadable("too_large", f"samples with more than {MAX_INFLATED_BYTES} bytes of labels")
        for sample in series.samples:
            try:
                self._take_sample(sample, shared)
            except Refused as error:
                self.decoded.faults.append(Fault(self._index, error.code, error.detail))
            self._next()
        for _ in series.histograms:
            self.decoded.faults.append(Fault(self._index, "unsupported", "a native histogram"))
            self._next()

    def _take_sample(self, sample: Any, shared: _Series | Refused) -> None:
        if isinstance(shared, Refused):
            raise shared
        value = sample.value
        if not math.isfinite(value):
            if _is_stale(value):
                self.decoded.absent += 1
                return
            raise Refused("nonfinite", "not a finite number")
        record = Record(
            self._index, {"value": value}, measurement=shared.measurement, tags=shared.tags, device=shared.device
        )
        place(record, _to_ns(sample.timestamp), self._received_ns, self._policy)
        self.decoded.records.append(record)

    def _next(self) -> None:
        self._index += 1
        if self._index > MAX_RECORDS:
            raise _TooMany


def _is_stale(value: float) -> bool:
    return struct.pack(">d", value) == STALE.to_bytes(8, "big")


def _to_ns(time_ms: int) -> int:
    time_ns = time_ms * clock.NS_PER_MS
    if not clock.MIN_NS <= time_ns <= clock.MAX_NS:
        raise Refused("bad_time", "time outside signed 64-bit ns")
    return time_ns
