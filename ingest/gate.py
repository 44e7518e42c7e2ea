"""Who may send: devices and their credentials, cached over the registry so that telemetry outlives it.

The registry is asked only for devices not seen lately. Changes come by a long poll, as they are made, so a revoked
credential stops within a second; while the registry is away, what is cached goes on working.
"""

from __future__ import annotations

import hashlib
import hmac
import ssl
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import Any, NamedTuple
from urllib.parse import unquote

from chassis import logs, parking
from chassis.metrics import Counter, Gauge
from chassis.peers import Peer
from chassis.tokens import hash_token
from ingest.names import NameBook
from ingest.rates import Bands, to_bands
from ingest.validation import TypeChecker
from wire import clock, topics
from wire.devices import TENANT, Changes, CredentialRecord, DeviceIdentity, LookupResult, type_key
from wire.errors import Forbidden, HeadwaterError, PeerUnavailable, Unauthorized
from wire.group_keys import may_be_derived

log = logs.get(__name__)

MAX_CACHED = 50_000  # devices; about 1 KiB each
MAX_ABSENT = 10_000
MAX_SHOWN = 10_000  # certificates; about 2 KiB each
ABSENT_S = 2.0  # how long an unknown id is not asked for again; the feed ends it sooner
DOUBT_S = 0.25  # a refusal is checked with the registry again when the cached answer is older
WAIT_S = 1.0  # how long one question for changes stays open: a process that stops is held up by no more
PAUSE_S = 0.1  # between two questions: changes that come together are fetched together
AWAY_S = 0.5  # until a registry that is away is asked again
LOOKUP_IDS = 5_000  # what one lookup may ask
TOGETHER_IDS = 500  # how many requests may wait for one lookup: a second of the registry's time

LOOKUPS = Counter("headwater_ingest_gate_lookups", "Devices asked for at the gate", ["found"])
_CACHED_LOOKUPS = LOOKUPS.labels("cached")
CACHED = Gauge("headwater_ingest_gate_cached", "Devices in the cache", multiprocess_mode="livesum")


class Known(NamedTuple):
    """A device as the gate holds it."""

    id: str
    tenant: str
    is_active: bool  # may authenticate
    type: str | None
    is_gateway: bool
    credentials: tuple[CredentialRecord, ...]
    fetched_s: float  # monotonic
    is_held: bool = False  # its data waits until it is accepted
    parent: str | None = None  # the gateway it is seen through
    prefixes: tuple[str, ...] = ()  # of a gateway: how the ids begin that it speaks for; none: any
    born_ns: int = 0  # when it was registered: it may not be the first of its id
    rate: Bands | None = None  # what it may send; None: as its type says
    names: tuple[str, ...] = ()  # external ones


class Found(NamedTuple):
    """Answer for many devices: those known, and those the registry could not be asked for."""

    known: dict[str, Known]
    unanswered: frozenset[str]


