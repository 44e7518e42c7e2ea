"""The operators' routes of an ingestion service: quarantine and ledger. Parses, calls, renders."""

from __future__ import annotations

from base64 import b64encode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator
from itertools import chain
from typing import Annotated, Literal, Self

from flask import Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from chassis.sheets import to_csv
from chassis.web import Api, Call
from ingest.gate import Gate
from ingest.ledger import DeviceLedgerModel, Ledger, LedgerModel, TenantLedgerModel
from ingest.ports import Ports
from ingest.quarantine import Entry, Quarantine, Selection
from ingest.replay import Replayed, Replayer
from ingest.reports import AuditEntry
from ingest.scopes import reached_by
from wire import errors
from wire.devices import TENANT, Model
from wire.points import TimeNs

MAX_ID = 2**63 - 1
EXPORT_PAGE = 500

State = Literal["waiting", "replayed", "all"]
Reached = tuple[str, ...] | None  # devices that a token is for; None: all of the tenant


class QuarantineFilter(Model):
    """Which entries."""

    device: str | None = None
    code: str | None = None
    protocol: str | None = None
    type: str | None = None  # the device's type when the message came
    type_version: Annotated[int, Field(ge=1, le=MAX_ID)] | None = None
    start: TimeNs | None = None  # start <= time of arrival < end
    end: TimeNs | None = None

    def selection(self, tenant: str, state: State = "waiting", devices: Reached = None) -> Selection:
        """Give it as the quarantine takes it; `devices`: of these only."""
        return Selection(
            self.device, self.code, self.protocol, self.type, self.type_version, self.start, self.end, state, tenant,
            devices,
        )  # fmt: skip


class ExportQuery(QuarantineFilter):
    """Entries to export, newest first."""

    state: State = "waiting"
    format: Literal["ndjson", "csv"] = "ndjson"


class QuarantineQuery(QuarantineFilter):
    """A page of entries, newest first."""

    state: State = "waiting"
    limit: Annotated[int, Field(ge=1, le=1_000)] = 100
    cursor: str | None = None


class LedgerQuery(Model):
    """Whose ledger, for the platform's own tenant: that of the installation, or its own."""

    own: bool = False


class EntryModel(BaseModel):
    """A refused record, or one field of a record that was accepted without it."""

    model_config = ConfigDict(extra="forbid")

    id: str
    device: str
    protocol: str
    transport: str
    source: str
    type: str | None
    type_version: int | None
    code: str
    detail: str
    record: int | None
    field: str | None
    time: TimeNs
    replayed: TimeNs | None
    raw_base64: str
    raw_bytes: int
    raw_truncated: bool
    sender: str  # whose message it is: a gateway speaks for other devices


class EntryPage(BaseModel):
    """Entries, and the cursor of the next page."""

    items: list[EntryModel]
    next: str | None


class ChoiceBody(Model):
    """Either ids, or a filter over what waits."""

    ids: Annotated[list[Annotated[int, Field(ge=0, le=MAX_ID)]], Field(min_length=1, max_length=10_000)] | None = None
    filter: QuarantineFilter | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.ids is None) == (self.filter is None):
            raise ValueError("give either ids or filter")
        return self


class FailureModel(BaseModel):
    """Why an entry still waits."""

    id: str
    code: str
    detail: str


class DiscardedModel(BaseModel):
    """Outcome of a discard; `more`: the filter holds entries that this request did not get to, send it again."""

    discarded: int
    more: bool


class ReplayedModel(BaseModel):
    """Outcome of a replay: `failed` go on waiting, `duplicates` had been replayed before and were passed over.

    `more`: the filter holds entries that this request did not get to, send it again.
    """

    replayed: int
    failed: list[FailureModel]
    duplicates: int
    more: bool


def add_routes(api: Api, ports: Ports, replayer: Replayer, ledger: Ledger) -> None:
    """Declare the routes of operators."""
    _add_reading(api, ports.quarantine, ports.gate)
    _add_ledger(api, ports.gate, ledger)
    _add_changing(api, ports, replayer)


