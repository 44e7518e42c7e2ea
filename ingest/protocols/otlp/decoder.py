"""OTLP's metrics to records: a record a data point, whose neighbours do not touch it. Knows no device and no store.

Its encoding is told by the Content-Type (`Context.topic` over HTTP), else by its first byte.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ingest.protocols import times
from ingest.protocols.base import MAX_INFLATED_BYTES, MAX_RECORDS, Context, Decoded, Fault, Record
from ingest.protocols.flatten import Refused, is_name
from ingest.protocols.json.decoder import place, too_many_records, unreadable
from ingest.protocols.otlp import messages
from ingest.protocols.otlp.attributes import tags_of
from ingest.protocols.otlp.values import NO_RECORDED_VALUE, READERS
from ingest.protocols.parse import Unreadable
from ingest.protocols.tags import MAX_TAGS
from wire import clock

JSON, PROTOBUF = "application/json", "application/x-protobuf"
SCHEME = "otlp:"  # of the names that resources have for devices
NAMING = ("device.id", "service.instance.id", "host.name")  # the first of them names whom a gateway speaks for
SCOPE = "otel.scope.name"
OF_THE_SENDER = ("telemetry.", "process.")  # of a resource: of the library and the run, no tag

_EXACT = times.policy_of(None, is_exact=True)


def decode(content: bytes, context: Context) -> Decoded:
    """Decode a request; the index of a record is the number of its data point, from 0."""
    try:
        is_json = context.topic.startswith(JSON) or (context.topic != PROTOBUF and content[:1] == b"{")
        request = messages.parse_json(content) if is_json else messages.parse(content)
        reader = _Reader(context)
        for resource in request.resource_metrics:
            reader.take(resource)
    except Unreadable as error:
        return unreadable(error)
    except _TooMany:
        return too_many_records()
    decoded = reader.decoded
    decoded.is_event = not decoded.records and not decoded.faults  # a request may be empty
    return decoded


class _TooMany(Exception):  # noqa: N818 - a signal
    """More data points than a message may have."""


class _Owner:
    """Whose the points of a resource are, and the tags that they share."""

    def __init__(self, attributes: Iterable[Any], *, is_gateway: bool) -> None:
        """Raises Refused: nothing of the resource can be kept."""
        self.device: str | None = None
        self.tags = {key: text for key, text in tags_of(attributes).items() if not key.startswith(OF_THE_SENDER)}
        name = next((key for key in NAMING if key in self.tags), None) if is_gateway else None
        if name is not None:
            self.device = SCHEME + self.tags.pop(name)

    @property
    def size(self) -> int:
        """Characters that each of its points repeats."""
        return sum(len(key) + len(text) for key, text in self.tags.items())


class _Reader:
    def __init__(self, context: Context) -> None:
        self.decoded = Decoded()
        self._received_ns = context.received_ns
        self._is_gateway = context.is_gateway
        self._policy = times.policy_of(context.type, is_exact=True) if context.type is not None else _EXACT
        self._index = 0
        self._repeated = 0  # characters that points share with their neighbours: written once, kept for each

    def take(self, resource: Any) -> None:
        """Add the records and faults of a resource.

        Raises:
            Unreadable: what its points share would make the message many times as large.
            _TooMany: see there.
        """
        try:
            owner: _Owner | Refused = _Owner(resource.resource.attributes, is_gateway=self._is_gateway)
        except Refused as error:
            owner = error
        for scope in resource.scope_metrics:
            name = scope.scope.name if type(scope.scope.name) is str else ""
            for metric in scope.metrics:
                self._take_metric(metric, owner, name)

    def _take_metric(self, metric: Any, owner: _Owner | Refused, scope: str) -> None:
        kind = metric.WhichOneof("data")
        if kind is None:
            self._refuse(Refused("unsupported", "a metric without data, or of a kind that nobody knows"))
            return
        points, name = getattr(metric, kind).data_points, metric.name
        if type(owner) is _Owner:
            self._repeated += (owner.size + len(name) + len(scope)) * len(points)
        if self._repeated > MAX_INFLATED_BYTES:
            raise Unreadable("too_large", f"points with more than {MAX_INFLATED_BYTES} bytes of shared attributes")
        for point in points:
            if point.flags & NO_RECORDED_VALUE:
                self.decoded.absent += 1
                self._next()
                continue
            try:
                self._take_point(kind, point, name, owner, scope)
            except Refused as error:
                self._refuse(error)

    def _take_point(self, kind: str, point: Any, name: Any, owner: _Owner | Refused, scope: str) -> None:
        if isinstance(owner, Refused):
            raise owner
        if type(name) is not str or not is_name(name):
            raise Refused("bad_name", "a metric's name is 1 to 256 bytes of UTF-8 without control characters")
        tags = owner.tags | tags_of(point.attributes)
        if scope and SCOPE not in tags:
            tags[SCOPE] = scope
        if len(tags) > MAX_TAGS:
            raise Refused("too_many_fields", f"more than {MAX_TAGS} tags")
        fields, faults = READERS[kind](point)
        record = Record(self._index, fields, measurement=name, tags=tags, device=owner.device)
        if point.time_unix_nano:
            place(record, _checked(point.time_unix_nano), self._received_ns, self._policy)
        self.decoded.faults += [Fault(self._index, code, detail, field) for field, code, detail in faults]
        self.decoded.records.append(record)
        self._next()

    def _refuse(self, error: Refused) -> None:
        self.decoded.faults.append(Fault(self._index, error.code, error.detail))
        self._next()

    def _next(self) -> None:
        self._index += 1
        if self._index > MAX_RECORDS:
            raise _TooMany


def _checked(time_ns: int) -> int:
    if time_ns > clock.MAX_NS:
        raise Refused("bad_time", "time outside signed 64-bit ns")
    return time_ns
