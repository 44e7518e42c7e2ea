"""The page of enrolment: who waits to be accepted, the ways in, the authorities. Server-rendered, no script."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from flask import Response, redirect, render_template, request

from chassis import web
from chassis.peers import Peer
from chassis.web import Api, Call
from wire.devices import allows
from wire.errors import HeadwaterError

HELD = 200  # shown at once; deciding about them shows the next
MAX_CHOSEN = 1_000


def add_routes(api: Api, devices: Peer) -> None:
    """Add the page and its forms to the API."""
    page = _Page(devices)

    @api.route("GET", "/enrolment", "viewer")
    def enrolment(call: Call) -> Response:
        """Who waits to be accepted, the ways in, the authorities."""
        return page.show(call)

    @api.route("POST", "/enrolment/decide", "operator")
    def decide(call: Call) -> Response:
        """Accept or refuse held devices."""
        return page.after(call, page.decide)

    @api.route("POST", "/enrolment/create", "operator")
    def create(call: Call) -> Response:
        """Open a way in; its secret is on the answer only."""
        return page.after(call, page.create)

    @api.route("POST", "/enrolment/revoke", "operator")
    def revoke(call: Call) -> Response:
        """Close a way in."""
        return page.after(call, page.revoke)

    @api.route("POST", "/enrolment/authority", "admin")
    def authority(call: Call) -> Response:
        """Make our own authority, register, prove or remove a customer's."""
        return page.after(call, page.authority)


class _Page:
    """Asks the registry with the operator's own token."""

    def __init__(self, devices: Peer) -> None:
        self._devices = devices

    def show(self, call: Call, made: Any = None, fault: str = "", status: int = 200) -> Response:
        held = self._ask("GET", f"/v1/holds?limit={HELD}")
        ways = self._ask("GET", "/v1/enrolments")["items"]
        authorities = self._ask("GET", "/v1/certificate-authorities")["items"]
        page = render_template(
            "enrolment.html", operator=call.actor, here="enrolment", held=held["items"], more=held["next"], ways=ways,
            authorities=authorities, has_own=any(each["is_own"] for each in authorities), made=made, fault=fault,
            typed=request.form, may_change=allows(call.actor.role, "operator"),
            may_trust=allows(call.actor.role, "admin"), may_make=allows(call.actor.role, "platform"),
        )  # fmt: skip
        return Response(page, status)

    def after(self, call: Call, deed: Callable[[], Any]) -> Response:
        """Do what a form asks: show the page again with what was made, or what is at fault; else go back to it."""
        try:
            made = deed()
        except HeadwaterError as error:
            if error.status not in (400, 403, 404, 409, 422):  # what was typed is at fault: say so on the page
                raise
            return self.show(call, fault=error.detail, status=error.status)
        if made is not None:
            return self.show(call, made=made)
        response = redirect("/enrolment", 303, Response)
        assert isinstance(response, Response)
        return response

    def decide(self) -> None:
        verb = "accept" if request.form.get("verb") == "accept" else "refuse"
        ids = request.form.getlist("id")[:MAX_CHOSEN]
        if ids:
            self._ask("POST", f"/v1/holds:{verb}", {"ids": ids})

    def create(self) -> Any:
        form = request.form
        tags = dict(pair.split("=", 1) for pair in form.get("tags", "").split() if "=" in pair)
        body: dict[str, Any] = {"name": form.get("name", ""), "kind": form.get("kind", "token"), "tags": tags}
        body |= {name: form[name].strip() for name in ("ids", "type", "group") if form.get(name, "").strip()}
        body |= {"policy": "hold"} if form.get("hold") else {}
        most = form.get("max_devices", "").strip()
        body |= {"max_devices": most} if most else {}
        return self._ask("POST", "/v1/enrolments", body)

    def revoke(self) -> None:
        self._ask("DELETE", f"/v1/enrolments/{quote(request.form.get('id', ''), safe='')}")

    def authority(self) -> None:
        form, name = request.form, quote(request.form.get("name", ""), safe="")
        if form.get("verb") == "make":
            self._ask("POST", "/v1/certificate-authorities", {"name": "own"})
        elif form.get("verb") == "prove":
            proof = {"certificate": form.get("certificate", "")}
            self._ask("POST", f"/v1/certificate-authorities/{name}:prove", proof)
        elif form.get("verb") == "remove":
            self._ask("DELETE", f"/v1/certificate-authorities/{name}")
        else:
            body: dict[str, Any] = {"name": form.get("name", ""), "certificate": form.get("certificate", "")}
            body |= {"ids": form["ids"].strip()} if form.get("ids", "").strip() else {}
            body |= {"policy": "hold"} if form.get("hold") else {}
            self._ask("POST", "/v1/certificate-authorities", body)

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        return self._devices.call(method, path, body, token=web.presented_token()[0])
