"""The door at which a device shows its own credential to the registry, and what is noted of its visits."""

from __future__ import annotations

import hmac
import threading
from collections.abc import Mapping, Sequence
from typing import Protocol

from flask import request

from chassis.tokens import hash_token
from wire import clock, topics
from wire.devices import CredentialRecord, DeviceIdentity, LookupResult, parse_bearer
from wire.errors import Forbidden, Unauthorized

FLUSH_S = 1.0
_BEARER = "bearer "


class Lookups(Protocol):
    """Who is who; see `devices.internal.lookups.LookupStore`."""

    def lookup(self, ids: Sequence[str]) -> LookupResult: ...


class Sightings(Protocol):
    """Takes signs of life; see `devices.presence.keeper.Keeper`."""

    def see(self, seen_ns: Mapping[str, int], *, by_mqtt: bool = False) -> None: ...


class Uses(Protocol):
    """Takes uses of credentials; see `devices.store.CredentialStore`."""

    def mark_used(self, used_ns: dict[str, int]) -> None: ...


class DeviceDoor:
    """Lets devices in; thread-safe. Visits are written together, once a second."""

    def __init__(self, lookups: Lookups, sightings: Sightings, uses: Uses) -> None:
        self._lookups = lookups
        self._sightings = sightings
        self._uses = uses
        self._lock = threading.Lock()  # guards the two below
        self._seen: dict[str, int] = {}
        self._used: dict[str, int] = {}

    def authenticate(self, presented: tuple[str, str]) -> DeviceIdentity:
        """Check a device id and a secret; it asks the database.

        Raises:
            Unauthorized: no such device, or none of its valid credentials fits.
            Forbidden: the device is not active.
        """
        device_id, secret = presented
        found = self._lookups.lookup([device_id]).devices if topics.is_device_id(device_id) else []
        now_ns, digest = clock.now_ns(), hash_token(secret)
        for device in found:
            credential = _fitting(device.credentials, digest, now_ns)
            if credential is None:
                continue
            if device.state != "active":
                raise Forbidden(f"{device_id} is {device.state}", code="device_disabled")
            with self._lock:
                self._seen[device_id] = self._used[credential] = now_ns
            return device
        raise Unauthorized("the device id or the secret is wrong")

    def flush(self) -> None:
        """Write down who came."""
        with self._lock:
            seen, used = self._seen, self._used
            self._seen, self._used = {}, {}
        if seen:
            self._uses.mark_used(used)
            self._sightings.see(seen)


def presented() -> tuple[str, str]:
    """Take the credential that the request carries: `Bearer {device_id}.{secret}`, or Basic.

    Raises:
        Unauthorized: there is none of that form.
    """
    header = request.headers.get("Authorization", "")
    if header[: len(_BEARER)].lower() == _BEARER:
        pair = parse_bearer(header[len(_BEARER) :].strip())
    else:
        basic = request.authorization
        is_whole = basic is not None and basic.type == "basic" and basic.username and basic.password
        pair = (str(basic.username), str(basic.password)) if basic is not None and is_whole else None
    if pair is None:
        raise Unauthorized("a device presents Authorization: Bearer {device_id}.{secret}, or Basic")
    return pair


def _fitting(credentials: Sequence[CredentialRecord], digest: str, now_ns: int) -> str | None:
    found = None
    for credential in credentials:
        begins = credential.not_before_ns is None or credential.not_before_ns <= now_ns
        lasts = credential.not_after_ns is None or now_ns < credential.not_after_ns
        is_right = credential.kind == "secret" and hmac.compare_digest(credential.sha256, digest)
        if is_right and begins and lasts:
            found = credential.id
    return found
