"""Routes for the platform's own services (service token; the gateway does not route them)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Protocol

from pydantic import Field

from chassis import parking
from chassis.web import Api, Call
from devices.control.news import ANY, Waiting
from devices.people.invitations import Invitations
from devices.people.service import Operators, Tokens
from devices.rows import Deed, Who
from wire.devices import Changes, LookupResult, Model, Principal, Text
from wire.errors import NotFound
from wire.people import InvitationAccept
from wire.registry import AuditEntries, Login, LoginAnswer, Lookup, Seen, TokenHash

MAX_DIRECTORY = 5_000
MAX_WAIT_S = 30.0
ASKERS = ("dashboard", "ingest", "firmware")  # services that take operators' tokens


class Lookups(Protocol):
    """Answers about the registry; see `devices.internal.lookups.LookupStore`."""

    def lookup(self, ids: Sequence[str]) -> LookupResult: ...
    def changes(self, since: int) -> Changes: ...
    def directory(self, after: str, limit: int) -> tuple[list[dict[str, Any]], int]: ...


class Sightings(Protocol):
    """Takes signs of life; see `devices.presence.keeper.Keeper`."""

    def see(self, seen_ns: Mapping[str, int], *, by_mqtt: bool = False) -> None: ...
    def hear(self, told: Mapping[str, tuple[bool, int]]) -> None: ...


class Uses(Protocol):
    """Takes uses of credentials; see `devices.store.CredentialStore`."""

    def mark_used(self, used_ns: dict[str, int]) -> None: ...


class AuditLog(Protocol):
    """Takes entries from other services; see `devices.audit.store.AuditStore`."""

    def append(self, deeds: Sequence[Deed]) -> None: ...


class ChangesQuery(Model):
    """From where to tell changes."""

    since: Annotated[int, Field(ge=0, le=2**62)] = 0
    wait: Annotated[float, Field(ge=0, le=MAX_WAIT_S)] = 0.0  # seconds, while there is nothing to tell


class DirectoryQuery(Model):
    """Which part of the directory."""

    cursor: Text = ""
    limit: Annotated[int, Field(ge=1, le=MAX_DIRECTORY)] = 1_000


def add_lookups(api: Api, lookups: Lookups, news: Waiting) -> None:
    """Declare the routes that only read."""

    @api.route("POST", "/internal/devices:lookup", "service", callers=("ingest", "writer"), body=Lookup)
    def lookup(call: Call) -> LookupResult:
        """Give devices by id, with credentials and types."""
        return lookups.lookup([text for text in dict.fromkeys(call.body.ids) if "\0" not in text])

    @api.route(
        "GET",
        "/internal/changes",
        "service",
        callers=("ingest", "writer", "bridge"),
        query=ChangesQuery,
        is_on_loop=True,
    )
    def changes(call: Call) -> Changes:
        """Tell what changed after a revision; with `wait`, as soon as there is something."""
        since = call.query.since

        def look() -> Changes | None:
            found = lookups.changes(since)
            return found if found.reset or found.revision != since else None

        return news.wait(ANY, lambda: parking.aside(look), call.query.wait) or Changes(revision=since)

    @api.route("GET", "/internal/directory", "service", callers=("dashboard",), query=DirectoryQuery)
    def directory(call: Call) -> dict[str, Any]:
        """List devices briefly."""
        devices, revision = lookups.directory(call.query.cursor, call.query.limit)
        is_full = len(devices) == call.query.limit
        return {"devices": devices, "next": devices[-1]["id"] if is_full else None, "revision": revision}


def add_signs(api: Api, sightings: Sightings, uses: Uses, audit: AuditLog) -> None:
    """Declare the routes by which services tell what they saw."""

    @api.route("POST", "/internal/seen", "service", callers=("ingest",), body=Seen)
    def seen(call: Call) -> None:
        """Note signs of life of devices and uses of credentials."""
        if call.body.devices:
            sightings.see(call.body.devices)
        if call.body.mqtt:
            sightings.see(call.body.mqtt, by_mqtt=True)
        if call.body.presence:
            sightings.hear(call.body.presence)
        if call.body.credentials:
            uses.mark_used(call.body.credentials)

    @api.route("POST", "/internal/audit", "service", callers=("ingest", "dashboard"), body=AuditEntries)
    def audit_entries(call: Call) -> None:
        """Append audit entries of another service."""
        entries = call.body.entries
        audit.append([Deed(Who(e.actor, e.remote_ip, e.tenant), e.action, e.object, e.detail) for e in entries])


def add_access(api: Api, tokens: Tokens, operators: Operators, invitations: Invitations) -> None:
    """Declare the routes about tokens and sessions."""

    @api.route("POST", "/internal/tokens:verify", "service", callers=ASKERS, body=TokenHash)
    def verify(call: Call) -> Principal:
        """Tell whose token has this hash, and whether they may act in the tenant they name."""
        principal = tokens.verify(call.body.sha256, call.body.tenant, call.remote_ip)
        if principal is None:
            raise NotFound("no such token", code="token_not_found")
        return principal

    @api.route("POST", "/internal/operators:login", "service", callers=("dashboard",), body=Login)
    def log_in(call: Call) -> LoginAnswer:
        """Check name and password and begin a session."""
        return operators.log_in(call.body)

    @api.route("POST", "/internal/invitations:accept", "service", callers=("dashboard",), body=InvitationAccept)
    def accept(call: Call) -> dict[str, str]:
        """Make an operator of the bearer of an invitation."""
        return {"name": invitations.accept(call.body)}

    @api.route("POST", "/internal/operators:logout", "service", callers=("dashboard",), body=TokenHash)
    def log_out(call: Call) -> None:
        """End a session."""
        tokens.log_out(call.body.sha256, call.remote_ip)
