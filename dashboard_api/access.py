"""The page of a device's life: state, credentials, gateway or children, claimed topics. Server-rendered, no script."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, urlencode

from flask import Response, redirect, render_template, request

from chassis import web
from chassis.peers import Peer
from chassis.web import Api, Call
from wire.claims import FAMILIES
from wire.devices import allows
from wire.errors import HeadwaterError, Unprocessable

PAGE = "/devices/<device_id>/access"
CHILDREN = 100  # a page of them
SHOWN_LEFT_OUT = 10
STATES = ("enable", "disable", "retire")


def add_routes(api: Api, devices: Peer) -> None:
    """Add the page and its forms to the API."""
    page = _Page(devices)

    @api.route("GET", PAGE, "viewer")
    def access(call: Call) -> Response:
        """A device's state, credentials, claimed topics, gateway or children."""
        return page.show(call)

    @api.route("POST", PAGE + "/state", "operator")
    def state(call: Call) -> Response:
        """Enable, disable, retire or delete the device; its name typed again confirms."""
        return page.after(call, page.change_state)

    @api.route("POST", PAGE + "/credential", "operator")
    def credential(call: Call) -> Response:
        """Issue, rotate or revoke a credential; a new secret is on the answer only."""
        return page.after(call, page.change_credential)

    @api.route("POST", PAGE + "/topics", "operator")
    def topics(call: Call) -> Response:
        """Claim or release topics of another system."""
        return page.after(call, page.change_topics)

    @api.route("POST", PAGE + "/gateway", "operator")
    def gateway(call: Call) -> Response:
        """Change a gateway's rules, or the gateway that a device is seen through."""
        return page.after(call, page.change_gateway)


class _Page:
    """Asks the registry with the operator's own token."""

    def __init__(self, devices: Peer) -> None:
        self._devices = devices

    def show(self, call: Call, made: Any = None, fault: str = "", status: int = 200) -> Response:
        """Show the page; `made` is a new credential, or the word to give of what was done."""
        path = _path(call)
        device = self._ask("GET", path)
        rules, children, parent = None, {}, None
        after = request.args.get("after", "")[:64]
        if device["gateway"]:
            rules = self._ask("GET", f"{path}/gateway")
            children = self._ask("GET", f"{path}/children?{urlencode({'limit': CHILDREN, 'cursor': after})}")
        else:
            parent = self._ask("GET", f"{path}/parent")["gateway"]
        page = render_template(
            "access.html", operator=call.actor, here="devices", device=device, rules=rules, children=children,
            parent=parent, after=after, fault=fault, **_shown(made), may_change=allows(call.actor.role, "operator"),
            topics=self._ask("GET", f"{path}/topics")["items"], families=FAMILIES,
        )  # fmt: skip
        return Response(page, status)

    def after(self, call: Call, deed: Callable[[Call], Any]) -> Response:
        """Do what a form asks; show what was made or what is at fault, else go back to the page."""
        try:
            made = deed(call)
        except HeadwaterError as error:
            if error.status not in (400, 403, 404, 409, 422):
                raise
            return self.show(call, fault=error.detail, status=error.status)
        if made is not None:
            return self.show(call, made=made)
        gone = request.form.get("verb") == "delete"
        response = redirect("/devices" if gone else f"/devices/{_id(call)}/access", 303, Response)
        assert isinstance(response, Response)
        return response

    def change_state(self, call: Call) -> None:
        verb = request.form.get("verb", "")
        if request.form.get("confirm") != call.path["device_id"]:
            raise Unprocessable("type the device's id to confirm")
        if verb == "delete":
            self._ask("DELETE", _path(call) + ("?data=true" if request.form.get("data") else ""))
        elif verb in STATES:
            self._ask("POST", f"{_path(call)}:{verb}")

    def change_credential(self, call: Call) -> Any:
        path, form = f"{_path(call)}/credentials", request.form
        if form.get("verb") == "revoke":
            self._ask("DELETE", f"{path}/{quote(form.get('id', ''), safe='')}")
            return None
        if form.get("verb") == "rotate":
            return self._ask("POST", f"{path}:rotate", {"overlap_s": form.get("overlap_s") or "3600"})
        label = form.get("label", "").strip()
        return self._ask("POST", path, {"label": label} if label else {})

    def change_topics(self, call: Call) -> None:
        path, form = f"{_path(call)}/topics", request.form
        given = form.get("filter", "").strip()
        if form.get("verb") == "release":
            self._ask("DELETE", f"{path}?{urlencode({'filter': given})}")
        else:
            self._ask("POST", path, {"filter": given, "protocol": form.get("protocol", "")})

    def change_gateway(self, call: Call) -> str | None:
        path, form = _path(call), request.form
        if form.get("verb") == "move":
            self._ask("PUT", f"{path}/parent", {"gateway": form.get("gateway", "").strip()})
        elif form.get("verb") == "release":
            self._ask("DELETE", f"{path}/parent")
        else:
            rules = self._ask("GET", f"{path}/gateway")
            given: dict[str, Any] = {
                "children": form.get("children", "auto"),
                "prefixes": form.get("prefixes", "").split(),
            }
            given |= {"child_type": form.get("child_type", "").strip() or None}
            return _left_out(self._ask("PUT", f"{path}/gateway", rules | given))
        return None

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        return self._devices.call(method, path, body, token=web.presented_token()[0])


def _left_out(changed: Mapping[str, Any]) -> str | None:
    if not changed["left_out"]:
        return None
    named = ", ".join(changed["left_out_children"][:SHOWN_LEFT_OUT])
    more = ", ..." if changed["left_out"] > SHOWN_LEFT_OUT else ""
    return f"Saved. It does not speak for {changed['left_out']} of its children any more: {named}{more}"


def _shown(made: Any) -> dict[str, Any]:
    return {"notice": made, "made": None} if isinstance(made, str) else {"notice": "", "made": made}


def _id(call: Call) -> str:
    return quote(call.path["device_id"], safe="")


def _path(call: Call) -> str:
    return f"/v1/devices/{_id(call)}"