def _add_reading(api: Api, quarantine: Quarantine, gate: Gate) -> None:
    @api.route("GET", "/v1/quarantine", "viewer", query=QuarantineQuery, answers={200: EntryPage}, reach="narrowed")
    def list_quarantine(call: Call) -> EntryPage:
        """List refused data with its reason and the first bytes of its message."""
        query: QuarantineQuery = call.query
        reached = reached_by(call.actor, gate)
        selection = query.selection(call.actor.tenant, query.state, reached)
        before = _parse_cursor(query.cursor) if query.cursor is not None else None
        found = quarantine.page(selection, before=before, limit=query.limit + 1)
        more = _cursor(found[query.limit - 1].id) if len(found) > query.limit else None
        return EntryPage(items=[_shown(entry, reached) for entry in found[: query.limit]], next=more)

    @api.route("GET", "/v1/quarantine/<id>", "viewer", answers={200: EntryModel}, reach="narrowed")
    def show_quarantined(call: Call) -> EntryModel:
        """Show one entry with all of its message."""
        reached = reached_by(call.actor, gate)
        entry = quarantine.get(_parse_id(call.path["id"]), tenant=call.actor.tenant)
        if reached is not None and entry.device not in reached:
            raise errors.NotFound(f"no quarantined entry {entry.id}")
        return _shown(entry, reached)

    @api.route("GET", "/v1/quarantine:export", "viewer", query=ExportQuery, reach="narrowed")
    def export_quarantine(call: Call) -> Response:
        """Export entries with their whole messages as a stream, NDJSON or CSV."""
        asked: ExportQuery = call.query
        entries = _walk(quarantine, asked.selection(call.actor.tenant, asked.state, reached_by(call.actor, gate)))
        encode = _to_csv if asked.format == "csv" else _to_ndjson
        head = to_csv([tuple(EntryModel.model_fields)]) if asked.format == "csv" else b""
        first = next(entries, None)  # read before the status is sent: trouble must be a 503, not a cut stream
        rest = entries if first is None else chain((first,), entries)
        content_type = "text/csv; charset=utf-8" if asked.format == "csv" else "application/x-ndjson"
        response = Response(chain((head,), map(encode, rest)), content_type=content_type)
        response.headers["Content-Disposition"] = f'attachment; filename="headwater-quarantine.{asked.format}"'
        return response


def _add_ledger(api: Api, gate: Gate, ledger: Ledger) -> None:
    @api.route("GET", "/v1/ledger", "viewer", query=LedgerQuery, answers={200: LedgerModel | TenantLedgerModel})
    def show_ledger(call: Call) -> LedgerModel | TenantLedgerModel:
        """Show the balance sheet of the tenant's readings; in the platform's own, unless `own`, the installation's."""
        is_whole = call.actor.tenant == TENANT and not call.query.own
        return ledger.totals() if is_whole else ledger.of_tenant(call.actor.tenant)

    @api.route("GET", "/v1/devices/<id>/ledger", "viewer", answers={200: DeviceLedgerModel})
    def show_device_ledger(call: Call) -> DeviceLedgerModel:
        """Show what of a device waits in the quarantine, and what it numbered is missing or came twice."""
        device, tenant = call.path["id"], call.actor.tenant
        account = ledger.of_device(device, tenant)
        if account.is_empty and not gate.may_be_of(tenant, device):  # a device that left may have left something
            raise errors.NotFound(f"no device {device[:80]!r}", code="device_not_found")
        return account


