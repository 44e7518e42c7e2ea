"""The door at which a device shows its own credential to the registry, and what is noted of its visits."""

from __future__ import annotations

import hashlib
import hmac
import ssl
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol
from urllib.parse import unquote

from flask import request

from chassis import parking
from chassis.guessing import DeviceGuesses
from chassis.tokens import hash_token
from wire import clock, topics
from wire.devices import CredentialRecord, DeviceIdentity, LookupResult, parse_bearer
from wire.errors import Forbidden, HeadwaterError, Unauthorized

FLUSH_S = 1.0
CERTIFICATE = "X-Client-Certificate"  # escaped PEM, set or taken away by the gateway
_BEARER = "bearer "


class Claim(NamedTuple):
    """Who somebody says to be, and the hash of what is to prove it."""

    device_id: str
    sha256: str
    kind: Literal["secret", "x509"] = "secret"
    remote_ip: str = ""
    child: str = ""  # a gateway speaks for it

    @property
    def subject(self) -> str:
        """The device that it is about."""
        return self.child or self.device_id


class Lookups(Protocol):
    """Who is who; see `devices.internal.lookups.LookupStore`."""

    def lookup(self, ids: Sequence[str]) -> LookupResult: ...


class Sightings(Protocol):
    """Takes signs of life; see `devices.presence.keeper.Keeper`."""

    def see(self, seen_ns: Mapping[str, int], *, by_mqtt: bool = False) -> None: ...
    def note_spoke(self, devices: Iterable[str]) -> None: ...


class Uses(Protocol):
    """Takes uses of credentials; see `devices.store.CredentialStore`."""

    def mark_used(self, used_ns: dict[str, int]) -> None: ...


