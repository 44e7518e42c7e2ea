"""Public routes about people and programs: API tokens, operators, sessions, invitations. HTTP in and out, no rules."""

from __future__ import annotations

import re
from typing import Protocol

from chassis.tokens import hash_token, split_tenant
from chassis.web import Api, Call, presented_token
from devices.api import who
from devices.people.invitations import Invitations
from devices.people.service import Operators, Tokens
from devices.rows import OperatorRow, TokenRow, Who
from wire import clock
from wire.errors import Forbidden, NotFound
from wire.people import (
    InvitationCreate,
    InvitationCreated,
    InvitationList,
    Me,
    PasswordChange,
    SessionList,
    SessionView,
)
from wire.registry import (
    OperatorCreate,
    OperatorList,
    OperatorPatch,
    OperatorView,
    TokenCreate,
    TokenCreated,
    TokenList,
    TokenView,
)

_SESSION_ID = re.compile(r"[0-9a-f]{16}")


class Sessions(Protocol):
    """Sessions of people; see `devices.people.visits.SessionStore`."""

    def list(self, tenant: str, name: str, now_ns: int, this: str = "") -> list[SessionView]: ...
    def end(self, name: str, session_id: str, who: Who) -> None: ...


def add_routes(api: Api, tokens: Tokens, operators: Operators, sessions: Sessions, invitations: Invitations) -> None:
    """Declare the routes."""
    _add_tokens(api, tokens)
    _add_operators(api, operators)
    _add_sessions(api, sessions)
    _add_own(api, operators, sessions)
    _add_invitations(api, invitations)


def _add_tokens(api: Api, tokens: Tokens) -> None:
    @api.route("POST", "/v1/tokens", "admin", body=TokenCreate, answers={201: TokenCreated})
    def create_token(call: Call) -> TokenCreated:
        """Make an API token; the answer is the only place where it is shown."""
        _demand_whole(call)
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
        _demand_whole(call)
        return _show_operator(operators.create(call.body, who(call)))

    @api.route("GET", "/v1/operators", "admin", answers={200: OperatorList})
    def list_operators(call: Call) -> OperatorList:
        """List the persons who may log in."""
        return OperatorList(items=[_show_operator(row) for row in operators.list(call.actor.tenant)])

    @api.route("PATCH", "/v1/operators/<name>", "admin", body=OperatorPatch, answers={204: None})
    def patch_operator(call: Call) -> None:
        """Set an operator's password or role, or have them choose a new password; their sessions end."""
        _demand_whole(call)
        operators.change(call.path["name"], call.body, who(call))

    @api.route("DELETE", "/v1/operators/<name>", "admin", answers={204: None})
    def delete_operator(call: Call) -> None:
        """Delete an operator; their sessions end."""
        operators.remove(call.path["name"], who(call))


def _add_sessions(api: Api, sessions: Sessions) -> None:
    @api.route("GET", "/v1/operators/<name>/sessions", "admin", answers={200: SessionList})
    def list_sessions(call: Call) -> SessionList:
        """List a person's sessions."""
        name = call.path["name"].replace("\0", "")
        return SessionList(items=sessions.list(call.actor.tenant, name, clock.now_ns()))

    @api.route("DELETE", "/v1/operators/<name>/sessions", "admin", answers={204: None})
    def end_sessions(call: Call) -> None:
        """End all sessions of a person."""
        sessions.end(call.path["name"].replace("\0", ""), "", who(call))


def _add_own(api: Api, operators: Operators, sessions: Sessions) -> None:
    @api.route("GET", "/v1/me", "self", answers={200: Me})
    def show_me(call: Call) -> Me:
        """Who is asking, with which role and scope, in which tenant."""
        return Me.model_validate(call.actor.model_dump(include=set(Me.model_fields)))

    @api.route("PUT", "/v1/me/password", "self", body=PasswordChange, answers={204: None})
    def change_password(call: Call) -> None:
        """Set one's own password; all other sessions end."""
        name, doer = _person(call)
        operators.change_own(name, call.body, _this(), doer)

    @api.route("GET", "/v1/me/sessions", "self", answers={200: SessionList})
    def list_own_sessions(call: Call) -> SessionList:
        """List one's own sessions, and which of them this is."""
        name, doer = _person(call)
        return SessionList(items=sessions.list(doer.tenant, name, clock.now_ns(), _this()))

    @api.route("DELETE", "/v1/me/sessions/<session_id>", "self", answers={204: None})
    def end_own_session(call: Call) -> None:
        """End one of one's own sessions."""
        name, doer = _person(call)
        if not _SESSION_ID.fullmatch(call.path["session_id"]):
            raise NotFound("no such session", code="session_not_found")
        sessions.end(name, call.path["session_id"], doer)


def _add_invitations(api: Api, invitations: Invitations) -> None:
    @api.route("POST", "/v1/invitations", "admin", body=InvitationCreate, answers={201: InvitationCreated})
    def invite(call: Call) -> InvitationCreated:
        """Invite somebody to choose a password of their own; the link is shown once."""
        _demand_whole(call)
        return invitations.create(call.body, who(call))

    @api.route("GET", "/v1/invitations", "admin", answers={200: InvitationList})
    def list_invitations(call: Call) -> InvitationList:
        """List open invitations."""
        return InvitationList(items=invitations.list(call.actor.tenant))

    @api.route("DELETE", "/v1/invitations/<name>", "admin", answers={204: None})
    def revoke_invitation(call: Call) -> None:
        """Take an invitation back."""
        invitations.revoke(call.path["name"], who(call))


def _person(call: Call) -> tuple[str, Who]:
    """Give the name of who asks and their own tenant's Who; a program has no password and no sessions."""
    kind, _, name = call.actor.id.partition(":")
    if kind != "operator":
        raise Forbidden("this is for people who log in, not for tokens", code="not_a_person")
    return name, Who(f"operator:{name}", call.remote_ip, call.actor.home or call.actor.tenant, call.actor.role)


def _this() -> str:
    return hash_token(split_tenant(presented_token()[0])[0])


def _demand_whole(call: Call) -> None:
    """Refuse a token with a scope to make what would have none."""
    if call.actor.scope:
        raise Forbidden("a token with a scope hands out no rights", code="out_of_scope")


def _show_token(row: TokenRow) -> TokenView:
    values = {"id": row.id, "name": row.name, "role": row.role, "created": row.created_ns, "expires": row.expires_ns}
    limits = {"scope": row.scope.split(), "devices": row.devices}
    return TokenView.model_validate(values | limits | {"last_used": row.last_used_ns})


def _show_operator(row: OperatorRow) -> OperatorView:
    values = {"name": row.name, "role": row.role, "created": row.created_ns}
    more = {"must_change": row.must_change, "last_login": row.last_login_ns, "by_provider": row.subject is not None}
    return OperatorView.model_validate(values | more)
