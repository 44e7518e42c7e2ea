"""Twins over MQTT: reported patches come up, desired parts go down as retained messages. Knows no client library."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, cast

import orjson

from devices.control.traffic import Inbound, Outbound, Receipt, Way
from devices.twins import merge
from devices.twins.edit import Edit, Twin
from devices.twins.service import TwinVerbs
from wire import clock, topics
from wire.errors import BadRequest, HeadwaterError

AT_ONCE = 500  # desired parts on their way to the broker
LOOK_S = 0.5


class Desired(Protocol):
    """What the broker must hold, and holds; see `devices.twins.store.DesiredStore`."""

    def pending(self, limit: int) -> list[tuple[Way, Twin]]: ...
    def orphans(self, limit: int) -> list[Way]: ...
    def retained(self, held: Mapping[Way, int]) -> None: ...
    def reconcile(self, held: Mapping[Way, int]) -> int: ...


class TwinTraffic:
    """A Traffic of twins; in the thread of the connection."""

    filters: Sequence[str] = (topics.TWIN_REPORTED, topics.CHILD_TWIN_REPORTED)
    found: Sequence[str] = (topics.TWIN_DESIRED, topics.CHILD_TWIN_DESIRED)
    channels: tuple[str, ...] = ("twin",)

    def __init__(self, twins: TwinVerbs, desired: Desired, revision: Callable[[], int], look_s: float = LOOK_S) -> None:
        """Prepare.

        Args:
            twins: takes what devices report.
            desired: tells what must go down.
            revision: number of the newest change of any device: whether one may be gone, or moved.
            look_s: least time between two looks for devices that are gone.
        """
        self._twins = twins
        self._desired = desired
        self._revision = revision
        self._on_way: dict[Way, int] = {}  # version; 0 = is being cleared
        self._seen_revision = -1
        self._since = -1  # revision before the oldest of those on their way were read
        self._look_s = look_s
        self._look_at_s = 0.0

    def begin(self, retained: Mapping[Way, bytes]) -> None:
        """See Traffic."""
        self._on_way.clear()
        self._seen_revision = -1
        self._desired.reconcile({way: _version(payload) for way, payload in retained.items()})

    def take(self, messages: Sequence[Inbound]) -> list[tuple[Inbound, HeadwaterError]]:
        """See Traffic."""
        refused: list[tuple[Inbound, HeadwaterError]] = []
        edits, sources = [], []
        for message in messages:
            device = message.topic.device_id
            try:
                edits.append(Edit(device, "reported", _read(message), f"device:{device}"))
                sources.append(message)
            except HeadwaterError as error:
                refused.append((message, error))
        outcomes = self._twins.report_all(edits) if edits else []
        for message, outcome in zip(sources, outcomes, strict=True):
            if isinstance(outcome, HeadwaterError):
                refused.append((message, outcome))
        return refused

    def outgoing(self) -> Sequence[Outbound]:
        """See Traffic."""
        room = AT_ONCE - len(self._on_way)
        if room <= 0:
            return ()
        if not self._on_way:
            self._since = self._revision()
        messages = []
        for way in self._gone():
            if self._on_way.get(way) != 0:
                self._on_way[way] = 0
                messages.append(Outbound(_topic(way), b"", (way, 0), retain=True))
        for way, twin in self._desired.pending(AT_ONCE):
            if self._on_way.get(way) != twin.desired_version:
                self._on_way[way] = twin.desired_version
                messages.append(_desired(way, twin))
        return messages

    def confirm(self, receipts: Sequence[Receipt]) -> None:
        """See Traffic: whether a device listens does not matter, the broker keeps it."""
        held = dict(cast("tuple[Way, int]", each.token) for each in receipts)
        self._desired.retained(held)
        if self._revision() != self._since:  # one of them may have moved meanwhile, and the look for it come too early
            self._seen_revision = -1
        for way, version in held.items():
            if self._on_way.get(way) == version:
                del self._on_way[way]

    def _gone(self) -> list[Way]:
        if time.monotonic() < self._look_at_s:
            return []
        self._look_at_s = time.monotonic() + self._look_s
        revision = self._revision()
        if revision == self._seen_revision:
            return []
        gone = self._desired.orphans(AT_ONCE)
        if not gone:  # else there may be more of them
            self._seen_revision = revision
        return gone


def _read(message: Inbound) -> dict[str, Any]:
    if message.topic.rest != "reported":
        raise BadRequest(f"not a topic for devices: twin/{message.topic.rest}", code="bad_topic")
    return merge.read(message.payload)


def _topic(way: Way) -> str:
    topic = topics.twin_desired(way.device)
    return topics.child(way.gateway, topic) if way.gateway else topic


def _desired(way: Way, twin: Twin) -> Outbound:
    content = {
        "version": twin.desired_version,
        "time": clock.format_ns(twin.desired_ns),
        "desired": twin.desired,
    }
    return Outbound(_topic(way), orjson.dumps(content), (way, twin.desired_version), retain=True)


def _version(payload: bytes) -> int:
    try:
        version = orjson.loads(payload)["version"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return 0
    return version if isinstance(version, int) and not isinstance(version, bool) else 0
