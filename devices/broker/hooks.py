"""Answers to a broker that asks before it lets a client in: who is it, and what may it do. Knows no HTTP.

Everything that goes wrong ends in a refusal. A device nobody knows is registered when it presents the key derived for
it from its group's, as over HTTP.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from chassis.tokens import hash_token
from devices.broker.rights import Action, may
from wire import clock
from wire.claims import Claim
from wire.devices import CredentialRecord, DeviceIdentity, LookupResult
from wire.group_keys import may_be_derived
from wire.topics import is_device_id

ADMITTED = ("active", "held")


class Identities(Protocol):
    """Where devices are known; see `devices.internal.lookups.LookupStore`."""

    def lookup(self, ids: Sequence[str]) -> LookupResult: ...
    def full(self) -> Mapping[str, frozenset[str]]: ...


class BrokerHooks:
    """Answers for devices; thread-safe."""

    def __init__(
        self,
        identities: Identities,
        admit: Callable[[str, str, str], bool],
        claims_of: Callable[[str], Sequence[Claim]] = lambda _device: (),
        note: Callable[[str, str], None] = lambda _device, _credential: None,
    ) -> None:
        """Prepare.

        Args:
            identities: where devices are known.
            admit: registers a device nobody knows: id, hash of what it presents, address; tells whether it did.
            claims_of: gives the topics that a device has claimed.
            note: is told which device was let in by which of its credentials.
        """
        self._identities = identities
        self._admit = admit
        self._claims_of = claims_of
        self._note = note

    def credential_of(self, username: str, password: str, remote_ip: str) -> CredentialRecord | None:
        """Give the credential a device has proved itself by; None refuses it."""
        device, digest = self._find(username), hash_token(password)
        if device is None and is_device_id(username) and may_be_derived(password):
            device = self._find(username) if self._admit(username, digest, remote_ip) else None
        if device is None or device.state not in ADMITTED:
            return None
        now_ns, found = clock.now_ns(), None
        for credential in device.credentials:
            is_right = credential.kind == "secret" and hmac.compare_digest(credential.sha256, digest)
            if is_right and _is_valid(credential, now_ns):
                found = credential
        if found is None or self._is_too_many(device):
            return None
        self._note(device.id, found.id)
        return found

    def is_admitted(self, username: str) -> bool:
        """Tell whether a device that proved itself may go on."""
        device = self._find(username)
        return device is not None and device.state in ADMITTED

    def may(self, username: str, action: Action, topic: str) -> bool:
        """Tell whether a device may publish on a topic, or subscribe to a filter."""
        return self.is_admitted(username) and may(username, action, topic, self.claimed(username))

    def claimed(self, username: str) -> list[str]:
        """Give the filters that a device has claimed."""
        return [claim.filter for claim in self._claims_of(username)]

    def _is_too_many(self, device: DeviceIdentity) -> bool:
        staying = self._identities.full().get(device.tenant)
        return staying is not None and device.id not in staying

    def _find(self, device_id: str) -> DeviceIdentity | None:
        if not is_device_id(device_id):
            return None
        return next(iter(self._identities.lookup([device_id]).devices), None)


def _is_valid(credential: CredentialRecord, now_ns: int) -> bool:
    starts = credential.not_before_ns is None or credential.not_before_ns <= now_ns
    return starts and (credential.not_after_ns is None or now_ns < credential.not_after_ns)
