"""What every answer to a browser carries: content policy, our static files, friendly errors, the way to log-in."""

from __future__ import annotations

import hashlib
import json
import mimetypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flask import Flask, Response, render_template, request

from chassis import web
from chassis.web import Api, Call
from dashboard_api import look, session
from wire.errors import NotFound

STATIC = Path(__file__).parent / "static"
UNAUTHORIZED = 401
YEAR_S = 31_536_000
VERSION_LENGTH = 12
# No inline script or style, nothing from elsewhere, no eval. `connect-src` covers the websocket of the same host.
CONTENT_POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": CONTENT_POLICY,
    "X-Frame-Options": "DENY",
    # Not "no-referrer": browsers then send `Origin: null` with our own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
_API_PATHS = ("/v1/", "/internal/", "/openapi.json", "/metrics", "/livez", "/readyz", "/healthz", "/static/")
_ADVICE = {
    401: ("Log in to go on", "This page is for operators of this installation."),
    403: ("Not allowed", "Your role does not include this."),
    404: ("Nothing here", "The page or device does not exist, or no longer does."),
    405: ("Not that way", "This address does not take that kind of request."),
    429: ("Too many requests", "Wait a little, then try again."),
    503: ("Part of the platform is away", "Telemetry goes on being accepted. Try again in a moment."),
}


def add_routes(api: Api) -> None:
    """Add the static files to the API; they are few and small, and served from memory."""
    files = {str(path.relative_to(STATIC)): path.read_bytes() for path in STATIC.rglob("*") if path.is_file()}

    @api.route("GET", "/static/<path:name>", "public")
    def static(call: Call) -> Response:
        """A file of the pages: style, script, image."""
        name = call.path["name"]
        if name not in files:
            raise NotFound("no such file")
        response = Response(files[name], mimetype=_media_type(name))
        # With its version in the address a file never changes; modules that scripts import have none and are asked for.
        response.headers["Cache-Control"] = (
            f"public, max-age={YEAR_S}, immutable" if "v" in request.args else "public, no-cache"
        )
        response.add_etag()
        conditional = response.make_conditional(request)
        assert isinstance(conditional, Response)
        return conditional


def install(app: Flask) -> None:
    """Teach the app's templates our formats, and its answers our headers and error pages."""
    app.jinja_env.filters.update(look.FILTERS)
    app.jinja_env.globals["asset"] = asset_finder(STATIC)
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.after_request(_finish)


def asset_finder(folder: Path) -> Callable[[str], str]:
    """Give the function that names a static file with the version of its content."""
    versions: dict[str, str] = {}

    def asset(name: str) -> str:
        if name not in versions:
            versions[name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()[:VERSION_LENGTH]
        return f"/static/{name}?v={versions[name]}"

    return asset


def _media_type(name: str) -> str:
    known = {".js": "text/javascript", ".svg": "image/svg+xml", ".css": "text/css", "": "text/plain"}
    return known.get(Path(name).suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"


def _finish(response: Response) -> Response:
    if response.mimetype == web.PROBLEM_JSON and _is_page():
        response = _page_of(json.loads(response.get_data()), response)
    for name, text in HEADERS.items():
        response.headers.setdefault(name, text)
    return response


def _is_page() -> bool:
    if request.path.startswith(_API_PATHS):
        return False
    return request.url_rule is not None or request.accept_mimetypes.accept_html


def _page_of(problem: dict[str, Any], response: Response) -> Response:
    status = int(problem["status"])
    if status == UNAUTHORIZED or problem.get("code") == "token_back_off":  # a session that is over, behind a guesser
        return session.to_login()
    if problem.get("code") == "password_change_needed":
        return session.redirect_to("/password")
    title, advice = _ADVICE.get(status, ("Something went wrong", "It was logged. Try again, or look at the logs."))
    page = Response(render_template("error.html", title=title, advice=advice, problem=problem), status)
    for name in ("Retry-After", "Allow"):
        if name in response.headers:
            page.headers[name] = response.headers[name]
    return page
