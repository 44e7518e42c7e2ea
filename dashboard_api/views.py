"""What the pages show, gathered from the other services with the operator's own token. Knows no Flask."""

from __future__ import annotations

import heapq
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

from chassis.peers import Peer
from dashboard_api.descriptions import Descriptions, Known, by_field
from dashboard_api.service import Directory, Entry, Queries, Selection
from wire.devices import type_key
from wire.errors import HeadwaterError, NotFound
from wire.points import FieldValue, Point

READINGS = 8  # devices whose newest values the overview shows
MAX_FIELDS = 256
MEDIA = "media"  # the measurement of blobs, which are shown as what they are
MAX_CHARTS = 12
DEVICE_QUARANTINE = 5
CHILDREN = 10  # of a gateway, on its page
TYPES_FRESH_S = 30.0
MAX_TYPES = 1_000
DISABLED = "disabled"


@dataclass(frozen=True, slots=True)
class Shown:
    """A field's newest value, with what the device type says of it, else what the device told."""

    name: str
    value: FieldValue
    time_ns: int
    measurement: str = "telemetry"
    unit: str = ""
    description: str = ""
    label: str = ""  # as the device calls it

    @property
    def is_numeric(self) -> bool:
        """Tell whether a chart can show it."""
        return isinstance(self.value, int | float) and not isinstance(self.value, bool)


@dataclass(frozen=True, slots=True)
class Row:
    """A device in a table."""

    id: str
    type: str | None
    tags: Mapping[str, str]
    is_online: bool
    last_seen: Any = None
    state: str = "active"
    is_gateway: bool = False
    heard: str = ""  # its presence, where the registry tells that: online, stale, offline, never
    attributes: Mapping[str, Any] = field(default_factory=dict)
    fw: str | None = None
    created: Any = None

    @property
    def presence(self) -> str:
        """One word for the dot and its text."""
        if self.state == DISABLED:
            return DISABLED
        return self.heard or ("online" if self.is_online else "offline")


@dataclass(frozen=True, slots=True)
class Reading:
    """A device on the overview."""

    row: Row
    fields: list[Shown]


@dataclass(frozen=True, slots=True)
class DevicePage:
    """All of one device."""

    row: Row
    details: Mapping[str, Any]
    fields: list[Shown]
    quarantine: list[Mapping[str, Any]] | None  # None: the ingest service does not answer
    charts: list[Shown] = field(default_factory=list)
    delivery: Mapping[str, Any] | None = None  # its ledger; None: the ingest service does not answer
    groups: list[str] = field(default_factory=list)
    children: list[Mapping[str, Any]] | None = None  # the first of a gateway's; None: none may be shown
    usage: list[Mapping[str, Any]] = field(default_factory=list)  # days on which it sent something
    has_media: bool = False


@dataclass(frozen=True, slots=True)
class Asker:
    """Whose page it is: their token, and the tenant in which they act."""

    token: str
    tenant: str


