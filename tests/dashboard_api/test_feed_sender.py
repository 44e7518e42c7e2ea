"""The sender and the listener of one viewer, on a websocket that the test plays."""

from __future__ import annotations

import json
import queue
import threading

import pytest
from flask import Flask
from simple_websocket import ConnectionClosed

from dashboard_api.feed import CLOSE_GOING_AWAY, CLOSE_POLICY, HEARD_AT_ONCE_BYTES, Feed, WholeSocket, _send
from dashboard_api.hub import MAX_STALL_S, Hub, Item, Viewer
from wire.devices import Principal
from wire.feed import CLOSE_SLOW, Subscription

POINT = {
    "device": "d1",
    "measurement": "telemetry",
    "time": "2026-01-01T00:00:00.000000000Z",
    "tags": {},
    "fields": {"t": 1},
}


class PlayedSocket:
    def __init__(self) -> None:
        self.incoming: queue.Queue[str] = queue.Queue()
        self.sent: list[str] = []
        self.closed: int | None = None
        self.thread = threading.Thread()  # what reads a real one
        self.thread.start()

    def send(self, data: str) -> None:
        if self.closed is not None:
            raise ConnectionClosed(self.closed)
        self.sent.append(data)

    def receive(self, timeout: float | None = None) -> str | None:
        try:
            return self.incoming.get(timeout=0.01)
        except queue.Empty:
            return None

    def close(self, reason: int | None = None, message: str | None = None) -> None:
        self.closed = reason


class Tokens:
    def __init__(self, answer: Principal | None) -> None:
        self.answer = answer

    def check(self, token: str) -> Principal | None:
        return self.answer


VIEWER = Principal(id="1", name="v", role="viewer")


class Listing:
    """A directory whose query finds one device more each time it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def entries(self, tenant):
        return {}

    def chosen(self, tenant, query, scope=""):
        self.asked += 1
        return ("d1", "d2")[: self.asked]


def serve(feed: Feed, browser: PlayedSocket) -> None:
    with Flask("test").test_request_context(headers={"Authorization": "Bearer t"}) as context:
        context.request.environ["headwater.principal"] = Principal(id="token:t", name="t", role="viewer")
        feed._serve(browser)


def test_viewer_that_was_given_up_is_closed_with_1013():
    viewer, browser = Viewer(Subscription()), PlayedSocket()
    viewer.offer([Item(POINT, {})], 0.0)
    viewer.take_frame(0.0)
    viewer.offer([Item(POINT, {})], MAX_STALL_S + 1)

    _send(browser, viewer, threading.Event())

    assert browser.closed == CLOSE_SLOW
    assert browser.sent == []


def test_silent_opener_is_closed():
    browser = PlayedSocket()

    serve(Feed(Hub(), Tokens(VIEWER), Listing(), threading.Event()), browser)

    assert json.loads(browser.sent[0])["problem"]["code"] == "bad_request"
    assert browser.closed == CLOSE_POLICY


def test_service_that_stops_says_so():
    browser, stopping, hub = PlayedSocket(), threading.Event(), Hub()
    browser.incoming.put('{"subscribe":{}}')
    stopping.set()

    serve(Feed(hub, Tokens(VIEWER), Listing(), stopping), browser)

    assert browser.closed == CLOSE_GOING_AWAY
    assert hub.viewers() == 0


def test_token_that_was_revoked_closes():
    browser = PlayedSocket()
    browser.incoming.put('{"subscribe":{}}')

    serve(Feed(Hub(), Tokens(None), Listing(), threading.Event()), browser)

    assert browser.closed == CLOSE_POLICY


def test_socket_that_fails_half_way_is_shut_down():
    class Raw:
        is_shut = False

        def settimeout(self, timeout_s: float) -> None:
            """Takes any."""

        def sendall(self, data: bytes) -> None:
            raise TimeoutError

        def shutdown(self, how: int) -> None:
            self.is_shut = True

    raw = Raw()

    with pytest.raises(TimeoutError):
        WholeSocket(raw).send(b"x")

    assert raw.is_shut


def test_viewer_that_floods_is_cut_off():
    class Raw:
        def settimeout(self, timeout_s: float) -> None:
            """Takes any."""

        def recv(self, size: int) -> bytes:
            return bytes(size)

    whole = WholeSocket(Raw())
    for _ in range(HEARD_AT_ONCE_BYTES // 4096):
        whole.recv(4096)

    with pytest.raises(ConnectionAbortedError):
        [whole.recv(4096) for _ in range(10_000)]


def test_viewer_follows_what_its_query_finds():
    hub, listing = Hub(), Listing()
    feed = Feed(hub, Tokens(VIEWER), listing, threading.Event())
    viewer = Viewer(Subscription(query="type=pump"))
    hub.join(viewer)

    for _ in range(2):
        feed._follow(viewer)
        hub.publish(json.dumps({"points": [POINT | {"device": "d1"}, POINT | {"device": "d2"}]}).encode())

    got = []
    while (frame := viewer.take_frame(0.0)) is not None:
        got += [point["device"] for point in json.loads(frame)["points"]]
    assert got == ["d1", "d1", "d2"]


@pytest.mark.parametrize("wanted", [{}, {"devices": ["d1", "d2"]}, {"query": "type=pump"}])
def test_viewer_with_a_token_for_some_devices_gets_these_only(wanted):
    hub, asked = Hub(), []

    class Scoped(Listing):
        def chosen(self, tenant, query, scope=""):
            asked.append((query, scope))
            return ("d1",)

    feed = Feed(hub, Tokens(VIEWER), Scoped(), threading.Event())
    viewer = Viewer(Subscription(**wanted), scope="tag.site=a")
    hub.join(viewer)
    points = json.dumps({"points": [POINT | {"device": "d1"}, POINT | {"device": "d2"}]}).encode()
    hub.publish(points)  # before anybody knows which they are

    feed._follow(viewer)
    hub.publish(points)

    frame = viewer.take_frame(0.0)
    assert [point["device"] for point in json.loads(frame)["points"]] == ["d1"]
    assert asked == [(wanted.get("query", ""), "tag.site=a")]
    hub.leave(viewer)
    assert hub.viewers() == 0
