"""History of presence: which changes of a mark become events, and what share of a time a device was online. Pure.

Times are the server's own and never go back for one device. An absence shorter than DAMP_NS leaves no events of its
own: it is counted in the event before it, so a device that reconnects every few seconds does not fill its history.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

from devices.presence.state import Mark
from wire.clock import NS_PER_S
from wire.presence import PresenceState

DAMP_NS = 10 * NS_PER_S


@dataclass(slots=True, frozen=True)
class Event:
    """A state that began at a time; `flaps` absences of together `lost_ns` were too short to be events."""

    time_ns: int
    state: PresenceState
    reason: str
    flaps: int = 0
    lost_ns: int = 0


@dataclass(slots=True, frozen=True)
class Fold:
    """An absence that was too short: its event goes, the one before it counts it."""

    gone_ns: int
    into_ns: int
    lost_ns: int


@dataclass(slots=True, frozen=True)
class Gap:
    """A time in which the platform could not hear, and that counts neither for a device nor against it."""

    start_ns: int
    end_ns: int


def state_of(mark: Mark | None) -> PresenceState:
    """Give the state that a mark means."""
    if mark is None or not (mark.online or mark.last_seen_ns or mark.gone_ns):
        return "never"
    if not mark.online:
        return "offline"
    return "stale" if mark.stale else "online"


def note(old: Mark, new: Mark, now_ns: int) -> tuple[Mark, Event | Fold | None]:
    """Tell what the history gets by the change of a mark; the new mark remembers its newest events."""
    state = state_of(new)
    if state in ("never", new.event):
        return new, None
    at_ns = max(now_ns, new.event_ns + 1)
    is_short = new.event == "offline" and state == "online" and new.before_ns and at_ns - new.event_ns < DAMP_NS
    if is_short:
        folded = replace(new, event=state, event_ns=new.before_ns, before_ns=0)
        return folded, Fold(new.event_ns, new.before_ns, at_ns - new.event_ns)
    # Only an absence from `online` can be folded: the event before must be the state that comes back.
    before_ns = new.event_ns if new.event == "online" else 0
    noted = replace(new, event=state, event_ns=at_ns, before_ns=before_ns)
    return noted, Event(at_ns, state, _reason(old, new))


def availability(
    before: Event | None, events: Sequence[Event], start_ns: int, end_ns: int, gaps: Sequence[Gap] = ()
) -> float | None:
    """Give the share of a time in percent in which a device was online; None when nothing is known of it.

    Args:
        before: the last event before the start.
        events: those from start to end, oldest first.
        start_ns: begin of the time.
        end_ns: its end.
        gaps: what of it does not count, in the order of their starts.
    """
    known = ([before] if before else []) + list(events)
    online_ns = 0.0
    for event, following in zip_longest(known, known[1:]):
        until_ns = following.time_ns if following else end_ns
        began_ns = max(event.time_ns, start_ns)
        if event.state != "online" or until_ns <= began_ns:
            continue
        share = (until_ns - began_ns) / (until_ns - event.time_ns)
        online_ns += max(0.0, _counted(began_ns, until_ns, gaps) - event.lost_ns * share)
    observed_ns = _counted(max(known[0].time_ns, start_ns), end_ns, gaps) if known else 0
    return round(100 * online_ns / observed_ns, 3) if observed_ns > 0 else None


def _counted(start_ns: int, end_ns: int, gaps: Sequence[Gap]) -> int:
    """Give how much of a time is outside of all gaps; these may overlap."""
    counted_ns, at_ns = 0, start_ns
    for gap in gaps:
        counted_ns += max(0, min(gap.start_ns, end_ns) - at_ns)
        at_ns = max(at_ns, min(gap.end_ns, end_ns))
    return counted_ns + max(0, end_ns - at_ns)


def _reason(old: Mark, new: Mark) -> str:
    if new.connected != old.connected:
        return "connected" if new.connected else "disconnected"
    if new.said != old.said and new.said is not None:
        return "said"
    if old.stale and not new.stale and new.last_seen_ns == old.last_seen_ns:
        return "type"
    if new.online and not new.stale:
        return "data"
    return "silent"
