"""GET /v1/feed: the websocket of the live feed. Who asks is settled before the connection is accepted.

A viewer has two greenlets beside the library's reader: this handler, which hears new subscriptions and checks that
the token still holds, and a sender, which may block on a slow reader without stopping anybody.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol

import orjson
from flask import Blueprint, Flask, request
from flask_sock import Sock
from pydantic import ValidationError
from simple_websocket import ConnectionClosed

from chassis import web
from chassis.guessing import TokenGuesses
from chassis.tokens import TokenChecker
from dashboard_api.hub import Hub, Viewer
from dashboard_api.service import Directory
from wire import clock
from wire.devices import Principal, allows
from wire.errors import BadRequest, Forbidden, HeadwaterError, PeerUnavailable, TooManyRequests, Unauthorized, in_words
from wire.feed import CLOSE_SLOW, SubscribeFrame

PATH = "/v1/feed"
MAX_VIEWERS = 500  # gunicorn's gevent worker takes 1,000 connections in all; pages and queries need the rest
MAX_SUBSCRIBE_BYTES = 1_000_000  # 10,000 device ids of 64 characters fit
HEARD_AT_ONCE_BYTES = 2 * MAX_SUBSCRIBE_BYTES  # and, over time, so much a second: the library keeps without bound what
HEARD_BYTES_S = 64 * 1024  # it has read and nobody took
SUBSCRIBE_WITHIN_S = 10.0
PING_INTERVAL_S = 25  # below the 60 s after which proxies drop a silent connection
RECHECK_S = 1.0  # how soon a revoked token ends its feed
FRAME_GAP_S = 0.05  # pause between frames: batches what comes meanwhile, at the price of as much delay
SEND_TIMEOUT_S = 60.0  # a frame that does not go out at all: the connection is dropped
LINGER_S = 0.5  # how long what a reader still sends is read after the end
LINGER_BYTES = 64 * 1024
WEBSOCKET_VERSION = "13"
_PRINCIPAL = "headwater.principal"
CLOSE_POLICY = 1008
CLOSE_GOING_AWAY = 1001


class WebSocket(Protocol):
    """The part of a websocket that is used here."""

    thread: threading.Thread  # reads the socket, and closes it

    def send(self, data: str) -> None: ...
    def receive(self, timeout: float | None = None) -> str | bytes | None: ...
    def close(self, reason: int | None = None, message: str | None = None) -> None: ...


class WholeSocket:
    """A socket whose `send` sends all of it, one caller at a time, within a limit, and whose `recv` takes no flood.

    simple-websocket calls `send` and ignores how much went out, which under load cuts frames in two.
    """

    def __init__(self, raw: Any, timeout_s: float = SEND_TIMEOUT_S) -> None:
        self._raw = raw
        self._heard_bytes, self._since_s = 0, time.monotonic()
        self._lock = threading.Lock()  # pings, answers to pings and frames come from different threads
        raw.settimeout(timeout_s)

    def send(self, data: bytes) -> int:
        """Send all of it or raise OSError; half a frame makes the connection worthless, so it is shut down then."""
        with self._lock:
            try:
                self._raw.sendall(data)
            except OSError:
                with contextlib.suppress(OSError):
                    self._raw.shutdown(socket.SHUT_RDWR)
                raise
        return len(data)

    def recv(self, size: int) -> bytes:
        """Receive; raises OSError, which ends the connection, when a viewer says more than any needs to."""
        received: bytes = self._raw.recv(size)
        self._heard_bytes += len(received)
        if self._heard_bytes > HEARD_AT_ONCE_BYTES + HEARD_BYTES_S * (time.monotonic() - self._since_s):
            raise ConnectionAbortedError("the viewer sends more than subscriptions")
        return received

    def close(self) -> None:
        """Read on for a moment, then close: unread bytes would reset the connection, and lose the close frame."""
        over_s = time.monotonic() + LINGER_S
        with contextlib.suppress(OSError):
            self._raw.settimeout(LINGER_S)
            while time.monotonic() < over_s and self._raw.recv(LINGER_BYTES):
                pass
        self._raw.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)


class Feed:
    """Accepts viewers and serves them until they leave, fall too far behind, lose their token, or the service stops."""

    def __init__(
        self,
        hub: Hub,
        tokens: TokenChecker,
        directory: Directory,
        stopping: threading.Event,
        guesses: TokenGuesses | None = None,
    ) -> None:
        self._hub = hub
        self._directory = directory
        self._tokens = tokens
        self._stopping = stopping
        self._guesses = guesses or TokenGuesses()
        self._open = Counter[str]()  # connections by tenant, also those that have not subscribed yet
        self._most: dict[str, int] = {}  # the most of them since it was told
        self._lock = threading.Lock()  # guards the two above

    def install(self, app: Flask) -> None:
        """Put the route into the app."""
        app.config["SOCK_SERVER_OPTIONS"] = {
            "ping_interval": PING_INTERVAL_S,
            "max_message_size": MAX_SUBSCRIBE_BYTES,
        }
        blueprint = Blueprint("feed", __name__)
        blueprint.before_request(self._admit)
        blueprint.teardown_request(self._release)
        Sock(app).route(PATH, bp=blueprint)(self._serve)
        app.register_blueprint(blueprint)

    def _admit(self) -> None:
        """Refuse, as plain HTTP, whoever may not read; and prepare the connection of those who may.

        Raises:
            Forbidden: a foreign page opened it with the session of an operator.
            Unauthorized: no valid token.
            TooManyRequests: enough viewers, in all or of this tenant; or too many wrong tokens.
            BadRequest: a handshake that the library would answer with a fault.
        """
        token, by_cookie = web.presented_token()
        principal = web.demand_known(token, self._tokens, self._guesses)
        if not _may_read(principal):
            raise Unauthorized("a token that may read is needed")
        web.demand_scope(principal, "feed:read")
        if (by_cookie or "Origin" in request.headers) and not web.is_same_site():
            raise Forbidden("the feed is for pages of this site", code="foreign_origin")
        _check_handshake()
        self._enter(principal)
        request.environ[_PRINCIPAL] = principal
        # Compression would hold about 300 KB a viewer; of subprotocols there are none.
        for key in ("HTTP_SEC_WEBSOCKET_EXTENSIONS", "HTTP_SEC_WEBSOCKET_PROTOCOL"):
            request.environ.pop(key, None)
        for key in ("gunicorn.socket", "werkzeug.socket"):
            if key in request.environ:
                request.environ[key] = WholeSocket(request.environ[key])

    def _reader(self, token: str) -> Principal | None:
        """Give who presents a token; None: nobody who may read."""
        principal = self._tokens.check(token) if token else None
        return principal if principal is not None and _may_read(principal) else None

    def _enter(self, principal: Principal) -> None:
        """Count a connection before it is accepted, so that many that come at once stay within the limits."""
        most = principal.feed_readers
        with self._lock:
            total, mine = self._open.total(), self._open[principal.tenant]
            if total >= MAX_VIEWERS:
                raise TooManyRequests(f"{MAX_VIEWERS} viewers are open, the limit", retry_after_s=30)
            if most is not None and mine >= most:
                detail = f"{mine} viewers of this tenant are open, limit {most}"
                raise TooManyRequests(detail, retry_after_s=30, code="feed_quota")
            self._open[principal.tenant] += 1
            self._most[principal.tenant] = max(self._most.get(principal.tenant, 0), mine + 1)

    def take_most(self) -> dict[str, int]:
        """Give the most readers that each tenant had open at one time since this was asked the last time."""
        with self._lock:
            most, self._most = self._most, {tenant: count for tenant, count in self._open.items() if count}
        return most

    def _release(self, _error: BaseException | None) -> None:
        """Forget a connection, however it ended."""
        principal = request.environ.pop(_PRINCIPAL, None)
        if principal is not None:
            with self._lock:
                self._open[principal.tenant] -= 1

    def _serve(self, browser: WebSocket) -> None:
        token, principal = web.presented_token()[0], request.environ[_PRINCIPAL]
        try:
            subscription = _subscription(browser.receive(timeout=SUBSCRIBE_WITHIN_S))
            while subscription is not None:
                viewer = Viewer(subscription.subscribe, principal.tenant, principal.devices)
                subscription = self._serve_viewer(browser, viewer, token)
        except HeadwaterError as error:
            browser.send(orjson.dumps({"problem": error.to_problem()}).decode())
            browser.close(CLOSE_POLICY, error.code)
        finally:
            browser.thread.join(2 * LINGER_S)  # it reads what the reader still sends
            request.environ["headwater.start_s"] = time.perf_counter()  # hours of viewing are no slow request

    def _serve_viewer(self, browser: WebSocket, viewer: Viewer, token: str) -> SubscribeFrame | None:
        """Serve one subscription; give the next one, or None when the connection is to end."""
        found = self._chosen(viewer) if viewer.is_following else viewer.devices
        is_over = threading.Event()
        self._hub.join(viewer)
        self._hub.narrow(viewer, found)
        sender = threading.Thread(target=_send, args=(browser, viewer, is_over), name="feed-sender", daemon=True)
        sender.start()
        try:
            return self._listen(browser, viewer, token)
        finally:
            self._hub.leave(viewer)
            is_over.set()
            viewer.waiting.set()
            sender.join()

    def _listen(self, browser: WebSocket, viewer: Viewer, token: str) -> SubscribeFrame | None:
        while not self._stopping.is_set():
            frame = browser.receive(timeout=RECHECK_S)
            if viewer.is_given_up:
                return None  # the sender says so to the reader, once its last frame is out
            if not self._is_valid(token):  # also when frames keep coming: who sends many may not stay for it
                browser.close(CLOSE_POLICY, "the token is no longer valid")
                return None
            if frame is not None:
                return _subscription(frame)
            self._follow(viewer)
        browser.close(CLOSE_GOING_AWAY, "the service stops")
        return None

    def _follow(self, viewer: Viewer) -> None:
        """Let the viewer's devices be those that its query finds now."""
        if not viewer.is_following:
            return
        with contextlib.suppress(PeerUnavailable):  # while the registry is away, those of before
            self._hub.narrow(viewer, self._chosen(viewer))

    def _chosen(self, viewer: Viewer) -> Sequence[str]:
        return self._directory.chosen(viewer.tenant, viewer.query, viewer.scope)

    def _is_valid(self, token: str) -> bool:
        try:
            return self._reader(token) is not None
        except PeerUnavailable:
            return True  # an open feed outlives the registry's absence


