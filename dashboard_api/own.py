"""Pages about one's own password: choosing one by an invitation, and changing it."""

from __future__ import annotations

from collections.abc import Callable

from flask import Response, render_template, request

from chassis import web
from chassis.peers import Peer
from chassis.web import Api, Call
from dashboard_api.session import check_origin, redirect_to
from wire.errors import HeadwaterError

MAX_TOKEN, MAX_PASSWORD = 256, 1_024
TWO_DIFFER = "These two differ."


def add_routes(api: Api, registry: Peer, forget: Callable[[str], None]) -> None:
    """Add the pages to the API; `forget` drops what is remembered of a token."""
    _add_invitation(api, registry)
    _add_password(api, registry, forget)


def _add_invitation(api: Api, registry: Peer) -> None:
    @api.route("GET", "/invitation", "public")
    def invitation(_call: Call) -> Response:
        """The form by which somebody who is invited chooses a password."""
        return _invitation(request.args.get("token", "")[:MAX_TOKEN])

    @api.route("POST", "/invitation", "public")
    def accept(call: Call) -> Response:
        """Use an invitation up, and go to the log-in."""
        check_origin()
        token, password = request.form.get("token", "")[:MAX_TOKEN], request.form.get("password", "")
        if password != request.form.get("again"):
            return _invitation(token, TWO_DIFFER, 422)
        body = {"token": token, "password": password[:MAX_PASSWORD], "remote_ip": call.remote_ip}
        try:
            registry.call("POST", "/internal/invitations:accept", body)
        except HeadwaterError as error:
            return _invitation(token, error.detail, error.status)
        return redirect_to("/login")


def _add_password(api: Api, registry: Peer, forget: Callable[[str], None]) -> None:
    @api.route("GET", "/password", "self")
    def form(call: Call) -> Response:
        """The form for a new password of one's own."""
        return _password(call)

    @api.route("POST", "/password", "self")
    def change(call: Call) -> Response:
        """Set one's own password, then show the overview."""
        given = {name: request.form.get(name, "")[:MAX_PASSWORD] for name in ("old", "new", "again")}
        if given["new"] != given["again"]:
            return _password(call, TWO_DIFFER, 422)
        body, token = {"old": given["old"], "new": given["new"]}, web.presented_token()[0]
        try:
            registry.call("PUT", "/v1/me/password", body, token=token)
        except HeadwaterError as error:
            return _password(call, error.detail, error.status if error.status != web.UNAUTHORIZED else 422)
        forget(token)
        return redirect_to("/")


def _invitation(token: str, fault: str = "", status: int = 200) -> Response:
    return Response(render_template("invitation.html", token=token, fault=fault), status)


def _password(call: Call, fault: str = "", status: int = 200) -> Response:
    return Response(render_template("password.html", operator=call.actor, here="password", fault=fault), status)
