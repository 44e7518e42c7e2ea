"""What the registry's verbs and its store hand each other: plain values, no SQL, no HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from devices.query.tree import EVERY_DEVICE, Node
from wire.devices import TENANT, Role

Scalar = bool | int | float | str
SYSTEM = "system"  # the actor of what the registry does by itself


@dataclass(slots=True, frozen=True)
class Who:
    """Who asks for a change, from where, and in which tenant: part of every audit entry."""

    actor: str
    remote_ip: str = ""
    tenant: str = TENANT
    role: Role = "viewer"  # what they may hand out at most, where that is asked


@dataclass(slots=True, frozen=True)
class Deed:
    """An audit entry before it has its place in the chain."""

    who: Who
    action: str
    object: str
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True, frozen=True)
class CredentialRow:
    """A credential as stored: hashes only."""

    id: str
    device: str
    sha256: str
    broker_hash: str
    created_ns: int
    not_before_ns: int | None = None
    not_after_ns: int | None = None
    last_used_ns: int | None = None
    label: str | None = None
    plain: str = field(default="", repr=False)  # never stored as it is; see `devices.store.credential_values`


@dataclass(slots=True, frozen=True)
class NewDevice:
    """A device to register, with its first credential; a gateway's child has none."""

    id: str
    type: str | None
    tags: dict[str, str]
    gateway: bool
    credential: CredentialRow | None
    state: str = "active"
    attributes: Mapping[str, Scalar] = field(default_factory=dict)
    parent: str | None = None  # the gateway that it is seen through


@dataclass(slots=True, frozen=True)
class DeviceFilter:
    """Which devices to list; every given member must hold."""

    tree: Node = EVERY_DEVICE  # what the query says
    tags: tuple[tuple[str, str], ...] = ()
    type: str | None = None
    state: str | None = None
    is_online: bool | None = None
    after: str = ""
    limit: int = 100


@dataclass(slots=True, frozen=True)
class TokenRow:
    """An API token as stored."""

    id: str
    name: str
    role: str
    sha256: str
    created_ns: int
    expires_ns: int | None = None
    scope: str = ""
    devices: str = ""
    last_used_ns: int | None = None


@dataclass(slots=True, frozen=True)
class OperatorRow:
    """A person who may log in."""

    name: str
    role: str
    password_hash: str
    created_ns: int
    must_change: bool = False
    last_login_ns: int | None = None
    subject: str | None = None  # who logs in by a provider: its issuer and what it calls them


@dataclass(slots=True, frozen=True)
class InvitationRow:
    """Somebody who may become an operator by a link."""

    sha256: str
    name: str
    role: str
    created_ns: int
    expires_ns: int


@dataclass(slots=True, frozen=True)
class AuditFilter:
    """Which audit entries to list."""

    object: str | None = None
    actor: str | None = None
    before_seq: int | None = None
    limit: int = 100
    action: str | None = None  # with a dot at its end: all that begin so
    start_ns: int | None = None
    end_ns: int | None = None


@dataclass(slots=True, frozen=True)
class BrokerCredential:
    """A valid credential as the broker may take it; `is_chosen` marks the one it takes now among several."""

    device: str
    id: str
    broker_hash: str
    is_chosen: bool
