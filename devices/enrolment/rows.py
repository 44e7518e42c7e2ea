"""What the rules of enrolment and their store hand each other: plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from devices.rows import NewDevice, Who
from wire.enrolment import EnrolmentView, Terms

TOKEN, GROUP = "token", "group"


@dataclass(slots=True, frozen=True)
class EnrolmentRow:
    """A way in, as stored."""

    id: str
    tenant: str
    name: str
    kind: Literal["token", "group"]
    secret: str  # SHA-256 of a token; a group's key, sealed
    terms: Terms
    max_devices: int | None
    created_ns: int
    expires_ns: int | None
    enrolled: int = 0

    @property
    def source(self) -> str:
        """How the origin of its devices names it."""
        return f"{self.kind}:{self.name}"

    def state(self, now_ns: int) -> Literal["open", "used_up", "expired"]:
        """Tell whether a device may still come this way."""
        if self.expires_ns is not None and self.expires_ns <= now_ns:
            return "expired"
        return "used_up" if self.max_devices is not None and self.enrolled >= self.max_devices else "open"

    def view(self, now_ns: int) -> EnrolmentView:
        """Show it without its secret."""
        return EnrolmentView(
            id=self.id,
            name=self.name,
            kind=self.kind,
            **self.terms.model_dump(),
            max_devices=self.max_devices,
            enrolled=self.enrolled,
            created=self.created_ns,
            expires=self.expires_ns,
            state=self.state(now_ns),
        )


@dataclass(slots=True, frozen=True)
class Arrival:
    """A device about to be registered, and how it came."""

    device: NewDevice
    tenant: str
    source: str
    who: Who
    nonce: str | None = None  # hashed
    hardware: dict[str, Any] = field(default_factory=dict)
    group: str | None = None
