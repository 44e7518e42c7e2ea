"""What an ingestion service tells the registry: who was seen, which credential was used, who tried what.

Collected in memory, bounded, sent every two seconds, best effort: telemetry never waits for it.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from chassis import logs
from chassis.metrics import Counter
from chassis.peers import Peer
from ingest.descriptions import Descriptions, to_body
from ingest.usage import Key, Spent, Usage
from wire.descriptions import MAX_AT_ONCE
from wire.devices import TENANT
from wire.errors import HeadwaterError, PeerUnavailable

log = logs.get(__name__)

SEND_S = 2.0
MAX_SEEN = 100_000
MAX_SEEN_PER_CALL = 5_000  # keeps a call far below the registry's body limit
MAX_AUDIT = 1_000
USAGE_TURNS = 5  # usage is told each fifth time, every 10 s: a write of the registry's database
DEVICE_TURNS = 30  # and that of single devices once a minute, unless they are many
MAX_TYPES_PER_CALL = 1_000
MAX_DEVICES_PER_CALL = 2_000  # rows of one transaction: others wait for it
SAME_AUDIT_S = 60.0  # the same attempt again within this time is not told again
OF_ONE_AUDIT = 20  # attempts of one device within it that are told: a flood must not fill the audit
MAX_TEXT = 256

_ODD = re.compile(r"[^\x20-\x7e]")  # names come from strangers
UNSENT = Counter("headwater_ingest_reports_unsent", "Reports to the registry that were given up", ["kind"])


class AuditEntry(NamedTuple):
    """Something the registry's audit should hold."""

    actor: str
    action: str
    object: str
    detail: str
    remote_ip: str = ""
    tenant: str = TENANT


