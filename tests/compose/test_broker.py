"""The generated broker configuration, with Debian's mosquitto."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from compose import broker, credentials, ports
from compose.config import UpConfig
from compose.folder import Folder
from compose.processes import find_program
from devices.broker.access_list import AccessList
from tests.support.waiting import wait_until
from wire.claims import Claim
from wire.media import DEFAULT_MQTT_LIMIT_BYTES

SECRET = "s3cret"


class Broker:
    """A mosquitto with the platform's configuration, and clients that are closed with it."""

    def __init__(self, folder: Folder, port: int) -> None:
        self.folder, self.port = folder, port
        self._clients: list[mqtt.Client] = []
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        configuration = broker.write(self.folder, UpConfig(data=self.folder.root), self.port)
        argv = [find_program("mosquitto"), "-c", str(configuration)]
        with (self.folder.run / "log").open("ab") as log:
            self._process = subprocess.Popen(argv, cwd=self.folder.root, stdout=log, stderr=log)
        wait_until(lambda: not ports.is_free("127.0.0.1", self.port))

    def stop(self, number: int = signal.SIGTERM) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(10)

    def close(self) -> None:
        for client in self._clients:
            client.disconnect()
            client.loop_stop()
        if self._process is not None and self._process.poll() is None:
            self.stop()

    def client(self, user: str, password: str | None = None, **kept: Any) -> Client:
        if password is None:
            file = self.folder.secrets / f"broker{user.replace('_', '-')}.token"
            password = file.read_text().strip() if user.startswith("_") else SECRET
        made = Client(self.port, user, password, **kept)
        self._clients.append(made.paho)
        return made


class Client:
    """paho with its callbacks turned into things to wait for."""

    def __init__(self, port: int, user: str, password: str, *, keeps: bool = False, version: int = 5) -> None:
        self.answers: queue.Queue[ReasonCode] = queue.Queue()
        self.messages: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self.published: queue.Queue[ReasonCode] = queue.Queue()
        self.paho = mqtt.Client(CallbackAPIVersion.VERSION2, user, protocol=version, reconnect_on_failure=False)
        self.paho.username_pw_set(user, password)
        self.paho.on_connect = lambda _c, _u, _f, code, _p: self.answers.put(code)
        self.paho.on_message = lambda _c, _u, message: self.messages.put((message.topic, message.payload))
        self.paho.on_publish = lambda _c, _u, _m, code, _p: self.published.put(code)
        self.subscribed: queue.Queue[Any] = queue.Queue()
        self.paho.on_subscribe = lambda _c, _u, _m, codes, _p: self.subscribed.put(codes)
        properties = None
        if keeps:
            properties = mqtt.Properties(mqtt.PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 3600
        fresh = {"clean_start": not keeps, "properties": properties} if version == mqtt.MQTTv5 else {}
        self.paho.connect("127.0.0.1", port, **fresh)
        self.paho.loop_start()
        self.connected = not self.answers.get(timeout=5).is_failure

    def publish(self, topic: str, payload: bytes = b"1") -> str:
        self.paho.publish(topic, payload, qos=1)
        return str(self.published.get(timeout=5))

    def subscribe(self, topic: str) -> None:
        self.paho.subscribe(topic, qos=1)
        self.subscribed.get(timeout=5)

    def receive(self) -> tuple[str, bytes]:
        return self.messages.get(timeout=5)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Broker]:
    folder = Folder(tmp_path / "data with a space")
    folder.prepare()
    credentials.ensure(folder)
    with (folder.broker / "devices.passwd").open("a") as users:
        for device in ("d1", "d2"):
            users.write(f"{device}:{credentials.hash_for_mosquitto(SECRET)}\n")
    running = Broker(folder, ports.pick())
    running.start()
    yield running
    running.close()


def test_nobody_connects_without_a_credential(served: Broker) -> None:
    for user, password in (("d1", "wrong"), ("", ""), ("nobody", SECRET), ("_bridge", SECRET)):
        assert not served.client(user, password).connected


def test_device_publishes_on_its_own_branch_only(served: Broker) -> None:
    device = served.client("d1")

    own = ["telemetry", "telemetry/json", "media/cam", "status", "twin/reported", "commands/c1/reply",
           "children/c1/telemetry", "children/c1/commands/x/reply", "children/c1/twin/reported"]  # fmt: skip
    others = ["devices/d2/telemetry", "devices/d1/acks", "devices/d1/errors", "devices/d1/twin/desired",
              "devices/d1/commands/c1", "devices/d2/media/cam", "devices/d1/media/cam/x", "headwater/feed", "$CONTROL/x", "spBv1.0/a"]  # fmt: skip

    assert {device.publish(f"devices/d1/{channel}") for channel in own} <= {"Success", "No matching subscribers"}
    assert {device.publish(topic) for topic in others} == {"Not authorized"}


def test_device_receives_nothing_of_others(served: Broker) -> None:
    listener, sender, bridge = served.client("d1"), served.client("d2"), served.client("_bridge")
    listener.subscribe("#")

    sender.publish("devices/d2/telemetry", b"secret")
    bridge.publish("devices/d2/errors", b"not yours")
    bridge.publish("devices/d1/errors", b"yours")

    assert listener.receive() == ("devices/d1/errors", b"yours")


