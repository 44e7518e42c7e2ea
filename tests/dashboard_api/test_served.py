"""The service as it runs: gunicorn's gevent worker, real store, real broker."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
import urllib3
import websocket

from tests.dashboard_api.conftest import (
    AS_CLIENT_ID,
    Dashboard,
    connect_publisher,
    start_dashboard,
    stop,
    wait_until_ready,
)
from tests.dashboard_api.fakes import demo, point_of, serve
from tests.support.mosquitto import Mosquitto
from tests.support.waiting import wait_until
from wire import topics
from wire.clock import now_ns
from wire.points import point_to_json

VIEWER = {"Authorization": "Bearer viewer-token"}


@dataclass
class Alone:
    """What a test needs of its own dashboard."""

    process: subprocess.Popen[bytes]
    viewer: websocket.WebSocket
    broker: Mosquitto


@pytest.fixture
def http():
    with urllib3.PoolManager(maxsize=40, retries=False, timeout=20) as pool:
        yield pool


def test_queries_read_the_real_store(dashboard, http):
    answer = http.request(
        "GET", f"{dashboard.url}/v1/query/latest?device=greenhouse-02&field=temperature", headers=VIEWER
    )

    assert answer.status == 200
    assert [point["device"] for point in answer.json()["points"]] == ["greenhouse-02"]


def test_forty_readers_at_once_while_the_writer_writes(dashboard: Dashboard, http):
    paths = ("latest", "range?limit=500", "aggregate?field=temperature&fn=mean&every=5m&group_by=tag:site")
    is_over = threading.Event()

    def write():
        while not is_over.is_set():
            dashboard.writer.write([point_of("pump-16", "pump", now_ns()) for _ in range(50)])

    def ask(at: int) -> int:
        return http.request("GET", f"{dashboard.url}/v1/query/{paths[at % 3]}", headers=VIEWER).status

    writing = threading.Thread(target=write)
    writing.start()
    try:
        with ThreadPoolExecutor(40) as pool:
            statuses = list(pool.map(ask, range(400)))
    finally:
        is_over.set()
        writing.join()

    assert set(statuses) == {200}


def test_slow_senders_keep_nobody_waiting(dashboard: Dashboard, http):
    begun = (b"GET /v1/query/latest HTTP/1.1\r\nX-", b"POST /login HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\na")
    with ExitStack() as closing:
        for number in range(200):
            slow = closing.enter_context(socket.create_connection(("127.0.0.1", dashboard.port), timeout=10))
            slow.sendall(begun[number % 2])

        answer = http.request("GET", f"{dashboard.url}/v1/query/latest?limit=1", headers=VIEWER)

    assert answer.status == 200


@pytest.mark.parametrize("path", ["query/range?limit=5", "export?start=0"])
def test_long_query_does_not_stop_the_loop(dashboard, http, path: str):
    gate = dashboard.data / "gate"
    os.mkfifo(gate)
    with ThreadPoolExecutor(1) as pool:
        query = pool.submit(http.request, "GET", f"{dashboard.url}/v1/{path}", headers=VIEWER)
        hold = wait_until(lambda: open_gate(gate), what="the query is in the store")
        try:
            statuses = [http.request("GET", f"{dashboard.url}/livez").status for _ in range(5)]
            was_done = query.done()
        finally:
            gate.unlink()
            os.close(hold)

    assert (statuses, was_done) == ([200] * 5, False)
    assert query.result().status == 200


def open_gate(gate: Path) -> int | None:
    try:
        return os.open(gate, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:  # nobody waits there yet
        return None


def test_export_is_streamed_not_gathered(dashboard, http):
    answer = http.request("GET", f"{dashboard.url}/v1/export?start=0", headers=VIEWER, preload_content=False)
    try:
        first = next(answer.stream(1024))
    finally:
        answer.close()

    assert answer.headers["Transfer-Encoding"] == "chunked"
    assert first.startswith(b'{"device":')


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Alone]:
    """A dashboard of this test only, at first without a broker."""
    server = serve(demo()[0])
    broker = Mosquitto(tmp_path / "broker", *AS_CLIENT_ID)
    port, process = start_dashboard(server.server_address[1], broker.port, tmp_path)
    viewer = websocket.WebSocket()
    wait_until_ready(port)
    viewer.connect(
        f"ws://127.0.0.1:{port}/v1/feed", header=["Authorization: Bearer viewer-token"], suppress_origin=True
    )
    viewer.settimeout(10)
    viewer.send('{"subscribe":{}}')
    yield Alone(process, viewer, broker)
    viewer.shutdown()
    stop(process)
    server.shutdown()
    server.server_close()


def test_stop_tells_viewers_and_takes_little_time(alone: Alone):
    start_s = time.monotonic()

    alone.process.send_signal(signal.SIGTERM)
    opcode, closing = alone.viewer.recv_data()
    alone.process.wait(10)

    assert (opcode, int.from_bytes(closing[:2])) == (websocket.ABNF.OPCODE_CLOSE, 1001)
    assert time.monotonic() - start_s < 5


def test_feed_returns_each_time_the_broker_does(alone: Alone):
    alone.viewer.settimeout(0.2)

    for _ in range(2):
        publisher = connect_publisher(alone.broker.start().port)
        try:
            wait_until(lambda publisher=publisher: is_heard(publisher, alone.viewer), 20, "the feed")
        finally:
            publisher.disconnect()
            publisher.loop_stop()
            alone.broker.stop(signal.SIGKILL)


def is_heard(publisher: mqtt.Client, viewer: websocket.WebSocket) -> bool:
    publisher.publish(topics.FEED, json.dumps({"points": [point_to_json(point_of("pump-16", "pump", now_ns()))]}))
    try:
        return bool(json.loads(viewer.recv())["points"])
    except websocket.WebSocketTimeoutException:
        return False
