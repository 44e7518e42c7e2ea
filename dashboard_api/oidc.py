"""Log-in by the OpenID Connect provider: to it, back from it, and out of it. The registry judges what comes back."""

from __future__ import annotations

from flask import Response, render_template, request

from chassis.peers import Peer
from chassis.web import Api, Call
from dashboard_api.session import log_in_form, redirect_to, safe_next, set_session
from wire.errors import HeadwaterError, PeerUnavailable

START = "/login/oidc"
COOKIE = "headwater_login"
MAX_TEXT = 4_096


def add_routes(api: Api, registry: Peer) -> None:
    """Add the operations to the API; without a provider all of them answer 404."""

    @api.route("GET", START, "public")
    def begin(_call: Call) -> Response:
        """Send a browser to the provider."""
        asked = {"next": safe_next(request.args.get("next")), "invitation": request.args.get("invitation", "")[:256]}
        try:
            begun = registry.call("POST", "/internal/oidc:begin", asked)
        except HeadwaterError as error:
            return _failed(error)
        response = redirect_to(begun["url"])
        # Lax: the way back from the provider begins at another site. It opens nothing, and goes nowhere else.
        response.set_cookie(
            COOKIE, begun["attempt"], max_age=begun["seconds"], path=START, httponly=True, samesite="Lax",
            secure=request.is_secure,
        )  # fmt: skip
        return response

    @api.route("GET", f"{START}/callback", "public")
    def callback(call: Call) -> Response:
        """Take what the provider sends back; begin a session when it is good."""
        response = _finish(registry, call)
        response.delete_cookie(COOKIE, path=START, httponly=True, samesite="Lax", secure=request.is_secure)
        return response

    @api.route("GET", f"{START}/logout", "public")
    def leave(_call: Call) -> Response:
        """Send a browser to the provider's own log-out."""
        try:
            return redirect_to(registry.call("GET", "/internal/oidc:leave")["url"] or "/login")
        except HeadwaterError as error:
            return _failed(error)


def _finish(registry: Peer, call: Call) -> Response:
    given = {name: request.args.get(name, "")[:MAX_TEXT] for name in ("code", "state", "error")}
    given |= {"iss": request.args["iss"][:MAX_TEXT]} if "iss" in request.args else {}
    given |= {"attempt": request.cookies.get(COOKIE, "")[:MAX_TEXT], "remote_ip": call.remote_ip}
    try:
        session = registry.call("POST", "/internal/oidc:finish", given)
    except HeadwaterError as error:
        return _failed(error)
    # Not a redirect: this request began at another site, so a browser would follow without the new cookie (Strict).
    response = Response(render_template("again.html", target=safe_next(session["next"])))
    set_session(response, session)
    return response


def _failed(error: HeadwaterError) -> Response:
    if isinstance(error, PeerUnavailable):
        return log_in_form("/", fault="The log-in does not answer now. Try again in a moment.", status=503)
    return log_in_form("/", fault=f"{error.detail[:1].upper()}{error.detail[1:]}.", status=error.status)
