"""Routes of topic claims: HTTP in and out, no rules."""

from __future__ import annotations

from typing import Annotated, Protocol

from pydantic import Field

from chassis.web import Api, Call
from devices.api import DEVICE, MAX_LIST, who
from devices.rows import Who
from wire.claims import Claim, ClaimList, ClaimPage, Claims, ClaimView, NewClaim
from wire.devices import Model, Text
from wire.errors import NotFound
from wire.topics import is_device_id


class ClaimRows(Protocol):
    """Claims; see `devices.claims.store.ClaimStore`."""

    def of(self, tenant: str, device: str) -> list[ClaimView]: ...
    def page(self, tenant: str, after: str, limit: int) -> list[ClaimView]: ...
    def add(self, tenant: str, device: str, claim: NewClaim, who: Who) -> ClaimView: ...
    def remove(self, tenant: str, device: str, topics: str, who: Who) -> None: ...
    def every(self) -> list[Claim]: ...


class ClaimsQuery(Model):
    """Which part of the claims."""

    limit: Annotated[int, Field(ge=1, le=MAX_LIST)] = 100
    cursor: Text = ""


class ReleaseQuery(Model):
    """Which claim."""

    filter: Text = ""


def add_routes(api: Api, claims: ClaimRows) -> None:
    """Declare the routes."""

    @api.route("GET", "/v1/topics", "viewer", query=ClaimsQuery, answers={200: ClaimPage})
    def list_all(call: Call) -> ClaimPage:
        """List the topics that devices have claimed, in order of their filters."""
        items = claims.page(call.actor.tenant, call.query.cursor, call.query.limit)
        return ClaimPage(items=items, next=items[-1].filter if len(items) == call.query.limit else None)

    @api.route("GET", DEVICE + "/topics", "viewer", answers={200: ClaimList})
    def list_of_device(call: Call) -> ClaimList:
        """List the topics that a device has claimed."""
        return ClaimList(items=claims.of(call.actor.tenant, _id(call)))

    @api.route("POST", DEVICE + "/topics", "operator", body=NewClaim, answers={201: ClaimView})
    def claim(call: Call) -> ClaimView:
        """Claim topics for a device: it alone may use them, and what comes there is its data."""
        return claims.add(call.actor.tenant, _id(call), call.body, who(call))

    @api.route("DELETE", DEVICE + "/topics", "operator", query=ReleaseQuery, answers={204: None})
    def release(call: Call) -> None:
        """Take a claim away again, by its filter."""
        claims.remove(call.actor.tenant, _id(call), call.query.filter, who(call))

    @api.route("GET", "/internal/topics", "service", callers=("bridge",))
    def every(_call: Call) -> Claims:
        """Give all claims of the installation."""
        return Claims(claims=claims.every())


def _id(call: Call) -> str:
    device_id = call.path["device_id"]
    if not is_device_id(device_id):
        raise NotFound(f"no device {device_id[:80]!r}", code="device_not_found")
    return device_id
