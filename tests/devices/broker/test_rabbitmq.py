"""RabbitMQ's MQTT plugin (Debian's package) against the hooks, for real: one start of it costs some seconds."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from werkzeug.serving import WSGIRequestHandler, make_server

from tests.devices.running import MqttDevice, Service
from tests.e2e.platform import free_ports
from tests.support.waiting import wait_until

TOKEN = "hook-token-of-the-tests"
PROGRAM = "/usr/lib/rabbitmq/bin/rabbitmq-server"
HOST_ALONE = "-kernel inet_dist_use_interface {127,0,0,1}"


class _Silent(WSGIRequestHandler):
    def log(self, *_: object) -> None:
        """A line per question would fill the output."""


class Rabbit:
    """A broker in a folder of its own, on free ports; it asks the registry at `hooks`."""

    def __init__(self, hooks: str, management: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="headwater-rabbit-"))
        self.port, amqp, dist, self._epmd_port = free_ports(4)
        self._epmd: subprocess.Popen[bytes] | None = None
        (self.folder / "plugins").write_text("[rabbitmq_mqtt,rabbitmq_auth_backend_http,rabbitmq_management].\n")
        lines = [
            f"listeners.tcp.local = 127.0.0.1:{amqp}", f"mqtt.listeners.tcp.local = 127.0.0.1:{self.port}",
            f"management.tcp.port = {management}", "management.tcp.ip = 127.0.0.1", "mqtt.allow_anonymous = false",
            "auth_backends.1 = internal", "auth_backends.2 = http", "auth_http.http_method = post",
            *(f"auth_http.{name}_path = {hooks}/{name}" for name in ("user", "vhost", "resource", "topic")),
        ]  # fmt: skip
        (self.folder / "rabbit.conf").write_text("".join(f"{line}\n" for line in lines))
        env = os.environ | {
            "HOME": str(self.folder), "RABBITMQ_NODENAME": f"t{os.getpid()}@localhost",
            "RABBITMQ_DIST_PORT": str(dist), "ERL_EPMD_PORT": str(self._epmd_port), "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbit"), "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"), "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": HOST_ALONE, "RABBITMQ_SERVER_ERL_ARGS": "+S 2:2",
        }  # fmt: skip
        self._epmd = subprocess.Popen(["epmd", "-port", str(self._epmd_port), "-address", "127.0.0.1"], env=env)
        with (self.folder / "out").open("wb") as out:
            self._process = subprocess.Popen([PROGRAM], env=env, stdout=out, stderr=out, start_new_session=True)
        try:
            wait_until(self._is_up, 60, what=f"RabbitMQ; see {self.folder}/out")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End it and its port mapper, and remove its folder."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)
        assert self._epmd is not None
        self._epmd.kill()
        self._epmd.wait(10)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _is_up(self) -> bool:
        out = (self.folder / "out").read_text(errors="replace")
        assert self._process.poll() is None, out
        return "completed with" in out


@pytest.fixture
def management() -> int:
    """Port of RabbitMQ's management API."""
    return free_ports(1)[0]


@pytest.fixture
def service(sqlite_config, management) -> Iterator[Service]:
    api = {"broker_management": f"rabbitmq+http://127.0.0.1:{management}", "broker_management_token": "guest:guest"}
    more = {"broker_auth": "http-hooks", "broker_hook_token": TOKEN}
    started = Service(sqlite_config.model_copy(update=more | api))
    yield started
    started.stop()


@pytest.fixture
def rabbit(service: Service, management: int) -> Iterator[Rabbit]:
    def app(environ, start_response):  # as gunicorn, and unlike this small server, end the body where it ends
        environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))
        return service.app(environ, start_response)

    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Silent)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    made = Rabbit(f"http://127.0.0.1:{server.server_port}/internal/broker/{TOKEN}/rabbitmq", management)
    yield made
    made.stop()
    server.shutdown()
    thread.join()
    server.server_close()


def test_device_gets_in_by_its_secret_and_stays_in_its_branch(rabbit, service) -> None:
    secret = service.register("d1")
    device = MqttDevice(rabbit, "d1", secret)
    wait_until(device.is_connected, what="the device gets in")
    heard: list[bytes] = []
    device.client.on_message = lambda _client, _data, message: heard.append(message.payload)
    granted = threading.Event()
    device.client.on_subscribe = lambda *_: granted.set()

    device.client.subscribe("devices/d1/commands/+", 1)
    assert granted.wait(10)
    assert device.client.publish("devices/d1/telemetry", b'{"t": 1}', 1).rc == 0
    stranger = MqttDevice(rabbit, "d1", "wrong")
    wait_until(lambda: stranger.codes, what="the answer to a wrong secret")
    stranger.close()
    assert stranger.codes[0] != "Success"

    device.client.publish("devices/d2/telemetry", b"{}", 1)
    wait_until(lambda: len(device.codes) > 1, what="a foreign topic costs the connection")
    assert heard == []
    device.close()

    standing = MqttDevice(rabbit, "d1", secret)
    wait_until(standing.is_connected, what="it is back")
    service.admin("POST", "/v1/devices/d1:disable")
    wait_until(lambda: not standing.is_connected(), what="the standing connection is cut")
    standing.close()
    late = MqttDevice(rabbit, "d1", secret)
    wait_until(lambda: late.codes, what="the answer to a disabled device")
    late.close()
    assert late.codes[0] != "Success"


def test_connections_are_counted_and_limited(rabbit, service) -> None:
    secrets = {name: service.register(name) for name in ("d1", "d2", "d3")}
    first, second = (MqttDevice(rabbit, name, secrets[name]) for name in ("d1", "d2"))
    wait_until(lambda: service.admin("GET", "/v1/usage").json["connections"] == 2, 20, what="both are counted")
    shown = service.admin("GET", "/v1/devices/d1").json
    used = [each["last_used"] for each in service.admin("GET", "/v1/devices/d1/credentials").json["items"]]

    assert service.admin("PATCH", "/v1/tenants/default", {"limits": {"connections": 2}}).status_code == 200
    third = MqttDevice(rabbit, "d3", secrets["d3"])
    wait_until(lambda: third.codes, what="the answer to one too many")
    assert (third.codes[0] != "Success", first.is_connected(), second.is_connected()) == (True, True, True)

    second.close()
    wait_until(third.is_connected, 20, what="a place is free")
    assert service.admin("PATCH", "/v1/tenants/default", {"limits": {"connections": 1}}).status_code == 200
    wait_until(lambda: not third.is_connected(), 20, what="who came last is cut off")
    assert first.is_connected()
    first.close()
    third.close()
    wait_until(lambda: service.admin("GET", "/v1/usage").json["connections"] == 0, 20, what="nobody is connected")
    assert (shown["presence"], shown["online"], used[0] is not None) == ("online", True, True)
