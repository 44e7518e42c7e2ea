"""The HTTP edge of every service: routes that declare who may call them, bodies that become models, problem documents.

Each route names its access (`public`, `service`, a role, or `own` for handlers that authenticate devices themselves),
so a test can generate every route with every role.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Literal, get_origin
from urllib.parse import urlsplit

import orjson
from flask import Flask, Response, request
from pydantic import BaseModel, TypeAdapter
from werkzeug.exceptions import HTTPException

from chassis import bodies, ending, logs, metrics, openapi, parking
from chassis import reach as reaching
from chassis.guessing import TokenGuesses
from chassis.parking import IS_WHOLE
from chassis.reach import Reach, Reaches
from chassis.services import Services
from chassis.tokens import TokenChecker
from chassis.wsgi import App
from wire import errors
from wire.devices import Principal, Role, allows

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

log = logs.get(__name__)
Access = Literal["public", "own", "service", "self"] | Role  # self: whoever is logged in, about themselves
SESSION_COOKIE = "headwater_session"
TENANT_HEADER = "Headwater-Tenant"
MULTIPART = "multipart/"
PROBLEM_JSON = "application/problem+json"
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
SERVER_ERROR = 500
UNAUTHORIZED = 401
DRAINED_BYTES = 32 * 1024 * 1024  # of a refused request's body: as much as any route takes
DRAIN_CHUNK_BYTES = 64 * 1024

REQUESTS = metrics.Counter("headwater_http_requests", "Requests answered", ["service", "route", "status"])
SECONDS = metrics.Histogram(
    "headwater_http_request_seconds",
    "Time from request to answer",
    ["service"],
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)
_requests = lru_cache(1024)(REQUESTS.labels)  # looking a label up costs more than counting
_seconds = lru_cache(16)(SECONDS.labels)


@dataclass(slots=True, frozen=True)
class Call:
    """A request after the edge: checked body and query, path parts, who asks."""

    path: dict[str, str]
    body: Any = None
    query: Any = None
    principal: Principal | None = None
    remote_ip: str = ""

    @property
    def actor(self) -> Principal:
        """Who asks, on routes that demand someone."""
        assert self.principal is not None
        return self.principal


Handler = Callable[[Call], Any]


@dataclass(slots=True, frozen=True)
class Operation:
    """One method of one path, as declared."""

    method: str
    rule: str
    access: Access
    handler: Handler
    # A model, any type a TypeAdapter takes, or a JSON Schema of what the handler reads itself. With the access `own` a
    # handler reads every body itself (`bodies.read_model`): who asks comes before what they ask.
    body: Any = None
    query: type[BaseModel] | None = None
    answers: Mapping[int, Any] = field(default_factory=dict)
    summary: str = ""
    media_type: str = "application/json"
    callers: tuple[str, ...] = ()  # of `service` routes: the kinds of services that need it
    reach: Reach | None = None  # with a token for some devices only; None: as its path says
    is_on_loop: bool = False  # where the request runs on an event loop: it blocks nowhere, so it needs no thread

    @property
    def area(self) -> str:
        """What scopes of tokens name it by: the first part of its path below /v1/; empty for pages."""
        parts = self.rule.split("/")
        return parts[2].partition(":")[0] if parts[1] == "v1" else ""

    @property
    def reaches(self) -> Reach:
        """What it does with a token for some devices only."""
        return self.reach or reaching.by_rule(self.method, self.rule)


class Api:
    """The operations of a service, collected by `route` and put into an app by `create_app`."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.described: list[Operation] = []  # of services beside this one, that its OpenAPI document tells of

    def route(self, method: str, rule: str, access: Access, **declared: Any) -> Callable[[Handler], Handler]:
        """Declare an operation; keywords are those of Operation. The summary is the handler's first doc line."""

        def declare(handler: Handler) -> Handler:
            summary = (handler.__doc__ or "").strip().split("\n")[0]
            self.operations.append(Operation(method, rule, access, handler, **{"summary": summary} | declared))
            return handler

        return declare


@dataclass(slots=True, frozen=True)
class Edge:
    """What the edge of a service needs to know."""

    service: str
    services: Services
    tokens: TokenChecker
    ready: Callable[[], dict[str, str]]  # check -> "ok" or one sentence of what is wrong
    max_body_bytes: int = bodies.MAX_BYTES
    guesses: TokenGuesses = field(default_factory=TokenGuesses)
    reaches: Reaches | None = None


