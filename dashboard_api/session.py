"""Log-in and log-out: a form, a cookie that scripts cannot read, and pages one may be sent back to."""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from urllib.parse import urlencode

from flask import Response, redirect, render_template, request

from chassis import web
from chassis.guessing import TokenGuesses
from chassis.peers import Peer
from chassis.tokens import TokenChecker, hash_token, split_tenant
from chassis.web import Api, Call
from dashboard_api import look
from wire.clock import NS_PER_S, now_ns
from wire.errors import Forbidden, HeadwaterError, NotFound, PeerUnavailable, TooManyRequests

MAX_NAME, MAX_PASSWORD = 128, 1_024
TOO_MANY = 429
HOME = "/"


def safe_next(asked: str | None) -> str:
    """Give the page to go to after log-in: a path of this site, or the overview."""
    if not asked or not asked.startswith("/") or asked.startswith("//") or "\\" in asked or not asked.isprintable():
        return HOME
    return asked


def to_login() -> Response:
    """Send a browser to the log-in, and from there back to the page it asked for."""
    asked = request.full_path.rstrip("?") if request.method == "GET" else HOME
    if request.method == "GET" and request.headers.get("Sec-Fetch-Site") == "cross-site":
        # A link on another site comes without the cookie (SameSite=Strict). Asked again by a page of ours it comes
        # with it, if there is one, so that nobody logs in twice.
        return Response(render_template("again.html", target=asked))
    return redirect_to("/login" + (f"?{urlencode({'next': asked})}" if asked != HOME else ""))


def add_routes(api: Api, registry: Peer, tokens: TokenChecker, guesses: TokenGuesses) -> None:
    """Add the operations of the session to the API; `guesses` counts cookies that open nothing."""

    @api.route("GET", "/login", "public")
    def form(call: Call) -> Response:
        """The log-in form."""
        asked = safe_next(request.args.get("next"))
        token, _ = web.presented_token()
        if token and tokens.check(token):
            return redirect_to(asked)
        if token:
            with suppress(TooManyRequests):  # whose session is over has to see the form, however many they are
                guesses.wrong(call.remote_ip)
        return log_in_form(asked)

    @api.route("POST", "/login", "public")
    def login(call: Call) -> Response:
        """Check name and password, open a session."""
        return _login(registry, call)

    @api.route("POST", "/logout", "public")
    def logout(_call: Call) -> Response:
        """End the session."""
        return _logout(registry)

    @api.route("GET", "/v1/session", "viewer", answers={200: None})
    def session(call: Call) -> dict[str, Any]:
        """Who is asking: name, role and tenant."""
        return {"name": call.actor.name, "role": call.actor.role, "tenant": call.actor.tenant}


def _login(registry: Peer, call: Call) -> Response:
    asked = safe_next(request.form.get("next"))
    name, password = request.form.get("name", ""), request.form.get("password", "")
    check_origin()
    if not name or not password or len(name) > MAX_NAME or len(password) > MAX_PASSWORD:
        return log_in_form(asked, name[:MAX_NAME], "Give both a name and a password.", 422)
    body = {"name": name, "password": password, "remote_ip": call.remote_ip}
    try:
        session = registry.call("POST", "/internal/operators:login", body)
    except PeerUnavailable:
        return log_in_form(asked, name, "The devices service does not answer. Try again in a moment.", 503)
    except HeadwaterError as error:
        return _refused(asked, name, error)
    response = redirect_to("/password" if session.get("must_change") else asked)
    set_session(response, session)
    return response


def _logout(registry: Peer) -> Response:
    check_origin()
    token = request.cookies.get(web.SESSION_COOKIE)
    response = redirect_to("/login?out")
    if token:
        with suppress(NotFound):  # it ended before
            registry.call("POST", "/internal/operators:logout", {"sha256": hash_token(split_tenant(token)[0])})
        response.delete_cookie(web.SESSION_COOKIE, httponly=True, samesite="Strict", secure=request.is_secure)
    return response


def check_origin() -> None:
    """Refuse a form that another site sent. Raises Forbidden."""
    # Every browser of today sends one of the two with a form; a program that sends neither cannot be tricked by a page.
    is_browser = "Origin" in request.headers or "Sec-Fetch-Site" in request.headers
    if is_browser and not web.is_same_site():
        raise Forbidden("the form must be sent from this site's own page", code="foreign_origin")


def log_in_form(asked: str, name: str = "", fault: str = "", status: int = 200) -> Response:
    """Show the log-in, with what is wrong."""
    is_out = "out" in request.args and not fault
    return Response(render_template("login.html", next=asked, name=name, fault=fault, is_out=is_out), status)


def _refused(asked: str, name: str, error: HeadwaterError) -> Response:
    if error.status == TOO_MANY:
        return log_in_form(asked, name, "Too many attempts. Wait a little before the next one.", TOO_MANY)
    return log_in_form(asked, name, "Name and password do not fit together.", error.status)


def set_session(response: Response, session: dict[str, Any]) -> None:
    """Hand a new session to the browser, in a cookie that scripts cannot read."""
    expires_ns = look.to_ns(session.get("expires"))
    age_s = None if expires_ns is None else max(0, (expires_ns - now_ns()) // NS_PER_S)
    response.set_cookie(
        web.SESSION_COOKIE,
        session["token"],
        max_age=age_s,
        path="/",
        httponly=True,
        samesite="Strict",
        secure=request.is_secure,
    )


def redirect_to(target: str) -> Response:
    """Send a browser to a page of ours with GET."""
    response = redirect(target, 303, Response)
    assert isinstance(response, Response)
    return response
