"""A running registry, a real broker on a free port, and devices that connect to it."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from json import dumps, loads
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from flask import Flask
from paho.mqtt.enums import CallbackAPIVersion

import compose.broker
from devices.app import create_app
from devices.config import DevicesConfig
from devices.credentials import hash_for_broker
from tests.support.mosquitto import Mosquitto
from tests.support.waiting import wait_until

ADMIN, SERVICE = "admin-token-of-the-tests", "service-token-of-the-tests"
ACL = (Path(compose.broker.__file__).with_name("broker.acl")).read_text()


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

    def device(self, device_id: str = "d1", **more: Any) -> Any:
        """Register a device; give what calls routes with its credential."""
        secret = self.register(device_id, **more)

        def call(method: str, path: str, body: Any = None, **extra: Any) -> Any:
            return self.nobody(method, path, body, headers={"Authorization": f"Bearer {device_id}.{secret}"}, **extra)

        return call

    def caller(self, role: str) -> Caller:
        answer = self.admin("POST", "/v1/tokens", {"name": f"{role}-of-tests", "role": role})
        return Caller(self.app, answer.json["token"])

    def is_online(self, device_id: str) -> bool:
        return bool(self.admin("GET", f"/v1/devices/{device_id}").json["online"])

    def stop(self) -> None:
        self.app.extensions["headwater.workers"].stop()
        self.app.extensions["headwater.database"].close()


class Broker(Mosquitto):
    """A mosquitto whose access files the registry writes."""

    def __init__(self, folder: Path) -> None:
        lines = (
            "allow_anonymous false", f"password_file {folder}/passwd", f"acl_file {folder}/acl",
            "use_username_as_clientid true", "connection_messages true", "log_dest topic", "log_type error",
            "log_type warning", "log_type notice", "log_type information", "persistence true",
            f"persistence_location {folder}/",
        )  # fmt: skip
        super().__init__(folder, *lines)
        for name in ("services.acl", "acl"):
            (folder / name).write_text(ACL)
        users = "".join(f"_{name}:{hash_for_broker(f'{name}-secret')}\n" for name in ("devices", "control"))
        for name in ("services", "passwd"):
            (folder / name).write_text(users)

    def settings(self) -> dict[str, Any]:
        return {
            "broker": self.address,
            "broker_password": "devices-secret",
            "control_password": "control-secret",
            "broker_passwd_file": str(self.folder / "passwd"),
            "broker_services_file": str(self.folder / "services"),
            "broker_acl_file": str(self.folder / "acl"),
            "broker_services_acl_file": str(self.folder / "services.acl"),
            "broker_pid_file": str(self.pid_file),
        }


class MqttDevice:
    """A device's connection in paho's own thread; tries again each second until closed."""

    def __init__(self, broker: Broker, device_id: str, secret: str) -> None:
        self.codes: list[str] = []
        self.heard: list[tuple[str, Any, bool]] = []
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=device_id)
        self.client.username_pw_set(device_id, secret)
        self.client.will_set(f"devices/{device_id}/status", "offline", qos=1, retain=True)
        self.client.reconnect_delay_set(1, 1)
        self.client.on_connect = lambda *given: self.codes.append(str(given[3]))
        self.client.connect_async("127.0.0.1", broker.port, keepalive=30)
        self.client.loop_start()

    def listen(self, *filters: str) -> list[tuple[str, Any, bool]]:
        """Subscribe once connected; what comes is appended as (topic, parsed payload, retained)."""
        wait_until(self.client.is_connected)
        subscribed: list[Any] = []
        self.client.on_subscribe = lambda *given: subscribed.append(given[3])
        self.client.on_message = lambda _c, _u, m: self.heard.append(
            (m.topic, m.payload and loads(m.payload), m.retain)
        )
        self.client.subscribe([(each, 1) for each in filters])
        wait_until(lambda: subscribed)
        return self.heard

    def publish(self, topic: str, content: Any, **more: Any) -> None:
        """Publish JSON, or text as it is; returns when the broker has it."""
        payload = content if isinstance(content, str | bytes) else dumps(content)
        self.client.publish(topic, payload, 1, **more).wait_for_publish(10)

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