def test_services_have_their_topics(served: Broker) -> None:
    bridge, dashboard = served.client("_bridge"), served.client("_dashboard")
    devices, writer, device = served.client("_devices"), served.client("_writer"), served.client("d1")
    for client, topic in ((bridge, "devices/+/telemetry"), (bridge, "devices/+/telemetry/+"),
                          (devices, "devices/+/status"), (devices, "$SYS/broker/log/#"),
                          (dashboard, "headwater/feed")):  # fmt: skip
        client.subscribe(topic)

    device.publish("devices/d1/telemetry")
    device.publish("devices/d1/telemetry/senml")
    device.publish("devices/d1/status", b"online")
    writer.publish("headwater/feed", b"{}")

    assert [bridge.receive()[0], bridge.receive()[0]] == ["devices/d1/telemetry", "devices/d1/telemetry/senml"]
    assert dashboard.receive() == ("headwater/feed", b"{}")
    assert wait_until(lambda: devices.receive() == ("devices/d1/status", b"online"))
    assert writer.publish("devices/d1/errors") == "Not authorized"


def test_connections_are_told_on_the_log_topic(served: Broker) -> None:
    devices = served.client("_devices")
    devices.subscribe("$SYS/broker/log/#")

    served.client("d2")

    line = wait_until(lambda: b"as d2" in (payload := devices.receive()[1]) and payload.decode())
    assert "New client connected from 127.0.0.1" in line
    assert "u'd2'" in line


def test_thousands_of_messages_wait_for_a_session_and_survive_a_stop(served: Broker) -> None:
    away = served.client("_bridge", keeps=True)
    away.subscribe("devices/+/telemetry")
    away.paho.disconnect()
    away.paho.loop_stop()
    device = served.client("d1")
    for number in range(3000):  # three times mosquitto's own limit, beyond which it acknowledges and drops
        device.publish("devices/d1/telemetry", str(number).encode())
    device.paho.loop_stop()

    served.stop()
    served.start()
    back = served.client("_bridge", keeps=True)

    assert [back.receive()[1] for _ in range(3000)] == [str(number).encode() for number in range(3000)]


def test_killed_broker_loses_at_most_a_hundred_messages(served: Broker) -> None:
    """It acknowledges before it saves; how much that can cost is promised in docs/delivery.md."""
    away = served.client("_bridge", keeps=True)
    away.subscribe("devices/+/telemetry")
    away.paho.disconnect()
    away.paho.loop_stop()
    device = served.client("d1")
    for number in range(1000):
        device.publish("devices/d1/telemetry", str(number).encode())
    device.paho.loop_stop()

    served.stop(signal.SIGKILL)
    served.start()
    back = served.client("_bridge", keeps=True)

    wait_until(lambda: back.messages.qsize() >= 900, 5)
    kept = {int(back.receive()[1]) for _ in range(back.messages.qsize())}
    assert kept == set(range(len(kept)))


def test_message_beyond_the_limit_ends_the_connection(served: Broker) -> None:
    device = served.client("d1", version=mqtt.MQTTv311)  # under MQTT 5 paho keeps the limit by itself
    assert device.publish("devices/d1/telemetry", b"x" * 256 * 1024) == "Success"

    device.paho.publish("devices/d1/telemetry", b"x" * (broker.HEAD_BYTES + DEFAULT_MQTT_LIMIT_BYTES + 1), qos=1)

    wait_until(lambda: not device.paho.is_connected())
    assert device.published.empty()


def test_files_are_private_and_name_the_running_user(served: Broker) -> None:
    configuration = served.folder.broker / "mosquitto.conf"

    assert configuration.stat().st_mode & 0o077 == 0
    assert ("user root" in configuration.read_text()) == (os.geteuid() == 0)


@pytest.mark.parametrize("hostile", ['a"b', "a\nb", "a$b", "a;b", "a{b"])
def test_certificate_path_cannot_break_out(tmp_path: Path, hostile: str) -> None:
    path = tmp_path / hostile
    path.write_text("x")

    with pytest.raises(Exception, match="cannot carry"):
        broker.checked_path(path)


def test_several_bridges_have_the_same_rights_and_users_of_their_own(tmp_path: Path) -> None:
    folder, config = Folder(tmp_path / "data"), UpConfig(data=tmp_path / "data", bridges=2)
    folder.prepare()
    names = broker.bridges(folder, config)
    credentials.ensure(folder, names)

    broker.write(folder, config, 1883)

    assert names == ["bridge", "bridge-2"]
    one, two = (
        (folder.broker / "devices.acl").read_text().split(f"user _{name}\n")[1].split("\n\n")[0] for name in names
    )
    assert one == two
    assert "user _devices\n" in (folder.broker / "devices.acl").read_text()
    assert "_bridge-2:$7$" in (folder.broker / "devices.passwd").read_text()


def test_rights_to_claimed_topics_outlive_a_restart_with_other_bridges(tmp_path: Path) -> None:
    folder, config = Folder(tmp_path / "data"), UpConfig(data=tmp_path / "data")
    folder.prepare()
    broker.write(folder, config, 1883)
    first = (folder.broker / "devices.acl").read_text()
    listed = AccessList(folder.broker / "devices.acl", folder.broker / "services.acl", "_control")
    listed.write([Claim("tele/a b/#", "tasmota", "d1")])

    broker.write(folder, UpConfig(data=tmp_path / "data", bridges=2), 1883)

    text = (folder.broker / "devices.acl").read_text()
    assert first == (folder.broker / "services.acl").read_text().replace(bridge_rights(text, "bridge-2"), "")
    assert text.endswith("user d1\ntopic readwrite tele/a b/#\n")


def bridge_rights(text: str, name: str) -> str:
    rest = text.partition(f"user _{name}\n")[2]
    return f"user _{name}\n{rest.partition(chr(10) * 2)[0]}\n\n"


def test_bridge_of_an_earlier_start_runs_until_its_session_is_empty(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "data")
    folder.prepare()
    (folder.broker / "bridge-3.session").touch()

    assert broker.bridges(folder, UpConfig(data=tmp_path / "data")) == ["bridge", "bridge-2", "bridge-3"]
