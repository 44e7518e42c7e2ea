"""Pages of administration: people and programs, tenants, audit. Server-rendered with the asker's token, no script."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, urlencode

from flask import Response, render_template, request

from chassis import web
from chassis.peers import Peer
from chassis.tokens import split_tenant
from chassis.web import Api, Call
from dashboard_api import look
from dashboard_api.session import redirect_to
from wire.devices import ROLES, TENANT, Principal, allows
from wire.errors import HeadwaterError, NotFound

FAULTS = (400, 403, 404, 409, 422)  # what was typed is at fault: said on the page
PAGE = 100
USAGE_DAYS = 30
USAGE_DEVICES = 10
AUDIT_FILTERS = ("object", "actor", "action", "start", "end")


def add_routes(api: Api, devices: Peer) -> None:
    """Add the pages and their forms to the API."""
    _add_people(api, _Page(devices, "/people", _people))
    _add_tenants(api, _Page(devices, "/tenants", _tenants), devices)
    _add_audit(api, devices)
    _add_usage(api, devices)


def _add_people(api: Api, page: _Page) -> None:
    @api.route("GET", "/people", "admin")
    def people(call: Call) -> Response:
        """Who may log in, who is invited, which programs have a token."""
        return page.show(call)

    @api.route("POST", "/people/create", "admin")
    def create(call: Call) -> Response:
        """Invite somebody, or make a token; the link or the token is on the answer only."""
        form = request.form
        body: dict[str, Any] = {"name": form.get("name", "").strip(), "role": form.get("role", "")}
        if form.get("kind") == "token":
            limits = {"scope": form.get("scope", "").split(), "devices": form.get("devices", "")}
            return page.after(call, "POST", "/v1/tokens", body | limits)
        return page.after(call, "POST", "/v1/invitations", body)

    @api.route("POST", "/people/remove", "admin")
    def remove(call: Call) -> Response:
        """Delete a person, revoke a token or an invitation, or end somebody's sessions."""
        kind, name = request.form.get("kind", ""), quote(request.form.get("name", ""), safe="")
        paths = {"token": f"tokens/{name}", "invitation": f"invitations/{name}", "operator": f"operators/{name}",
                 "sessions": f"operators/{name}/sessions"}  # fmt: skip
        if kind not in paths or not name:
            raise NotFound("no such kind")
        return page.after(call, "DELETE", f"/v1/{paths[kind]}")


def _add_usage(api: Api, devices: Peer) -> None:
    @api.route("GET", "/usage", "viewer")
    def usage(call: Call) -> Response:
        """What the own tenant uses, and its limits; by type, by device, and each of the last days."""
        token = web.presented_token()[0]
        used = devices.call("GET", "/v1/usage", token=token)
        lists = {
            name: devices.call("GET", f"/v1/usage/{name}?{asked}", token=token)["items"]
            for name, asked in (("days", f"days={USAGE_DAYS}"), ("types", ""), ("devices", f"limit={USAGE_DEVICES}"))
        }
        return Response(render_template("usage.html", operator=call.actor, here="usage", used=used, **lists))


def _add_tenants(api: Api, page: _Page, devices: Peer) -> None:
    @api.route("GET", "/tenants", "platform")
    def tenants(call: Call) -> Response:
        """All tenants and how much is in each."""
        return page.show(call)

    @api.route("POST", "/tenants/change", "platform")
    def change(call: Call) -> Response:
        """Make, suspend, resume or delete a tenant."""
        deed, tenant = request.form.get("deed", ""), request.form.get("id", "").strip()
        if deed == "create":
            return page.after(call, "POST", "/v1/tenants", {"id": tenant, "title": request.form.get("title", "")})
        path = f"/v1/tenants/{quote(tenant, safe='')}"
        if deed == "delete":
            return page.after(call, "DELETE", path)
        if deed not in ("suspend", "resume"):
            raise NotFound("no such deed")
        return page.after(call, "POST", f"{path}:{deed}")

    @api.route("POST", "/tenants/enter", "platform")
    def enter(call: Call) -> Response:
        """Act in a tenant from now on: the session names it until another is entered."""
        tenant = request.form.get("id", "")
        secret = split_tenant(web.presented_token()[0])[0]
        devices.call("GET", f"/v1/tenants/{quote(tenant, safe='')}", token=secret)  # raises when there is none
        entry = {"actor": call.actor.signature, "action": "tenant.enter", "object": tenant,
                 "remote_ip": call.remote_ip, "tenant": tenant}  # fmt: skip
        devices.call("POST", "/internal/audit", {"entries": [entry]})
        response = redirect_to("/")
        cookie = secret if tenant == TENANT else f"{secret}@{tenant}"
        response.set_cookie(
            web.SESSION_COOKIE, cookie, path="/", httponly=True, samesite="Strict", secure=request.is_secure
        )
        return response


def _add_audit(api: Api, devices: Peer) -> None:
    @api.route("GET", "/audit", "admin")
    def audit(call: Call) -> Response:
        """Who changed what, when, from where."""
        filters = {name: request.args.get(name, "").strip() for name in AUDIT_FILTERS}
        cursor = request.args.get("cursor", "")
        asked = look.given(filters) | {"limit": str(PAGE)} | ({"cursor": cursor} if cursor else {})
        fault, listing = "", dict[str, Any](items=[], next=None)
        try:
            listing = devices.call("GET", f"/v1/audit?{urlencode(asked)}", token=web.presented_token()[0])
        except HeadwaterError as error:
            if error.status not in FAULTS:
                raise
            fault = error.detail
        following = _following(filters, listing)
        shown = {"listing": listing, "filters": filters, "fault": fault, "following": following, "is_first": not cursor}
        return Response(render_template("audit.html", operator=call.actor, here="audit", **shown))


class _Page:
    """A page with forms, and what it shows: asked with the operator's own token."""

    def __init__(self, devices: Peer, path: str, read: Callable[[Peer, str, Principal], Mapping[str, Any]]) -> None:
        self._devices = devices
        self._path = path
        self._read = read

    def show(self, call: Call, made: Any = None, fault: str = "", status: int = 200) -> Response:
        """Show the page, with what a form has just made or what is at fault with it."""
        shown = self._read(self._devices, web.presented_token()[0], call.actor)
        name = self._path.strip("/")
        page = render_template(f"{name}.html", operator=call.actor, here=name, made=made, fault=fault, **shown)
        return Response(page, status)

    def after(self, call: Call, method: str, path: str, body: Any = None) -> Response:
        """Do what a form asks, then show the page: at once when a secret was made, else by its own address."""
        try:
            made = self._devices.call(method, path, body, token=web.presented_token()[0])
        except HeadwaterError as error:
            if error.status not in FAULTS:
                raise
            return self.show(call, fault=error.detail, status=error.status)
        return self.show(call, made=made) if made and "token" in made else redirect_to(self._path)


def _people(devices: Peer, token: str, actor: Principal) -> Mapping[str, Any]:
    lists = {name: devices.call("GET", f"/v1/{name}", token=token)["items"]
             for name in ("operators", "invitations", "tokens")}  # fmt: skip
    granted = [role for role in ROLES if allows(actor.role, role) and (role != "platform" or actor.tenant == TENANT)]
    return lists | {"roles": granted}


def _tenants(devices: Peer, token: str, _actor: Principal) -> Mapping[str, Any]:
    return {"tenants": devices.call("GET", "/v1/tenants", token=token)["items"]}


def _following(filters: Mapping[str, str], listing: Mapping[str, Any]) -> str:
    if not listing.get("next"):
        return ""
    return f"/audit?{urlencode(look.given(filters) | {'cursor': listing['next']})}"
