"""A running registry, a real broker on a free port, and devices that connect to it."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from flask import Flask
from paho.mqtt.enums import CallbackAPIVersion

from devices.app import create_app
from devices.config import DevicesConfig
from devices.credentials import hash_for_broker

ADMIN, SERVICE = "admin-token-of-the-tests", "service-token-of-the-tests"
CONFIG = """\
listener {port} 127.0.0.1
allow_anonymous false
password_file {folder}/passwd
acl_file {folder}/acl
pid_file {folder}/pid
use_username_as_clientid true
log_type error
log_type warning
log_type notice
log_type information
log_dest topic
connection_messages true
persistence true
persistence_location {folder}/
{user}
"""
ACL = """\
user _devices
topic read $SYS/#
topic read devices/+/status

pattern write devices/%u/status
pattern write devices/%u/telemetry
pattern read devices/%u/commands/+
"""


def wait_until(condition: Callable[[], Any], timeout_s: float = 5.0, what: str = "") -> Any:
    deadline_s = time.monotonic() + timeout_s
    while not (result := condition()):
        assert time.monotonic() < deadline_s, f"not within {timeout_s} s: {what or condition}"
        time.sleep(0.02)
    return result


@dataclass
class Caller:
    """Calls routes of an app with one token."""

    app: Flask
    token: str | None

    def __call__(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        if body is not None:
            more["json"] = body
        return self.app.test_client().open(path, method=method, headers=headers | more.pop("headers", {}), **more)


@dataclass
class Service:
    """A running registry; closes what it opened."""

    config: DevicesConfig
    app: Flask = field(init=False)

    def __post_init__(self) -> None:
        self.app = create_app(self.config)
        self.admin = Caller(self.app, ADMIN)
        self.internal = Caller(self.app, SERVICE)
        self.nobody = Caller(self.app, None)

    def register(self, device_id: str, **more: Any) -> str:
        answer = self.admin("POST", "/v1/devices", {"id": device_id} | more)
        assert answer.status_code == 201, answer.json
        return str(answer.json["credential"]["secret"])

    def caller(self, role: str) -> Caller:
        answer = self.admin("POST", "/v1/tokens", {"name": f"{role}-of-tests", "role": role})
        return Caller(self.app, answer.json["token"])

    def is_online(self, device_id: str) -> bool:
        return bool(self.admin("GET", f"/v1/devices/{device_id}").json["online"])

    def stop(self) -> None:
        self.app.extensions["headwater.workers"].stop()
        self.app.extensions["headwater.database"].close()


@dataclass
class Broker:
    """Debian's mosquitto with a folder of its own."""

    folder: Path
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> Broker:
        with socket.create_server(("127.0.0.1", self.port)) as free:
            self.port = free.getsockname()[1]
        user = "user root" if os.geteuid() == 0 else ""
        (self.folder / "conf").write_text(CONFIG.format(port=self.port, folder=self.folder, user=user))
        (self.folder / "acl").write_text(ACL)
        services = f"_devices:{hash_for_broker('devices-secret')}\n"
        (self.folder / "services").write_text(services)
        if not (self.folder / "passwd").exists():
            (self.folder / "passwd").write_text(services)
        command = ["/usr/sbin/mosquitto", "-c", str(self.folder / "conf")]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        wait_until(self.is_up, what="the broker listens")
        return self

    def is_up(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def stop(self, signal_number: int = 15) -> None:
        if self.process is not None:
            self.process.send_signal(signal_number)
            self.process.wait(10)

    def settings(self) -> dict[str, Any]:
        return {
            "broker": f"127.0.0.1:{self.port}",
            "broker_password": "devices-secret",
            "broker_passwd_file": str(self.folder / "passwd"),
            "broker_services_file": str(self.folder / "services"),
            "broker_pid_file": str(self.folder / "pid"),
        }


class MqttDevice:
    """A device's connection in paho's own thread; tries again each second until closed."""

    def __init__(self, broker: Broker, device_id: str, secret: str) -> None:
        self.codes: list[str] = []
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=device_id)
        self.client.username_pw_set(device_id, secret)
        self.client.will_set(f"devices/{device_id}/status", "offline", qos=1, retain=True)
        self.client.reconnect_delay_set(1, 1)
        self.client.on_connect = lambda *given: self.codes.append(str(given[3]))
        self.client.connect_async("127.0.0.1", broker.port, keepalive=30)
        self.client.loop_start()

    def is_connected(self) -> bool:
        return self.client.is_connected()

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def crash(self) -> None:
        """Go without a word, as after a power cut that the network noticed."""
        sock = self.client.socket()
        assert sock is not None
        self.client.reconnect_delay_set(60, 60)
        sock.shutdown(socket.SHUT_RDWR)
