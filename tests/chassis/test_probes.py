from __future__ import annotations

import http.client
import socket
import struct
import threading

import pytest

from chassis import probes


def ask(port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("GET", path)
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


def test_liveness_asks_no_check_and_readiness_all() -> None:
    server = probes.serve("127.0.0.1", 0, lambda: {"store": "away"})
    port = server.server_address[1]

    assert ask(port, "/livez")[0] == 200
    assert ask(port, "/readyz") == (503, b'{"ready":false,"checks":{"store":"away"}}')
    server.shutdown()
    server.server_close()


def test_prober_that_left_is_no_fault(capfd: pytest.CaptureFixture[str]) -> None:
    asked, may_answer = threading.Event(), threading.Event()
    server = probes.serve("127.0.0.1", 0, lambda: asked.set() or (may_answer.wait(10) and {}) or {})
    with socket.create_connection(server.server_address[:2]) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
        assert asked.wait(10)
    may_answer.set()
    assert ask(server.server_address[1], "/livez")[0] == 200  # the first one has been answered by then, or soon
    server.shutdown()
    server.block_on_close = True
    server.server_close()

    assert capfd.readouterr().err == ""
