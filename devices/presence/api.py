"""The route of presence: HTTP in and out, no rules."""

from __future__ import annotations

from typing import Annotated, Protocol

from pydantic import Field

from chassis.web import Api, Call
from devices.api import DEVICE, MAX_LIST
from devices.presence import history
from devices.presence.history import Event, Gap
from devices.presence.state import Mark
from wire import clock
from wire.clock import NS_PER_S
from wire.devices import Model, Text
from wire.errors import BadRequest
from wire.presence import PresenceEvent, PresenceGap, PresenceView

SPANS_S = {"24h": 86_400, "7d": 7 * 86_400, "30d": 30 * 86_400}


class Journal(Protocol):
    """Where history is kept; see `devices.presence.journal.PresenceJournal`."""

    def mark(self, tenant: str, device: str) -> Mark | None: ...
    def events(self, tenant: str, device: str, start_ns: int, end_ns: int, limit: int | None = None) -> list[Event]: ...
    def before(self, tenant: str, device: str, time_ns: int) -> Event | None: ...
    def gaps(self, start_ns: int, end_ns: int) -> list[Gap]: ...


class PresenceQuery(Model):
    """Which time: RFC 3339 or ns, start <= time < end; the last 24 hours when absent."""

    start: Text | None = None
    end: Text | None = None
    limit: Annotated[int, Field(ge=1, le=MAX_LIST)] = 1_000
    cursor: Annotated[int, Field(ge=0, le=2**62)] | None = None


def add_routes(api: Api, journal: Journal) -> None:
    """Declare the route."""

    @api.route("GET", DEVICE + "/presence", "viewer", query=PresenceQuery, answers={200: PresenceView})
    def get_presence(call: Call) -> PresenceView:
        """Show a device's presence now, its availability, and the events of a time, oldest first."""
        tenant, device, query = call.actor.tenant, call.path["device_id"].replace("\0", ""), call.query
        mark = journal.mark(tenant, device)
        now_ns = clock.now_ns()
        end_ns = _time(query.end, now_ns, "end")
        start_ns = _time(query.start, end_ns - SPANS_S["24h"] * NS_PER_S, "start")
        from_ns = start_ns if query.cursor is None else max(start_ns, query.cursor + 1)
        before = journal.before(tenant, device, start_ns)
        events = journal.events(tenant, device, from_ns, end_ns, query.limit)
        return PresenceView(
            device=device,
            state=history.state_of(mark),
            since=(mark.event_ns or None) if mark else None,
            last_seen=(mark.last_seen_ns or None) if mark else None,
            connected=mark is not None and mark.connected,
            availability=_availability(journal, (tenant, device), now_ns),
            start=start_ns,
            end=end_ns,
            before=before.state if before else "never",
            events=[_show(event) for event in events],
            gaps=[PresenceGap(start=gap.start_ns, end=gap.end_ns) for gap in journal.gaps(start_ns, end_ns)],
            next=str(events[-1].time_ns) if len(events) == query.limit else None,
        )


def _availability(journal: Journal, whose: tuple[str, str], now_ns: int) -> dict[str, float | None]:
    oldest_ns = now_ns - max(SPANS_S.values()) * NS_PER_S
    before, events = journal.before(*whose, oldest_ns), journal.events(*whose, oldest_ns, now_ns)
    gaps = journal.gaps(oldest_ns, now_ns)
    found: dict[str, float | None] = {}
    for name, span_s in SPANS_S.items():
        start_ns = now_ns - span_s * NS_PER_S
        earlier = [event for event in events if event.time_ns < start_ns]
        later = [event for event in events if event.time_ns >= start_ns]
        found[name] = history.availability(earlier[-1] if earlier else before, later, start_ns, now_ns, gaps)
    return found


def _show(event: Event) -> PresenceEvent:
    lost_s = round(event.lost_ns / NS_PER_S, 3)
    return PresenceEvent(time=event.time_ns, state=event.state, reason=event.reason, flaps=event.flaps, lost_s=lost_s)


def _time(text: str | None, default_ns: int, name: str) -> int:
    if text is None:
        return default_ns
    try:
        return clock.parse_time(text)
    except ValueError as error:
        raise BadRequest(str(error), fields=[name]) from None