class Views:
    """Asks devices and ingest, and the store, for what a page shows."""

    def __init__(self, devices: Peer, ingest: Peer, queries: Queries, directory: Directory) -> None:
        self._devices = devices
        self._ingest = ingest
        self._queries = queries
        self._directory = directory
        self._descriptions = Descriptions(devices)
        self._lock = threading.Lock()  # guards _types
        self._types: dict[str, tuple[float, Mapping[str, Any]]] = {}

    def readings(self, token: str, tenant: str) -> list[Reading]:
        """Give the newest values of a few devices of each type, those online first; none while the registry is away."""
        try:
            entries = self._directory.entries(tenant).values()
        except HeadwaterError:
            return []
        chosen = _choose(entries)
        if not chosen:
            return []
        points = self._queries.latest(Selection([entry.id for entry in chosen], tenant=tenant)).points
        asker, told = Asker(token, tenant), self._descriptions.of(tenant, [entry.id for entry in chosen]) or {}
        return [
            Reading(_row_of(entry), self._fields(asker, _row_of(entry), points, told.get(entry.id, {})))
            for entry in chosen
        ]

    def devices(self, token: str, asked: Mapping[str, str]) -> dict[str, Any]:
        """Give a page of the device table: rows and the cursor of the next page."""
        answer = self._devices.call("GET", f"/v1/devices?{urlencode(asked)}", token=token)
        return {"items": [self._row(item) for item in answer["items"]], "next": answer.get("next")}

    def device(self, token: str, device_id: str, tenant: str) -> DevicePage:
        """Give all of one device.

        Raises:
            NotFound: there is no such device.
        """
        details = self._devices.call("GET", f"/v1/devices/{quote(device_id, safe='')}", token=token)
        row = self._row(details)
        points = self._queries.latest(Selection([row.id], tenant=tenant), limit=MAX_FIELDS).points
        fields = self._fields(Asker(token, tenant), row, points, by_field(details.get("described", ())))
        charts = [shown for shown in fields if shown.is_numeric][:MAX_CHARTS]
        quarantine, delivery = self._quarantine_of(token, row.id), self._delivery_of(token, row.id)
        groups, children = self._groups_of(token, row.id), self._children_of(token, row)
        usage, has_media = self._usage_of(token, row.id), any(point.measurement == MEDIA for point in points)
        return DevicePage(row, details, fields, quarantine, charts, delivery, groups, children, usage, has_media)

    def quarantine(self, token: str, asked: Mapping[str, str]) -> dict[str, Any]:
        """Give a page of quarantined messages."""
        answer: dict[str, Any] = self._ingest.call("GET", f"/v1/quarantine?{urlencode(asked)}", token=token)
        return answer

    def replay(self, token: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Replay quarantined messages; give how many went through and which failed."""
        answer: dict[str, Any] = self._ingest.call("POST", "/v1/quarantine:replay", body, token=token)
        return answer

    def protocols(self, token: str) -> dict[str, Any]:
        """Give all protocols, with what the tenant's devices said in them."""
        answer: dict[str, Any] = self._ingest.call("GET", "/v1/protocols", token=token)
        return answer

    def _quarantine_of(self, token: str, device_id: str) -> list[Mapping[str, Any]] | None:
        try:
            items: list[Mapping[str, Any]] = self.quarantine(
                token, {"device": device_id, "limit": str(DEVICE_QUARANTINE)}
            )["items"]
        except HeadwaterError:
            return None
        return items

    def _delivery_of(self, token: str, device_id: str) -> Mapping[str, Any] | None:
        try:
            found: Mapping[str, Any] = self._ingest.call("GET", f"/v1/devices/{device_id}/ledger", token=token)
        except HeadwaterError:
            return None
        return found

    def _groups_of(self, token: str, device_id: str) -> list[str]:
        found: list[str] = self._devices.call("GET", f"/v1/devices/{device_id}/groups", token=token)["items"]
        return found

    def _usage_of(self, token: str, device_id: str) -> list[Mapping[str, Any]]:
        path = f"/v1/devices/{device_id}/usage"
        found: list[Mapping[str, Any]] = self._devices.call("GET", path, token=token)["items"]
        return [day for day in found if day["messages"] or day["points"]]

    def _children_of(self, token: str, row: Row) -> list[Mapping[str, Any]] | None:
        if not row.is_gateway:
            return None
        path = f"/v1/devices/{row.id}/children?limit={CHILDREN + 1}"
        try:
            found: list[Mapping[str, Any]] = self._devices.call("GET", path, token=token)["items"]
        except HeadwaterError:  # a token for some devices may not see them
            return None
        return found

    def _row(self, item: Mapping[str, Any]) -> Row:
        return Row(
            id=item["id"],
            type=item.get("type"),
            tags=item.get("tags") or {},
            is_online=bool(item.get("online")),
            last_seen=item.get("last_seen"),
            state=item.get("state") or "active",
            is_gateway=bool(item.get("gateway")),
            heard=item.get("presence") or "",
            attributes=item.get("attributes") or {},
            fw=item.get("fw"),
            created=item.get("created"),
        )

    def _fields(self, asker: Asker, row: Row, points: list[Point], told: Known) -> list[Shown]:
        specs = self._specs(asker, row.type) if row.type else {}
        newest: dict[tuple[str, str], Shown] = {}
        for point in points:
            if point.device != row.id or point.measurement == MEDIA:
                continue
            for name, value in point.fields.items():
                spec, said = specs.get(name) or {}, told.get((point.measurement, name), {})
                unit = spec.get("unit") or said.get("unit", "")
                description, label = spec.get("description", ""), said.get("label", "")
                shown = Shown(name, value, point.time_ns, point.measurement, unit, description, label)
                known = newest.get((point.measurement, name))
                if known is None or known.time_ns < point.time_ns:
                    newest[point.measurement, name] = shown
        order = {name: at for at, name in enumerate(specs)}  # as the type lists them, the rest by name
        return sorted(newest.values(), key=lambda shown: (order.get(shown.name, len(order)), shown.name))

    def _specs(self, asker: Asker, type_name: str) -> Mapping[str, Any]:
        key = type_key(asker.tenant, type_name)
        with self._lock:
            read_s, specs = self._types.get(key, (-TYPES_FRESH_S, {}))
        if time.monotonic() - read_s < TYPES_FRESH_S:
            return specs
        try:
            specs = self._devices.call("GET", f"/v1/device-types/{quote(type_name, safe='')}", token=asker.token)[
                "fields"
            ]
        except NotFound:
            specs = {}
        except HeadwaterError:
            return specs  # units of a moment ago, or none, are better than no page
        with self._lock:
            if len(self._types) >= MAX_TYPES:
                self._types.clear()
            self._types[key] = (time.monotonic(), specs)
        return specs


def _choose(entries: Iterable[Entry]) -> list[Entry]:
    """Choose what the overview shows: online before offline, and the types in turn, so that each is seen."""
    turns: Counter[tuple[bool, str]] = Counter()
    ranked = []
    for entry in sorted(entries, key=lambda entry: entry.id):
        group = (not entry.is_online, entry.type or "")
        ranked.append((group[0], turns[group], entry.id, entry))
        turns[group] += 1
    chosen = [entry for *_, entry in heapq.nsmallest(READINGS, ranked)]
    return sorted(chosen, key=lambda entry: (not entry.is_online, entry.id))


def _row_of(entry: Entry) -> Row:
    return Row(entry.id, entry.type, entry.tags, entry.is_online)
