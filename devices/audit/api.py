"""Public routes of the audit log: listing, export, and whether its chain is whole. HTTP in and out, no rules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Protocol

from flask import Response
from pydantic import Field

from chassis.web import Api, Call
from devices.api import MAX_LIST
from devices.rows import AuditFilter
from wire.devices import Model, Text
from wire.points import TimeNs
from wire.registry import AuditPage, AuditVerdict, AuditView, Sha256

EXPORT_PAGE = 500
MAX_SEQ = 2**62


class Audit(Protocol):
    """The audit log; see `devices.audit.store.AuditStore`."""

    def list(self, tenant: str, wanted: AuditFilter) -> list[AuditView]: ...
    def verify(self, anchor: tuple[int, str] | None = None) -> AuditVerdict: ...


class AuditWanted(Model):
    """Which entries: of one object or actor, of an action or a kind of actions (`device.`), start <= time < end."""

    object: Text | None = None
    actor: Text | None = None
    action: Text | None = None
    start: TimeNs | None = None
    end: TimeNs | None = None

    def to_filter(self, before_seq: int | None, limit: int) -> AuditFilter:
        """Give it as the store takes it."""
        return AuditFilter(self.object, self.actor, before_seq, limit, self.action, self.start, self.end)


class AuditQuery(AuditWanted):
    """A page of entries."""

    limit: Annotated[int, Field(ge=1, le=MAX_LIST)] = 100
    cursor: Annotated[int, Field(ge=1, le=MAX_SEQ)] | None = None


class VerifyQuery(Model):
    """An entry known from an earlier check: its number and its hash."""

    seq: Annotated[int, Field(ge=1, le=MAX_SEQ)] | None = None
    hash: Sha256 | None = None


def add_routes(api: Api, audit: Audit) -> None:
    """Declare the routes."""

    @api.route("GET", "/v1/audit", "admin", query=AuditQuery, answers={200: AuditPage})
    def list_audit(call: Call) -> AuditPage:
        """List who changed what, newest first."""
        query: AuditQuery = call.query
        items = audit.list(call.actor.tenant, query.to_filter(query.cursor, query.limit))
        is_full = len(items) == query.limit
        return AuditPage(items=items, next=str(items[-1].seq) if is_full else None)

    @api.route("GET", "/v1/audit:export", "admin", query=AuditWanted)
    def export_audit(call: Call) -> Response:
        """All entries that fit as a stream of NDJSON, newest first."""
        response = Response(_lines(audit, call.actor.tenant, call.query), content_type="application/x-ndjson")
        response.headers["Content-Disposition"] = 'attachment; filename="headwater-audit.ndjson"'
        return response

    @api.route("GET", "/v1/audit:verify", "platform", query=VerifyQuery, answers={200: AuditVerdict})
    def verify_audit(call: Call) -> AuditVerdict:
        """Tell whether the chain of all tenants' entries is whole, and still holds an entry known from before."""
        query: VerifyQuery = call.query
        is_given = query.seq is not None and query.hash is not None
        return audit.verify((query.seq or 0, query.hash or "") if is_given else None)


def _lines(audit: Audit, tenant: str, wanted: AuditWanted) -> Iterator[bytes]:
    before: int | None = None
    while page := audit.list(tenant, wanted.to_filter(before, EXPORT_PAGE)):
        yield b"".join(entry.model_dump_json().encode() + b"\n" for entry in page)
        before = page[-1].seq