def _add_changing(api: Api, ports: Ports, replayer: Replayer) -> None:
    @api.route(
        "POST", "/v1/quarantine:replay", "operator", body=ChoiceBody, answers={200: ReplayedModel}, reach="narrowed"
    )
    def replay_quarantined(call: Call) -> ReplayedModel:
        """Replay entries by id or filter; what fails again goes on waiting."""
        body: ChoiceBody = call.body
        reached = reached_by(call.actor, ports.gate)
        if body.ids is not None:
            outcome = replayer.replay_ids(body.ids, tenant=call.actor.tenant, devices=reached)
        else:
            outcome = replayer.replay_selection(_selection(body, call, reached))
        ports.reports.note_deed(_deed(call, "quarantine.replay", outcome.replayed))
        failed = [FailureModel(id=str(each.id), code=each.code, detail=each.detail) for each in outcome.failed]
        return ReplayedModel(replayed=outcome.replayed, failed=failed, duplicates=outcome.duplicates, more=outcome.more)

    @api.route(
        "POST", "/v1/quarantine:discard", "operator", body=ChoiceBody, answers={200: DiscardedModel}, reach="narrowed"
    )
    def discard_quarantined(call: Call) -> DiscardedModel:
        """Delete entries for good by id or filter; they count as refused."""
        body: ChoiceBody = call.body
        reached = reached_by(call.actor, ports.gate)
        if body.ids is not None:
            ids = replayer.narrow(body.ids, tenant=call.actor.tenant, devices=reached)
            outcome = Replayed(ports.quarantine.discard(ids, tenant=call.actor.tenant), [])
        else:
            outcome = replayer.discard_selection(_selection(body, call, reached))
        ports.reports.note_deed(_deed(call, "quarantine.discard", outcome.replayed))
        return DiscardedModel(discarded=outcome.replayed, more=outcome.more)


def _selection(body: ChoiceBody, call: Call, reached: Reached) -> Selection:
    assert body.filter is not None
    return body.filter.selection(call.actor.tenant, devices=reached)


def _walk(quarantine: Quarantine, selection: Selection) -> Iterator[EntryModel]:
    """Give entries with their whole messages, one at a time: a page of large messages would not fit the memory."""
    before: int | None = None
    while page := quarantine.page(selection, before=before, limit=EXPORT_PAGE):
        for entry in page:
            try:
                is_whole = entry.raw is None or len(entry.raw) == entry.raw_bytes
                yield _shown(entry if is_whole else quarantine.get(entry.id, tenant=entry.tenant), selection.devices)
            except errors.NotFound:  # discarded since the page was read
                continue
        before = page[-1].id


def _to_ndjson(entry: EntryModel) -> bytes:
    return entry.model_dump_json().encode() + b"\n"


def _to_csv(entry: EntryModel) -> bytes:
    return to_csv([tuple(entry.model_dump(mode="json").values())])


def _deed(call: Call, action: str, entries: int) -> AuditEntry:
    done = f"{entries} entries"
    return AuditEntry(call.actor.signature, action, "quarantine", done, call.remote_ip, call.actor.tenant)


def _shown(entry: Entry, reached: Reached) -> EntryModel:
    is_theirs = reached is None or entry.sender in reached  # else the message holds what is of other devices, too
    raw = entry.raw or b"" if is_theirs else b""
    source, sender = (entry.source, entry.sender) if is_theirs else ("", "")
    return EntryModel(
        id=str(entry.id), device=entry.device, protocol=entry.protocol, transport=entry.transport,
        source=source, type=entry.type, type_version=entry.type_version, code=entry.code, detail=entry.detail,
        record=entry.record, field=entry.field, sender=sender, time=entry.received_ns, replayed=entry.replayed_ns,
        raw_base64=b64encode(raw).decode(), raw_bytes=entry.raw_bytes, raw_truncated=len(raw) < entry.raw_bytes,
    )  # fmt: skip


def _cursor(id_: int) -> str:
    return urlsafe_b64encode(f"q{id_}".encode()).decode().rstrip("=")


def _parse_cursor(text: str) -> int:
    try:
        content = urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except ValueError:
        content = ""
    if not content.startswith("q") or not _is_id(content[1:]):
        raise errors.BadRequest("the cursor is not one of ours", fields=["cursor"])
    return int(content[1:])


def _parse_id(text: str) -> int:
    if not _is_id(text):
        raise errors.NotFound(f"no quarantined entry {text[:32]!r}")
    return int(text)


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < len(str(MAX_ID))
