from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from chassis import probes
from chassis.peers import POOL, HttpPeer
from wire.errors import HeadwaterError, NotFound, PeerUnavailable

ANSWERS = {
    "/missing": (404, "type_not_found"),
    "/refused": (422, "no_values"),
    "/full": (503, "spool_full"),
    "/broken": (500, "internal"),
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if body == b'"hang up"' and not self.server.has_hung_up:
            self.server.has_hung_up = self.close_connection = True
            return
        echoed = {"body": body.decode(), "type": self.headers["Content-Type"], "auth": self.headers["Authorization"]}
        echoed["from"] = self.headers["X-Forwarded-For"]
        status, code = ANSWERS.get(self.path, (200, ""))
        content = json.dumps(echoed if status == 200 else {"code": code, "detail": "why"}).encode()
        self.send_response(status)
        self.send_header("Retry-After", "7")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 128
    has_hung_up = False


@pytest.fixture
def peer() -> Iterator[HttpPeer]:
    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    peer = HttpPeer(f"http://127.0.0.1:{server.server_port}", "secret", timeout_s=2)
    yield peer
    peer.close()
    server.shutdown()
    thread.join()
    server.server_close()


def test_json_and_bytes_are_sent_with_the_token(peer: HttpPeer) -> None:
    echoed = {"body": '{"a":1}', "type": "application/json", "auth": "Bearer secret", "from": None}
    assert peer.call("POST", "/x", {"a": 1}) == echoed
    assert peer.call("POST", "/x", b"raw", token="other")["auth"] == "Bearer other"


def test_address_of_who_is_served_goes_along(peer: HttpPeer) -> None:
    asking = [""]
    told = HttpPeer(peer.base_url, "secret", remote_ip=lambda: asking[0])

    alone = told.call("POST", "/x", {})
    asking[0] = "192.0.2.7"

    assert (alone["from"], told.call("POST", "/x", {})["from"]) == (None, "192.0.2.7")
    assert told.with_timeout(1).call("POST", "/x", {})["from"] == "192.0.2.7"
    told.close()


def test_problems_become_errors_with_their_code(peer: HttpPeer) -> None:
    with pytest.raises(NotFound, match="why") as missing:
        peer.call("POST", "/missing", {})
    with pytest.raises(HeadwaterError) as refused:
        peer.call("POST", "/refused", {})
    with pytest.raises(PeerUnavailable, match="answered 503: why") as full:
        peer.call("POST", "/full", {})

    assert (missing.value.status, missing.value.code) == (404, "type_not_found")
    assert (refused.value.status, refused.value.code) == (422, "no_values")
    assert (full.value.status, full.value.code, full.value.retry_after_s) == (503, "spool_full", 7)


def test_fault_of_a_peer_is_one_that_is_away(peer: HttpPeer) -> None:
    with pytest.raises(PeerUnavailable, match="answered 500") as broken:
        peer.call("POST", "/broken", {})

    assert (broken.value.status, broken.value.code) == (503, "peer_unavailable")


def test_call_that_only_reads_is_repeated_when_the_connection_breaks(peer: HttpPeer) -> None:
    assert peer.call("POST", "/internal/devices:lookup", "hang up")["body"] == '"hang up"'


def test_call_that_may_change_something_is_not_repeated(peer: HttpPeer) -> None:
    with pytest.raises(PeerUnavailable):
        peer.call("POST", "/internal/devices", "hang up")


def test_nobody_there_is_unavailable() -> None:
    peer = HttpPeer("http://127.0.0.1:9", "secret")

    with pytest.raises(PeerUnavailable, match=r"127\.0\.0\.1:9"):
        peer.call("GET", "/x")


def test_probes_tell_ready_and_metrics() -> None:
    server = probes.serve("127.0.0.1", 0, lambda: {"broker": "not connected"})
    peer = HttpPeer(f"http://127.0.0.1:{server.server_port}", "")

    assert peer.call("GET", "/livez") == {"ready": True, "checks": {}}
    assert b"python_info" in peer.call("GET", "/metrics")
    with pytest.raises(PeerUnavailable, match="503"):
        peer.call("GET", "/readyz")
    peer.close()
    server.shutdown()
    server.server_close()


def test_more_calls_than_connections_wait_for_one(peer: HttpPeer, caplog: pytest.LogCaptureFixture) -> None:
    with ThreadPoolExecutor(4 * POOL) as pool:
        answers = list(pool.map(lambda number: peer.call("POST", "/x", {"n": number})["body"], range(8 * POOL)))

    assert answers == [f'{{"n":{number}}}' for number in range(8 * POOL)]
    assert "pool is full" not in caplog.text