def _may_read(principal: Principal) -> bool:
    return not principal.must_change and allows(principal.role, "viewer")


def _check_handshake() -> None:
    version, key = (request.headers.get(f"Sec-WebSocket-{name}", "") for name in ("Version", "Key"))
    if version != WEBSOCKET_VERSION or not key or not f"{key}{request.host}".isascii():
        raise BadRequest(f"a websocket of version {WEBSOCKET_VERSION} opens with a Sec-WebSocket-Key")


def _send(browser: WebSocket, viewer: Viewer, is_over: threading.Event) -> None:
    try:
        while not is_over.is_set():
            viewer.waiting.wait()
            frame = viewer.take_frame(time.monotonic())
            if frame is not None:
                browser.send(frame.decode())
                viewer.note_sent(clock.now_ns())
            elif viewer.is_given_up:
                browser.close(CLOSE_SLOW, "the reader is too slow")
                return
            is_over.wait(FRAME_GAP_S)
    except (ConnectionClosed, OSError):
        return  # the reader is gone; the listener hears of it too


def _subscription(frame: str | bytes | None) -> SubscribeFrame | None:
    if frame is None:
        raise BadRequest(f'the first frame is {{"subscribe":{{}}}} and comes within {SUBSCRIBE_WITHIN_S:.0f} s')
    try:
        return SubscribeFrame.model_validate_json(frame)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise BadRequest(f"not a subscription: {in_words(found)}", fields=[".".join(map(str, found["loc"]))]) from None
