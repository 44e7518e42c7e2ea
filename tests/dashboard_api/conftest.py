"""Fixtures of the dashboard's tests: the app on fakes, and the real thing under gunicorn's gevent worker."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
import urllib3
from flask import Flask
from flask.testing import FlaskClient
from paho.mqtt.enums import CallbackAPIVersion

import series
from compose.ports import pick
from compose.serve import GUNICORN_CONF
from dashboard_api.app import Ports, assemble
from dashboard_api.config import DashboardConfig
from series.port import SeriesWriter
from tests.dashboard_api.fakes import SERVICE_TOKEN, FakePeer, MemoryReader, Platform, demo, serve
from tests.support.mosquitto import Mosquitto
from tests.support.waiting import wait_until
from wire import topics

ROOT = Path(__file__).parents[2]
AS_CLIENT_ID = ("allow_anonymous true", "use_username_as_clientid true")


@pytest.fixture
def platform() -> Platform:
    return Platform()


@pytest.fixture
def reader() -> MemoryReader:
    return MemoryReader()


@pytest.fixture
def ports(platform: Platform, reader: MemoryReader) -> Ports:
    return Ports(reader=reader, devices=FakePeer(platform), ingest=FakePeer(platform))


@pytest.fixture
def app(ports: Ports) -> Flask:
    return assemble(DashboardConfig(service_token=SERVICE_TOKEN), ports)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


class Broker(Mosquitto):
    """A mosquitto of this test, and a client that publishes as the writer does."""

    publisher: mqtt.Client

    def publish(self, message: bytes) -> None:
        self.publisher.publish(topics.FEED, message, qos=1).wait_for_publish(5)


def is_open(port: int) -> bool:
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def stop(process: subprocess.Popen[bytes], signal_number: int = signal.SIGTERM) -> None:
    if process.poll() is None:
        process.send_signal(signal_number)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with Broker(tmp_path_factory.mktemp("broker"), *AS_CLIENT_ID) as started:
        started.publisher = connect_publisher(started.port)
        yield started
        started.publisher.disconnect()
        started.publisher.loop_stop()


def connect_publisher(port: int) -> mqtt.Client:
    """Give a connected client that publishes as the writer does."""
    publisher = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="_writer")
    publisher.username_pw_set("_writer", "")
    publisher.connect("127.0.0.1", port)
    publisher.loop_start()
    wait_until(publisher.is_connected, what="the publisher")
    return publisher


@dataclass
class Dashboard:
    """A dashboard under gunicorn with a gevent worker."""

    port: int
    process: subprocess.Popen[bytes]
    platform: Platform
    writer: SeriesWriter
    data: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def worker_pid(self) -> int:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0])


def start_dashboard(platform_port: int, broker_port: int, data: Path) -> tuple[int, subprocess.Popen[bytes]]:
    port = pick()
    environ = os.environ | {
        "TEST_PLATFORM_URL": f"http://127.0.0.1:{platform_port}",
        "TEST_BROKER": f"127.0.0.1:{broker_port}",
        "TEST_DATA": str(data),
        "PYTHONPATH": str(ROOT),
        "HEADWATER_SERVICE": "dashboard",
        "HEADWATER_PORT": str(port),
        "HEADWATER_DATA": str(data),
        "HEADWATER_LOG_LEVEL": "warning",
    }
    argv = [sys.executable, "-m", "gunicorn", "-c", str(GUNICORN_CONF), "tests.dashboard_api.served:create_app()"]
    return port, subprocess.Popen(argv, cwd=ROOT, env=environ)


@pytest.fixture(scope="session")
def dashboard(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    data = tmp_path_factory.mktemp("data")
    platform, reader = demo()
    writer = series.open_writer("embedded:", data)
    assert not writer.write(reader.points).refused
    server = serve(platform)
    port, process = start_dashboard(server.server_address[1], broker.port, data)
    wait_until_ready(port)
    yield Dashboard(port, process, platform, writer, data)
    stop(process)
    server.shutdown()
    server.server_close()
    writer.close()


def wait_until_ready(port: int) -> None:
    with urllib3.PoolManager(retries=False) as http:
        url = f"http://127.0.0.1:{port}/readyz"
        wait_until(lambda: is_open(port) and http.request("GET", url).status == 200, 30, "readiness")
