"""Public routes for administrators: API tokens, operators, audit. HTTP in and out, no rules."""

from __future__ import annotations

from typing import Annotated, Protocol

from pydantic import Field

from chassis.web import Api, Call
from devices.api import MAX_LIST, who
from devices.people.service import Operators, Tokens
from devices.rows import AuditFilter, OperatorRow, TokenRow
from wire.devices import Model
from wire.registry import (
    AuditPage,
    AuditVerdict,
    AuditView,
    OperatorCreate,
    OperatorList,
    OperatorPatch,
    OperatorView,
    Text,
    TokenCreate,
    TokenCreated,
    TokenList,
    TokenView,
)


class Audit(Protocol):
    """The audit log; see `devices.audit.store.AuditStore`."""

    def list(self, tenant: str, wanted: AuditFilter) -> list[AuditView]: ...
    def verify(self) -> AuditVerdict: ...


class AuditQuery(Model):
    """Which audit entries to list."""

    object: Text | None = None
    actor: Text | None = None
    limit: Annotated[int, Field(ge=1, le=MAX_LIST)] = 100
    cursor: Annotated[int, Field(ge=1, le=2**62)] | None = None


def add_routes(api: Api, tokens: Tokens, operators: Operators, audit: Audit) -> None:
    """Declare the routes."""
    _add_tokens(api, tokens)
    _add_operators(api, operators)
    _add_audit(api, audit)


def _add_tokens(api: Api, tokens: Tokens) -> None:
    @api.route("POST", "/v1/tokens", "admin", body=TokenCreate, answers={201: TokenCreated})
    def create_token(call: Call) -> TokenCreated:
        """Make an API token; the answer is the only place where it is shown."""
        return tokens.create(call.body, who(call))

    @api.route("GET", "/v1/tokens", "admin", answers={200: TokenList})
    def list_tokens(call: Call) -> TokenList:
        """List API tokens without their secrets."""
        return TokenList(items=[_show_token(row) for row in tokens.list(call.actor.tenant)])

    @api.route("DELETE", "/v1/tokens/<token_id>", "admin", answers={204: None})
    def revoke_token(call: Call) -> None:
        """Revoke an API token, by id or name."""
        tokens.revoke(call.path["token_id"], who(call))


def _add_operators(api: Api, operators: Operators) -> None:
    @api.route("POST", "/v1/operators", "admin", body=OperatorCreate, answers={201: OperatorView})
    def create_operator(call: Call) -> OperatorView:
        """Add a person who may log in."""
        return _show_operator(operators.create(call.body, who(call)))

    @api.route("GET", "/v1/operators", "admin", answers={200: OperatorList})
    def list_operators(call: Call) -> OperatorList:
        """List the persons who may log in."""
        return OperatorList(items=[_show_operator(row) for row in operators.list(call.actor.tenant)])

    @api.route("PATCH", "/v1/operators/<name>", "admin", body=OperatorPatch, answers={204: None})
    def patch_operator(call: Call) -> None:
        """Set an operator's password or role; their sessions end."""
        operators.change(call.path["name"], call.body, who(call))

    @api.route("DELETE", "/v1/operators/<name>", "admin", answers={204: None})
    def delete_operator(call: Call) -> None:
        """Delete an operator; their sessions end."""
        operators.remove(call.path["name"], who(call))


def _add_audit(api: Api, audit: Audit) -> None:
    @api.route("GET", "/v1/audit", "admin", query=AuditQuery, answers={200: AuditPage})
    def list_audit(call: Call) -> AuditPage:
        """List who changed what, newest first."""
        query: AuditQuery = call.query
        items = audit.list(call.actor.tenant, AuditFilter(query.object, query.actor, query.cursor, query.limit))
        is_full = len(items) == query.limit
        return AuditPage(items=items, next=str(items[-1].seq) if is_full else None)

    @api.route("GET", "/v1/audit:verify", "admin", answers={200: AuditVerdict})
    def verify_audit(_call: Call) -> AuditVerdict:
        """Tell whether the chain of audit entries is whole."""
        return audit.verify()


def _show_token(row: TokenRow) -> TokenView:
    values = {"id": row.id, "name": row.name, "role": row.role, "created": row.created_ns, "expires": row.expires_ns}
    return TokenView.model_validate(values)


def _show_operator(row: OperatorRow) -> OperatorView:
    return OperatorView.model_validate({"name": row.name, "role": row.role, "created": row.created_ns})