class Reports:
    """Collects and sends. Thread-safe; `send` is called by one thread."""

    def __init__(self, registry: Peer) -> None:
        self.usage = Usage()
        self.descriptions = Descriptions()
        self._registry = registry
        self._lock = threading.Lock()  # guards the six below
        self._http: dict[str, int] = {}
        self._mqtt: dict[str, int] = {}
        self._credentials: dict[str, int] = {}
        self._presence: dict[str, tuple[bool, int]] = {}
        self._audit: list[AuditEntry] = []
        self._told: dict[str, dict[tuple[str, str], float]] = {}  # actor -> attempt -> monotonic time it was noted

    def note_seen(self, device_id: str, received_ns: int, credential_id: str | None = None) -> None:
        """Note that a device sent something: over HTTP with a credential, else over MQTT (the broker checked)."""
        if credential_id is None:
            self._mqtt[device_id] = received_ns  # one dict store is atomic; the lock is for taking all
            return
        self._http[device_id] = received_ns
        self._credentials[credential_id] = received_ns

    def note_all_seen(self, received_ns: dict[str, int]) -> None:
        """Note for many devices when they last sent something over MQTT."""
        self._mqtt.update(received_ns)

    def note_children(self, device_ids: Iterable[str], received_ns: int, *, by_mqtt: bool) -> None:
        """Note devices that another one spoke for."""
        (self._mqtt if by_mqtt else self._http).update(dict.fromkeys(device_ids, received_ns))

    def note_presence(self, told: Mapping[str, bool], received_ns: int) -> None:
        """Note of devices whether they are online, as those who speak for them say."""
        if told:
            with self._lock:
                self._presence |= {device: (is_online, received_ns) for device, is_online in told.items()}

    def note_deed(self, entry: AuditEntry) -> None:
        """Note what an operator did, for the audit."""
        with self._lock:
            self._put(entry)

    def note_attempt(self, entry: AuditEntry) -> None:
        """Note an attempt for the audit; within a minute repeated ones once, and of one device a few."""
        key, now_s = (entry.action, entry.object), time.monotonic()
        with self._lock:
            if entry.actor not in self._told and len(self._told) >= MAX_AUDIT:
                self._told.clear()
            told = {each: at_s for each, at_s in self._told.get(entry.actor, {}).items() if now_s - at_s < SAME_AUDIT_S}
            self._told[entry.actor] = told
            if key in told or len(told) >= OF_ONE_AUDIT:
                return
            told[key] = now_s
            self._put(entry)

    def tell(self, turn: int) -> None:
        """Tell what is due at this turn; at turn 0, the last one, everything."""
        self.send()
        if turn % USAGE_TURNS == 0:
            self.tell_usage()
        if turn % DEVICE_TURNS == 0 or self.usage.is_crowded:
            self.tell_devices()

    def send(self) -> None:
        """Send what was collected; while the registry is away audit entries and presence are kept for the next time."""
        with self._lock:
            http, self._http = self._http, {}
            mqtt, self._mqtt = self._mqtt, {}
            credentials, self._credentials = self._credentials, {}
            presence, self._presence = self._presence, {}
            audit = self._audit[:MAX_AUDIT]
        if not self._send_seen({"devices": http, "mqtt": mqtt, "credentials": credentials, "presence": presence}):
            with self._lock:  # unlike a sign of life, a death is not told again
                self._presence = dict(list(presence.items())[:MAX_SEEN]) | self._presence
        if audit and self._call("/internal/audit", {"entries": [_shown(entry) for entry in audit]}):
            with self._lock:
                del self._audit[: len(audit)]
        self._describe()

    def tell_usage(self) -> None:
        """Tell what devices of each type have sent since the last time; what cannot be told is kept."""
        for part in _parts(self.usage.take_types(), MAX_TYPES_PER_CALL):
            if not self._call("/internal/usage", {"types": _by_tenant(part)}):
                self.usage.put_types_back(part)

    def tell_devices(self) -> None:
        """Tell what each device has sent since the last time; what cannot be told is kept, as far as there is room."""
        for part in _parts(self.usage.take_devices(), MAX_DEVICES_PER_CALL):
            if not self._call("/internal/usage", {"devices": _by_tenant(part)}):
                self.usage.put_devices_back(part)

    def _describe(self) -> None:
        """Tell what devices said of their fields; what cannot be told is kept."""
        while taken := self.descriptions.take(MAX_AT_ONCE):
            if not self._call("/internal/descriptions", to_body(taken)):
                return
            self.descriptions.settle(taken)

    def _put(self, entry: AuditEntry) -> None:
        if len(self._audit) < MAX_AUDIT:
            self._audit.append(entry)
        else:
            UNSENT.labels("audit").inc()

    def _send_seen(self, seen: dict[str, dict[str, Any]]) -> bool:
        lists = {name: list(times.items())[:MAX_SEEN] for name, times in seen.items()}
        longest = max(map(len, lists.values()))
        for start in range(0, longest, MAX_SEEN_PER_CALL):
            body = {name: dict(times[start : start + MAX_SEEN_PER_CALL]) for name, times in lists.items()}
            if not self._call("/internal/seen", body):
                UNSENT.labels("seen").inc(longest - start)
                return False
        return True

    def _call(self, path: str, body: Any) -> bool:
        """Tell whether the report is done with: sent, or refused for good."""
        try:
            self._registry.call("POST", path, body)
        except PeerUnavailable:
            return False
        except HeadwaterError as error:
            UNSENT.labels(path).inc()
            log.warning("report_refused", path=path, code=error.code)
        return True


def _parts(taken: Mapping[Key, Spent], most: int) -> Iterator[dict[Key, Spent]]:
    items = list(taken.items())
    for start in range(0, len(items), most):
        yield dict(items[start : start + most])


def _by_tenant(part: Mapping[Key, Spent]) -> dict[str, dict[str, Spent]]:
    found: dict[str, dict[str, Spent]] = {}
    for (tenant, name), spent in part.items():
        found.setdefault(tenant, {})[name] = spent
    return found


def _shown(entry: AuditEntry) -> dict[str, Any]:
    """Render as the registry takes it: single-line texts, a detail of members."""
    shown = {name: _ODD.sub("?", value)[:MAX_TEXT] for name, value in entry._asdict().items()}
    return shown | {"detail": {"reason": shown["detail"]}}