def create_app(edge: Edge, api: Api, import_name: str = __name__) -> Flask:
    """Build the Flask app of a service: its operations, probes, metrics, OpenAPI, problem documents."""
    app = App(import_name, static_folder=None)
    app.config.update(MAX_CONTENT_LENGTH=edge.max_body_bytes)
    for operation in api.operations:
        view = _view(edge, operation)
        app.add_url_rule(operation.rule, f"{operation.method} {operation.rule}", view, methods=[operation.method])
    _add_probes(app, edge)
    app.add_url_rule(
        "/openapi.json", "openapi", lambda: answer(openapi.document(edge.service, api.operations + api.described))
    )
    app.register_error_handler(Exception, _on_error)
    app.after_request(lambda response: _finish(edge.service, response))
    app.extensions["headwater.api"] = api
    return app


def answer(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Render a model, or anything JSON takes, as a JSON response."""
    response = Response(dump_json(content), status, content_type="application/json")
    if headers:
        response.headers.update(headers)
    return response


def dump_json(content: Any) -> bytes:
    """Encode a model, or anything made of JSON values and models; integers to 2^64-1 stay exact."""
    if isinstance(content, BaseModel):
        return content.model_dump_json().encode()
    return orjson.dumps(content, default=_dump_model)


def problem(error: errors.HeadwaterError) -> Response:
    """Render an error as its problem document, with Retry-After where it has one."""
    response = Response(orjson.dumps(error.to_problem()), error.status, mimetype=PROBLEM_JSON)
    if isinstance(error, errors.RetryLater):
        response.headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, errors.Unauthorized):
        response.headers["WWW-Authenticate"] = 'Bearer realm="headwater"'
    return response


def _dump_model(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} is not JSON")


def _view(edge: Edge, operation: Operation) -> Callable[..., Response]:
    is_parsed = operation.body is not None and operation.access != "own" and not isinstance(operation.body, dict)
    body = TypeAdapter(operation.body) if is_parsed else None
    respond = partial(_respond, operation)
    lists = {
        name
        for name, info in (operation.query.model_fields if operation.query else {}).items()
        if get_origin(info.annotation) is list
    }

    def view(**path: str) -> Response:
        principal = _authorize(edge, operation)
        if any("\0" in part for part in path.values()):
            raise errors.NotFound("no name holds a NUL")
        if request.environ.get("CONTENT_TYPE", "")[: len(MULTIPART)].lower() == MULTIPART:
            raise errors.UnsupportedMedia("multipart bodies are not taken: no route has a use for their parts")
        call = Call(
            path,
            bodies.read_model(body) if body else None,
            bodies.read_query(operation.query, lists) if operation.query else None,
            principal,
            request.remote_addr or "",
        )
        if operation.is_on_loop:
            return respond(call)
        return parking.aside(copy_context().run, respond, call)  # the request is still its own in the thread

    return view


def _respond(operation: Operation, call: Call) -> Response:
    result = operation.handler(call)
    if isinstance(result, Response):
        return result
    status = min(operation.answers, default=200)
    return Response(status=204) if result is None else answer(result, status)


def _authorize(edge: Edge, operation: Operation) -> Principal | None:
    access = operation.access
    if access in ("public", "own"):
        return None
    token, by_cookie = presented_token()
    if access == "service":
        _demand_service(edge, token, operation.callers)
        return None
    principal = demand_known(token, edge.tokens, edge.guesses)
    if by_cookie and request.method not in SAFE_METHODS and not is_same_site():
        raise errors.Forbidden("a request with a session must come from the platform's own pages")
    if access != "self":
        _demand_right(principal, operation)
        reaching.demand(principal, operation.rule, operation.reaches, edge.reaches)
    return principal


def demand_known(token: str, tokens: TokenChecker, guesses: TokenGuesses) -> Principal:
    """Tell who presents the operator's token of this request.

    Raises:
        Unauthorized: nobody whom we know.
        TooManyRequests: so, and there were many wrong ones from this address; a right one never waits.
    """
    remote_ip = request.remote_addr or ""
    principal = tokens.check(token, remote_ip) if token else None
    if principal is None:
        if token:
            guesses.wrong(remote_ip)
        raise errors.Unauthorized("a valid operator token is needed (Authorization: Bearer ..., or a session)")
    return principal


def _demand_service(edge: Edge, token: str, callers: Sequence[str]) -> None:
    """Refuse whoever is none of these services; wrong tokens count like those of operators, right ones never wait."""
    try:
        edge.services.demand(token, callers)
    except errors.Unauthorized:
        if token:
            edge.guesses.wrong(request.remote_addr or "")
        raise


def _demand_right(principal: Principal, operation: Operation) -> None:
    if principal.must_change:
        raise errors.Forbidden("choose a new password first", code="password_change_needed")
    if not allows(principal.role, operation.access):  # type: ignore[arg-type]
        raise errors.Forbidden(f"this needs the role {operation.access}; {principal.name} is {principal.role}")
    verb = "read" if operation.method in SAFE_METHODS else "write"
    demand_scope(principal, f"{operation.area}:{verb}")


def demand_scope(principal: Principal, permission: str) -> None:
    """Refuse a token what its scope does not hold: `devices:read`, `*:read`, `query:*`.

    Raises:
        Forbidden: it is outside.
    """
    area, _, verb = permission.partition(":")
    if principal.scope and not {permission, f"*:{verb}", f"{area}:*", "*:*"} & set(principal.scope):
        raise errors.Forbidden(f"the token's scope does not hold {permission}", code="out_of_scope")


def presented_token() -> tuple[str, bool]:
    """Give the operator's token of this request, and whether it came by the session cookie.

    The tenant in which somebody of the platform acts belongs to it: `<token>@<tenant>`.
    """
    header, tenant = request.headers.get("Authorization", ""), request.headers.get(TENANT_HEADER, "")
    by_cookie = header[:7].lower() != "bearer "
    token = request.cookies.get(SESSION_COOKIE, "") if by_cookie else header[7:].strip()
    return f"{token.partition('@')[0]}@{tenant}" if tenant and token else token, by_cookie


def is_same_site() -> bool:
    """Tell whether a browser's request comes from a page of ours (Origin, else Sec-Fetch-Site).

    Whoever is on the way can put anything into a page that came without TLS, so over HTTPS it is none of ours. The
    other way round it may be: a proxy before the gateway ends the TLS.
    """
    origin = request.headers.get("Origin")
    if origin:
        found = urlsplit(origin)
        return found.netloc == request.host and found.scheme in ("https", request.scheme)
    return request.headers.get("Sec-Fetch-Site", "") in ("same-origin", "none")


def _on_error(error: Exception) -> Response:
    ending.end_if_short(error)
    if isinstance(error, errors.HeadwaterError):
        return problem(error)
    if isinstance(error, HTTPException):
        known = {404: "not_found", 405: "method_not_allowed", 413: "too_large", 415: "media_type"}
        status = error.code or SERVER_ERROR
        described = errors.HeadwaterError(error.description or error.name, code=known.get(status, "bad_request"))
        described.status = status
        response = problem(described)
        if error.code == 405:  # noqa: PLR2004 - RFC 9110 s. 15.5.6 demands Allow
            response.headers["Allow"] = ", ".join(getattr(error, "valid_methods", None) or ())
        return response
    log.fault("request_fault", route=str(request.url_rule))
    return problem(errors.HeadwaterError("an error of ours; it was logged"))


def _finish(service: str, response: Response) -> Response:
    environ, rule = request.environ, request.url_rule
    if IS_WHOLE not in environ:
        _drain(environ)
    headers = response.headers
    if "Cache-Control" not in headers:
        headers["Cache-Control"] = "no-store"
    if "X-Content-Type-Options" not in headers:
        headers["X-Content-Type-Options"] = "nosniff"
    _requests(service, rule.rule if rule else "none", str(response.status_code)).inc()
    _seconds(service).observe(time.perf_counter() - environ["headwater.start_s"])
    return response


def _drain(environ: WSGIEnvironment) -> None:
    """Read what a refused request left unread.

    gunicorn would close the connection over it, the kernel reset it, and a request of somebody else that the gateway
    has just put on the same connection would be lost with it.
    """
    if not environ.get("CONTENT_LENGTH") and not environ.get("HTTP_TRANSFER_ENCODING"):
        return
    drained = 0
    while drained < DRAINED_BYTES:
        try:
            read = len(environ["wsgi.input"].read(DRAIN_CHUNK_BYTES))
        except Exception:  # a body that breaks off or is no body: gunicorn ends the connection itself
            return
        if not read:
            return
        drained += read


def _add_probes(app: Flask, edge: Edge) -> None:
    def readyz() -> Response:
        checks = edge.ready()
        workers = app.extensions.get("headwater.workers")
        if workers is not None and not workers.are_alive():
            checks |= {"threads": "a background thread has ended"}
        status = 200 if all(state == "ok" for state in checks.values()) else 503
        shown = {"ready": status == 200} | ({"checks": checks} if "verbose" in request.args else {})  # noqa: PLR2004 - OK
        return answer({"service": edge.service} | shown, status)

    app.add_url_rule("/livez", "livez", lambda: answer({"service": edge.service, "live": True}))
    app.add_url_rule("/readyz", "readyz", readyz)
    app.add_url_rule("/healthz", "healthz", readyz)
    app.add_url_rule("/metrics", "metrics", lambda: Response(metrics.exposition(), content_type=metrics.CONTENT_TYPE))
