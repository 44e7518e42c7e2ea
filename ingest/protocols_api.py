"""The operators' view of the protocols: what is heard in each, what is at fault in it, and how its service is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pydantic import BaseModel

from chassis.web import Api, Call
from ingest.quarantine import Entry, Quarantine, Selection
from ingest.traffic import NEVER, Heard, State, Traffic
from wire import clock
from wire.declared import DECLARED, REFUSED
from wire.devices import TENANT
from wire.points import TimeNs
from wire.protocols import Declaration

NEWEST = 1_000  # entries whose reasons are counted


class BadMessageModel(BaseModel):
    """The newest entry of a protocol in the quarantine."""

    id: str
    time: TimeNs
    device: str
    code: str
    detail: str


class ProtocolModel(BaseModel):
    """A protocol: its service, what the tenant's devices said in it within the last hour, and what was wrong."""

    name: str
    service: str
    state: State  # of the service; idle: it starts with its first message, down: it ended otherwise than it should
    started: TimeNs | None
    media_types: list[str]
    paths: list[str]
    topics: list[str]
    last_heard: TimeNs | None
    rate_s: float  # readings a second, of the last five minutes
    accepted: int  # readings of the last hour
    quarantined: int
    refused: int
    waiting: dict[str, int]  # of the tenant's newest 1,000 entries in the quarantine, by reason
    last_bad: BadMessageModel | None


class RefusedModel(BaseModel):
    """An entry point of a package whose protocols are not taken."""

    entry: str
    reason: str


class ProtocolList(BaseModel):
    """All protocols. `refused` is told in the platform's own tenant only."""

    items: list[ProtocolModel]
    refused: list[RefusedModel]


def add_routes(api: Api, quarantine: Quarantine, traffic: Traffic) -> None:
    """Declare the routes."""

    @api.route("GET", "/v1/protocols", "viewer", answers={200: ProtocolList})
    def list_protocols(call: Call) -> ProtocolList:
        """List the protocols: state of the service, rate, errors by reason, the last bad message, when last heard."""
        tenant, services = call.actor.tenant, traffic.services()
        heard = traffic.heard(tenant, clock.now_ns())
        entries = quarantine.page(Selection(tenant=tenant), limit=NEWEST)
        items = []
        for name, declared in DECLARED.items():
            found = [entry for entry in entries if entry.protocol == name]
            item = _shown(declared, heard.get(name), found)
            item.state, item.started = services.get(declared.service, NEVER)
            items.append(item)
        refused = REFUSED if tenant == TENANT else {}
        told = [RefusedModel(entry=entry, reason=reason) for entry, reason in refused.items()]
        return ProtocolList(items=items, refused=told)


def _shown(declared: Declaration, heard: Heard | None, waiting: Sequence[Entry]) -> ProtocolModel:
    last = waiting[0] if waiting else None
    return ProtocolModel(
        name=declared.name, service=declared.service, state="idle", started=None,
        media_types=list(declared.media_types), paths=list(declared.paths),
        topics=[*declared.topics.up, *declared.topics.down],
        last_heard=heard.last_ns if heard else None, rate_s=round(heard.rate_s, 3) if heard else 0.0,
        accepted=heard.accepted if heard else 0, quarantined=heard.quarantined if heard else 0,
        refused=heard.refused if heard else 0,
        waiting=dict(Counter(entry.code for entry in waiting).most_common()),
        last_bad=None if last is None else BadMessageModel(
            id=str(last.id), time=last.received_ns, device=last.device, code=last.code, detail=last.detail
        ),
    )  # fmt: skip