class Gate:
    """Checks credentials and finds devices. Thread-safe; `poll` is called by one thread."""

    def __init__(
        self, registry: Peer, limit_tenants: Callable[[Mapping[str, str | None]], None] = lambda _: None
    ) -> None:
        """Ask `registry`; `limit_tenants` is told the rate limits of tenants, see `ingest.rates.RateLimits`."""
        self._registry = registry
        self._limit_tenants = limit_tenants
        self._asking = threading.Lock()  # held by the one that asks for single devices; taken before _lock
        self._lock = threading.Lock()  # guards the four below; single reads go without it
        self._devices: OrderedDict[str, Known] = OrderedDict()
        self._absent: dict[str, float] = {}  # id -> monotonic time until which it is not asked for
        self._checkers: dict[str, TypeChecker] = {}  # by wire.devices.type_key
        self._wanted: dict[str, Future[Known | None]] = {}  # single devices that go into the next lookup
        self._shown: dict[str, tuple[str, str]] = {}  # certificate as shown -> device, fingerprint
        self._revision = 0  # newest heard of: an answer from before it is not kept
        self._polled = 0  # newest that is wholly taken in
        self.has_reached_registry = False
        self.names = NameBook(self.ask, lambda: self._revision)

    def authenticate(self, device_id: str, secret: str, remote_ip: str = "") -> tuple[Known, str]:
        """Check a presented credential; give the device and the credential's id.

        A device nobody knows is registered by the registry, when its secret is derived from the key of a group.

        Raises:
            Unauthorized: no such device, or none of its valid credentials fits.
            Forbidden: the device is disabled.
            PeerUnavailable: the device is not cached and the registry is away.
        """
        digest = hash_token(secret)
        device = self._get(device_id) if topics.is_device_id(device_id) else None
        credential = _fitting(device, digest)
        if device is not None and (credential is None or not device.is_active) and self._may_doubt(device):
            device = self._ask_again(device)
            credential = _fitting(device, digest)
        if device is None and may_be_derived(secret) and topics.is_device_id(device_id):
            device = self._admit(device_id, digest, remote_ip)
            credential = _fitting(device, digest)
        if device is None or credential is None:
            raise Unauthorized("the device id or the secret is wrong")
        if not device.is_active:
            raise Forbidden(f"{device_id} is disabled", code="device_disabled")
        return device, credential

    def authenticate_certificate(self, escaped_pem: str, remote_ip: str = "") -> tuple[Known, str]:
        """Check a certificate whose key the sender has proved to hold to the gateway.

        Raises:
            Unauthorized: it is nobody's, or was revoked.
            Forbidden: the device is disabled.
            PeerUnavailable: it is not cached and the registry is away.
        """
        shown = self._shown.get(escaped_pem) or self._resolve(escaped_pem, remote_ip)
        device = self._get(shown[0])
        credential = _fitting(device, shown[1], "x509")
        if device is not None and credential is None and self._may_doubt(device):
            device = self._ask_again(device)
            credential = _fitting(device, shown[1], "x509")
        if device is None or credential is None:
            raise Unauthorized("this certificate is no credential of a device")
        if not device.is_active:
            raise Forbidden(f"{device.id} is disabled", code="device_disabled")
        return device, credential

    def find(self, device_ids: Iterable[str], *, doubts: bool = False) -> Found:
        """Find devices by id; ids that do not exist are in neither part of the answer.

        With `doubts` the registry is asked again for ids that lately did not exist: the broker has let them in.
        """
        now_s, known, unknown = time.monotonic(), {}, []
        for device_id in device_ids:
            device = self._devices.get(device_id)
            if device is not None and (device.is_active or now_s - device.fetched_s < DOUBT_S):
                known[device_id] = device
            elif doubts or self._absent.get(device_id, 0.0) <= now_s:
                unknown.append(device_id)
        _CACHED_LOOKUPS.inc(len(known))
        unanswered: set[str] = set()
        for start in range(0, len(unknown), LOOKUP_IDS):
            part = unknown[start : start + LOOKUP_IDS]
            try:
                known |= self._fetch(part) if len(part) > 1 else self._fetch_together(part[0])
            except PeerUnavailable:
                kept = {device_id: self._devices[device_id] for device_id in part if device_id in self._devices}
                known |= kept
                unanswered |= set(part) - kept.keys()
        return Found(known, frozenset(unanswered))

    def is_cached(self, device_id: str) -> bool:
        """Tell whether a device exists, as far as is known without asking."""
        return device_id in self._devices

    def may_be_of(self, tenant: str, device_id: str) -> bool:
        """Tell whether a tenant has a device; while the registry is away, one that is not cached may be its."""
        if not topics.is_device_id(device_id):
            return False
        found = self.find((device_id,))
        device = found.known.get(device_id)
        return device.tenant == tenant if device is not None else device_id in found.unanswered

    def tenant_of(self, device_id: str) -> str:
        """Give a device's tenant, as far as is known without asking; else that of the platform."""
        device = self._devices.get(device_id)
        return TENANT if device is None else device.tenant

    def checker_of(self, device: Known) -> TypeChecker | None:
        """Give the checker of a device's type; None for a device without one."""
        return self._checkers.get(type_key(device.tenant, device.type)) if device.type is not None else None

    def poll(self, wait_s: float = 0.0) -> bool:
        """Ask the registry what changed and fetch that; tell whether it answered. One that is away is no fault.

        With `wait_s` it answers as soon as something changes, or when that time is over.

        What is cached stays until its new state is here: a registry that goes away right after a change must not take
        its devices along. The next poll asks from the same place.
        """
        try:
            changes = Changes.model_validate(self.ask("GET", f"/internal/changes?wait={wait_s}&since={self._polled}"))
            self._note_changes(changes)
            self._renew(changes.devices)
            self.names.renew(changes.devices)
            self._refresh(changes.types, changes.tenants)
        except PeerUnavailable:
            return False
        self._polled = changes.revision
        return True

    @property
    def revision(self) -> int:
        """Number of the registry's newest change that is taken in."""
        return self._polled

    def expect(self, device_ids: Iterable[str]) -> None:
        """Ask for these again at once: they were registered just now."""
        with self._lock:
            for device_id in device_ids:
                self._absent.pop(device_id, None)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Ask the registry; whatever it says but an answer means that it is away. Raises PeerUnavailable."""
        try:
            answer = self._registry.call(method, path, body)
        except PeerUnavailable:
            raise
        except HeadwaterError as error:  # its refusal of us is no refusal of the device
            raise PeerUnavailable(f"the registry refuses {path}: {error.code}") from error
        self.has_reached_registry = True
        return answer

    def __len__(self) -> int:
        return len(self._devices)

    def _get(self, device_id: str) -> Known | None:
        device = self._devices.get(device_id)
        if device is not None and device.is_active:  # the way of nearly all
            _CACHED_LOOKUPS.inc()
            return device
        found = self.find((device_id,))
        if device_id in found.unanswered:
            raise PeerUnavailable(f"{device_id} is not cached and the registry is away")
        return found.known.get(device_id)

    def _admit(self, device_id: str, digest: str, remote_ip: str) -> Known | None:
        asked = {"id": device_id, "sha256": digest, "remote_ip": remote_ip}
        admitted = parking.aside(self.ask, "POST", "/internal/devices:admit", asked)["admitted"]
        return self._fetch_together(device_id).get(device_id) if admitted else None

    def _resolve(self, escaped_pem: str, remote_ip: str) -> tuple[str, str]:
        pem = unquote(escaped_pem)
        try:
            fingerprint = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
        except ValueError:
            raise Unauthorized("not a certificate") from None
        asked = {"certificate": pem, "remote_ip": remote_ip}
        found = parking.aside(self.ask, "POST", "/internal/certificates:resolve", asked)["device"]
        if found is None:
            raise Unauthorized("this certificate is no credential of a device")
        if len(self._shown) >= MAX_SHOWN:
            self._shown.clear()
        self._shown[escaped_pem] = (found, fingerprint)
        self._absent.pop(found, None)
        return found, fingerprint

    def _may_doubt(self, device: Known) -> bool:
        return time.monotonic() - device.fetched_s >= DOUBT_S

    def _ask_again(self, device: Known) -> Known | None:
        """Fetch a device once more, because a refusal may rest on an old answer (a credential made just now)."""
        try:
            return self._fetch_together(device.id).get(device.id)
        except PeerUnavailable:
            return device

    def _fetch_together(self, device_id: str) -> dict[str, Known]:
        """Fetch one device; those that other threads want meanwhile go into one lookup, the next.

        A fleet that starts at once would otherwise make a call a device, and the registry would answer none in time.
        """
        with self._lock:
            future = self._wanted.setdefault(device_id, Future())
        parking.aside(self._ask_until_done, future)
        device = future.result()
        return {} if device is None else {device_id: device}

    def _ask_until_done(self, future: Future[Known | None]) -> None:
        with self._asking:
            while not future.done():  # else who held the lock before has asked for this one too
                self._ask_for_wanted()

    def _ask_for_wanted(self) -> None:
        with self._lock:
            wanted = {device_id: self._wanted.pop(device_id) for device_id in list(self._wanted)[:TOGETHER_IDS]}
        try:
            fetched = self._fetch(list(wanted))
        except Exception as error:
            for future in wanted.values():
                future.set_exception(error)
            return
        for device_id, future in wanted.items():
            future.set_result(fetched.get(device_id))

    def _fetch(self, device_ids: list[str]) -> dict[str, Known]:
        LOOKUPS.labels("asked").inc(len(device_ids))
        answer = LookupResult.model_validate(self.ask("POST", "/internal/devices:lookup", {"ids": device_ids}))
        now_s = time.monotonic()
        fetched = {device.id: _known(device, now_s) for device in answer.devices}
        with self._lock:
            self._learn_types(answer)
            if answer.revision >= self._revision:  # an older answer may hold what the feed has revoked since
                self._limit_tenants(answer.rate_limits)
                self._keep(fetched)
                self._note_absent([id_ for id_ in device_ids if id_ not in fetched], now_s)
        return fetched

    def _learn_types(self, answer: LookupResult) -> None:
        for key, spec in answer.types.items():
            current = self._checkers.get(key)
            is_news = current is None or (answer.revision >= self._revision and current.spec != spec)
            if is_news:
                self._checkers[key] = TypeChecker(spec)
        if answer.revision >= self._revision:
            worn = {type_key(device.tenant, device.type) for device in answer.devices if device.type}
            for key in worn - answer.types.keys():
                self._checkers.pop(key, None)  # the name stands for no rules any more

    def _keep(self, fetched: dict[str, Known]) -> None:
        for device_id, device in fetched.items():
            self._devices[device_id] = device
            self._devices.move_to_end(device_id)
            self._absent.pop(device_id, None)
        while len(self._devices) > MAX_CACHED:
            self._devices.popitem(last=False)
        CACHED.set(len(self._devices))

    def _note_absent(self, device_ids: list[str], now_s: float) -> None:
        if len(self._absent) + len(device_ids) > MAX_ABSENT:
            self._absent.clear()
        for device_id in device_ids[:MAX_ABSENT]:
            self._devices.pop(device_id, None)
            self._absent[device_id] = now_s + ABSENT_S

    def _note_changes(self, changes: Changes) -> None:
        with self._lock:
            if changes.reset:
                log.info("gate_reset", revision=changes.revision)
                self._devices.clear()
                self._absent.clear()
                self.names.forget()
                CACHED.set(0)
            for device_id in changes.devices:
                self._absent.pop(device_id, None)
            self._revision = changes.revision

    def _renew(self, device_ids: list[str]) -> None:
        """Fetch changed devices that are cached; those that are gone are forgotten."""
        with self._lock:
            cached = [device_id for device_id in device_ids if device_id in self._devices]
        for start in range(0, len(cached), LOOKUP_IDS):
            self._fetch(cached[start : start + LOOKUP_IDS])

    def _refresh(self, types: list[str], tenants: list[str]) -> None:
        """Fetch changed types and tenants by a device of each: their rules must not vanish with the registry."""
        wanted: dict[str, str] = {}
        with self._lock:
            for device in self._devices.values() if types or tenants else ():
                if device.type is not None and (key := type_key(device.tenant, device.type)) in types:
                    wanted.setdefault(key, device.id)
                if device.tenant in tenants:
                    wanted.setdefault(device.tenant, device.id)  # no name of a tenant is one of a type: they hold "/"
        if wanted:  # what no cached device is of comes with the next lookup of one
            self._fetch(list(dict.fromkeys(wanted.values())))


def _fitting(device: Known | None, digest: str, kind: str = "secret") -> str | None:
    now_ns, found = clock.now_ns(), None
    for credential in device.credentials if device is not None else ():
        if credential.kind == kind and hmac.compare_digest(credential.sha256, digest) and _is_valid(credential, now_ns):
            found = credential.id
    return found


def _is_valid(credential: CredentialRecord, now_ns: int) -> bool:
    if credential.not_before_ns is not None and now_ns < credential.not_before_ns:
        return False
    return credential.not_after_ns is None or now_ns < credential.not_after_ns


def _known(device: DeviceIdentity, now_s: float) -> Known:
    credentials = tuple(device.credentials)
    is_active, is_held = device.state in ("active", "held"), device.state == "held"
    rate = None if device.rate_limit is None else to_bands(device.rate_limit)
    return Known(
        device.id, device.tenant, is_active, device.type, device.gateway, credentials, now_s, is_held,
        device.parent, tuple(device.prefixes), device.created_ns, rate, tuple(device.names),
    )  # fmt: skip