class DeviceDoor:
    """Lets devices in; thread-safe. Visits are written together, once a second."""

    def __init__(
        self, lookups: Lookups, sightings: Sightings, uses: Uses, resolve: Callable[[str, str], str | None]
    ) -> None:
        """`resolve` tells whose a certificate (PEM) is, shown from an address; None: nobody's."""
        self._resolve = resolve
        self._lookups = lookups
        self._sightings = sightings
        self._uses = uses
        self.trespassed: Callable[[str, str, str], None] = lambda *_: None  # told gateway, whom it named, from where
        self._guesses = DeviceGuesses()
        self._lock = threading.Lock()  # guards the three below
        self._spoke: set[str] = set()
        self._seen: dict[str, int] = {}
        self._used: dict[str, int] = {}

    def read_claim(self, remote_ip: str, child: str | None = None) -> Claim:
        """Take what the request shows: `Bearer {device_id}.{secret}`, Basic, or else a certificate.

        With `child` the one who shows it is to be the gateway of that device.

        Raises:
            Unauthorized: none of these, or nobody's certificate.
        """
        escaped = request.headers.get(CERTIFICATE, "")
        if escaped and "Authorization" not in request.headers:
            return parking.aside(self._read_certificate, unquote(escaped), remote_ip)._replace(child=child or "")
        return self.to_claim(_presented(), remote_ip, child or "")

    def to_claim(self, presented: tuple[str, str] | None, remote_ip: str, child: str = "") -> Claim:
        """Make a claim of a device id and a secret, wherever in the request they were.

        Raises:
            Unauthorized: there are none.
        """
        if presented is None:
            raise Unauthorized("a device presents Authorization: Bearer {device_id}.{secret}, Basic, or a certificate")
        device_id, secret = presented
        return Claim(device_id, hash_token(secret), remote_ip=remote_ip, child=child)

    def authenticate(self, claim: Claim) -> DeviceIdentity:
        """Let a device in, and give it or the child that it speaks for; it asks the database.

        Raises:
            Unauthorized: no such device, or none of its valid credentials fits.
            TooManyRequests: the same, and there were too many of them.
            Forbidden: the device or the child is not active, or it is no child of it.
        """
        outcome = self.authenticate_all([claim])[0]
        if isinstance(outcome, HeadwaterError):
            raise outcome
        return outcome

    def authenticate_all(self, claims: Sequence[Claim]) -> list[DeviceIdentity | HeadwaterError]:
        """Do so with many, by one look at the database; for each give the device, or why it was not let in."""
        named = {each for claim in claims for each in (claim.device_id, claim.child) if topics.is_device_id(each)}
        known = {device.id: device for device in self._lookups.lookup(sorted(named)).devices} if named else {}
        outcomes: list[DeviceIdentity | HeadwaterError] = []
        for claim in claims:
            try:
                outcomes.append(self._judge(claim, known))
            except HeadwaterError as error:
                outcomes.append(error)
        return outcomes

    def _judge(self, claim: Claim, known: Mapping[str, DeviceIdentity]) -> DeviceIdentity:
        device, now_ns = known.get(claim.device_id), clock.now_ns()
        credential = None if device is None else _fitting(device.credentials, claim, now_ns)
        if device is None or credential is None:
            self._guesses.wrong("" if device is None else device.id, claim.remote_ip)
            raise Unauthorized("the device id or its credential is wrong")
        if device.state != "active":
            raise Forbidden(f"{device.id} is {device.state}", code="device_disabled")
        with self._lock:
            self._seen[device.id] = self._used[credential] = now_ns
        return self._find_child(device, claim, known) if claim.child else device

    def _find_child(self, gateway: DeviceIdentity, claim: Claim, known: Mapping[str, DeviceIdentity]) -> DeviceIdentity:
        child_id = claim.child
        is_allowed = not gateway.prefixes or child_id.startswith(tuple(gateway.prefixes))
        child = known.get(child_id)
        if child is None or child.parent != gateway.id or not is_allowed:
            self.trespassed(gateway.id, child_id, claim.remote_ip)
            text = f"gateway {gateway.id} does not speak for {child_id[:80]!r}"
            raise Forbidden(text, code="identity_mismatch", fields=["device"])
        if child.state != "active":
            raise Forbidden(f"{child_id} is {child.state}", code="device_disabled")
        with self._lock:
            self._seen[child_id] = clock.now_ns()
        return child

    def _read_certificate(self, pem: str, remote_ip: str) -> Claim:
        try:
            fingerprint = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
        except ValueError:
            raise Unauthorized("not a certificate") from None
        device_id = self._resolve(pem, remote_ip)
        if device_id is None:
            raise Unauthorized("this certificate is no credential of a device")
        return Claim(device_id, fingerprint, "x509")

    def note_connected(self, device_id: str, credential_id: str) -> None:
        """Note a device that the broker lets in because it showed this credential."""
        with self._lock:
            self._seen[device_id] = self._used[credential_id] = clock.now_ns()

    def note_spoke(self, devices: Iterable[str]) -> None:
        """Note devices that were let in by the broker, and spoke."""
        with self._lock:
            self._spoke.update(devices)

    def flush(self) -> None:
        """Write down who came, and who spoke."""
        with self._lock:
            seen, used, spoke = self._seen, self._used, self._spoke
            self._seen, self._used, self._spoke = {}, {}, set()
        if spoke:
            self._sightings.note_spoke(spoke)
        if seen:
            self._uses.mark_used(used)
            self._sightings.see(seen)


def _presented() -> tuple[str, str] | None:
    header = request.headers.get("Authorization", "")
    if header[: len(_BEARER)].lower() == _BEARER:
        return parse_bearer(header[len(_BEARER) :].strip())
    basic = request.authorization
    is_whole = basic is not None and basic.type == "basic" and basic.username and basic.password
    return (str(basic.username), str(basic.password)) if basic is not None and is_whole else None


def _fitting(credentials: Sequence[CredentialRecord], claim: Claim, now_ns: int) -> str | None:
    found = None
    for credential in credentials:
        begins = credential.not_before_ns is None or credential.not_before_ns <= now_ns
        lasts = credential.not_after_ns is None or now_ns < credential.not_after_ns
        is_right = credential.kind == claim.kind and hmac.compare_digest(credential.sha256, claim.sha256)
        if is_right and begins and lasts:
            found = credential.id
    return found
