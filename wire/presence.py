"""Bodies about presence."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from wire.points import TimeNs

PresenceState = Literal["never", "online", "stale", "offline"]


class PresenceEvent(BaseModel):
    """A state that began; `flaps` absences of together `lost_s` were too short to be events of their own."""

    time: TimeNs
    state: PresenceState
    reason: str
    flaps: int
    lost_s: float


class PresenceGap(BaseModel):
    """A time in which the platform itself could not hear: it counts neither for a device nor against it."""

    start: TimeNs
    end: TimeNs


class PresenceView(BaseModel):
    """Presence of a device now, its availability in percent by span, and the events of a time, oldest first.

    `before` is the state that the time began with.
    """

    device: str
    state: PresenceState
    since: TimeNs | None
    last_seen: TimeNs | None
    connected: bool
    availability: dict[str, float | None]
    start: TimeNs
    end: TimeNs
    before: PresenceState
    events: list[PresenceEvent]
    gaps: list[PresenceGap]
    next: str | None
