"""The writer as a process, with the embedded store: probes, standby, feed, signals, kills."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import series
from compose import ports
from ingest.readings import Reading
from ingest.spool import frames, segments
from ingest.writer.state import read_counters
from series.port import RangeQuery
from tests.ingest.bridge.support import Broker
from tests.support.waiting import wait_until
from wire import clock
from wire.points import Point

ROOT = Path(__file__).parents[2]
BORN_NS = 1_700_000_000_000_000_000


@contextmanager
def writer(data: Path, broker: str = "", **settings: str):
    port = ports.pick()
    environ = {name: value for name, value in os.environ.items() if not name.startswith("HEADWATER_")} | {
        "HEADWATER_DATA": str(data), "HEADWATER_PORT": str(port), "HEADWATER_BROKER": broker, "HEADWATER_LOG_STYLE": "json",
    } | settings  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "ingest.writer.process"], env=environ, cwd=ROOT, stderr=subprocess.PIPE
    )
    try:
        yield process, f"http://127.0.0.1:{port}"
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def ask(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""


def stored(data: Path) -> list[Point]:
    reader = series.open_reader("embedded:", data)
    try:
        return list(reader.export(RangeQuery(0, clock.now_ns() * 2)))
    finally:
        reader.close()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[segments.Spool]:
    opened = segments.open_spool(tmp_path / "spool" / "json", limit_bytes=1 << 30, floor_bytes=0)
    yield opened
    opened.close()


def append(log: segments.Spool, start: int, count: int) -> None:
    now_ns = clock.now_ns()
    rows = [Reading(f"d{n % 5}", "telemetry", now_ns + n, now_ns, {"n": n}) for n in range(start, start + count)]
    log.commit(list(frames.encode(rows)))


def test_process_drains_answers_probes_and_ends_in_time(tmp_path: Path, log: segments.Spool) -> None:
    append(log, 0, 1_000)
    with writer(tmp_path) as (process, url):
        wait_until(lambda: read_counters(tmp_path)["stored"] == 1_000, what="all stored")
        wait_until(lambda: ask(f"{url}/readyz")[0] == 200, what="ready")
        metrics = ask(f"{url}/metrics")[1]
        process.send_signal(signal.SIGTERM)

        assert process.wait(5) == 0

    assert "headwater_writer_stored_total 1000.0" in metrics
    assert "headwater_writer_lag_seconds 0.0" in metrics
    assert sorted(point.fields["n"] for point in stored(tmp_path)) == list(range(1_000))


def test_second_writer_waits_for_the_first(tmp_path: Path, log: segments.Spool) -> None:
    with writer(tmp_path) as (first, url):
        wait_until(lambda: ask(f"{url}/readyz")[0] == 200, what="the first is ready")
        with writer(tmp_path) as (second, standby_url):
            status, checks = wait_for_standby(standby_url)
            first.kill()
            wait_until(lambda: ask(f"{standby_url}/readyz")[0] == 200, what="the second took over")
            append(log, 0, 10)
            wait_until(lambda: read_counters(tmp_path)["stored"] == 10, what="it drains")

            assert second.poll() is None

    assert (status, "standby" in checks) == (503, True)


def wait_for_standby(url: str) -> tuple[int, str]:
    wait_until(lambda: "standby" in ask(f"{url}/readyz")[1], what="standby")
    return ask(f"{url}/readyz")


def test_standby_ends_at_once_when_asked(tmp_path: Path) -> None:
    with writer(tmp_path) as (_, url):
        wait_until(lambda: ask(f"{url}/readyz")[0] == 200, what="the first is ready")
        with writer(tmp_path) as (second, standby_url):
            wait_for_standby(standby_url)
            second.send_signal(signal.SIGTERM)

            assert second.wait(2) == 0


def test_unknown_store_is_one_line_and_no_start(tmp_path: Path) -> None:
    with writer(tmp_path, HEADWATER_STORE="nosuch:") as (process, _):
        assert process.wait(15) == 2
        assert process.stderr is not None
        lines = process.stderr.read().decode().splitlines()

    assert lines[-1].startswith("headwater writer: store 'nosuch:'")


def test_stored_points_are_published(tmp_path: Path, log: segments.Spool, mosquitto: Broker) -> None:
    command = ["mosquitto_sub", "-p", str(mosquitto.port), "-t", "headwater/feed", "-C", "1", "-W", "15"]
    with writer(tmp_path, mosquitto.address) as (_, url):
        wait_until(lambda: ask(f"{url}/readyz")[0] == 200, what="ready")
        listener = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert listener.stdout is not None
        wait_until(lambda: (append(log, 0, 1), listener.poll() is not None)[1], what="a feed message")
        message = json.loads(listener.stdout.read())
        listener.stdout.close()

    assert message["points"][0]["fields"] == {"n": 0}


@pytest.mark.faults
def test_killed_writer_loses_and_repeats_nothing(tmp_path: Path, log: segments.Spool) -> None:
    chance, stopping = random.Random(5), threading.Event()
    sent = 0

    def feed() -> None:
        nonlocal sent
        while not stopping.wait(0.002):
            append(log, sent, 50)
            sent += 50

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        for _ in range(5):
            with writer(tmp_path) as (process, _):
                before = read_counters(tmp_path)["stored"]
                wait_until(lambda before=before: read_counters(tmp_path)["stored"] > before, what="progress")
                threading.Event().wait(chance.uniform(0, 0.2))  # the moment of the kill is the test
                process.kill()
    finally:
        stopping.set()
        thread.join()
    with writer(tmp_path):
        wait_until(lambda: read_counters(tmp_path)["pending"] == 0, what="drained")

    assert sorted(point.fields["n"] for point in stored(tmp_path)) == list(range(sent))
    assert read_counters(tmp_path)["stored"] == sent


class Registry(BaseHTTPRequestHandler):
    """Knows one device, which got its id anew at BORN_NS."""

    def do_GET(self) -> None:
        self._answer({"revision": 1, "devices": ["d1"]} if "changes" in self.path else {})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer({"devices": [{"id": "d1", "created_ns": BORN_NS}], "types": {}, "revision": 1})

    def _answer(self, content: dict[str, object]) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_number_of_a_device_that_is_no_more_makes_no_copy(tmp_path: Path, log: segments.Spool) -> None:
    """Both were let in under the birth of the first: the gate had not heard of the second."""
    both = [
        Reading("d1", "telemetry", received_ns, received_ns, {"t": 1.5}, boot_id="b", seq=1, born_ns=1)
        for received_ns in (BORN_NS - 10, BORN_NS + 10)
    ]
    log.commit(list(frames.encode(both)))

    with ThreadingHTTPServer(("127.0.0.1", 0), Registry) as registry:
        threading.Thread(target=registry.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{registry.server_port}"
        with writer(tmp_path, HEADWATER_DEVICES_URL=url, HEADWATER_SERVICE_TOKEN="s" * 43):
            wait_until(lambda: sum(read_counters(tmp_path).get(end, 0) for end in ("stored", "duplicates")) == 2, 20)
        registry.shutdown()

    assert len(stored(tmp_path)) == 2
