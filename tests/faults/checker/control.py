"""Commands and twins as the checker sees them: devices that do what they are told, an operator who insists on an answer.

What becomes of a command is in its own params (`do`), so each side can be compared with what the platform says.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from tests.faults.checker.api import BROKEN, Door

LONG_S, SHORT_S = 90.0, 4.0  # deadline of commands that are answered, and of those that nobody answers
ENDS = ("succeeded", "failed")
FINAL = frozenset({*ENDS, "expired", "cancelled"})


@dataclass
class Journal:
    """What a device was told and said; written by its thread, read when all is quiet."""

    name: str
    told: list[str] = field(default_factory=list)  # ids of commands, every delivery
    answered: dict[str, Any] = field(default_factory=dict)  # id -> (state, number)
    versions: list[int] = field(default_factory=list)

    def answer(self, command: dict[str, Any]) -> dict[str, Any] | None:
        """Note a command; give the reply, the same one each time."""
        self.told.append(command["id"])
        do, number = command["params"]["do"], command["params"]["n"]
        if do not in ENDS:
            return None
        self.answered[command["id"]] = (do, number)
        return {"state": do, "error": f"no {number}"} if do == "failed" else {"state": do, "result": {"n": number}}


class MqttDevice:
    """Connected over MQTT; `drop` breaks its connection, and it comes back."""

    def __init__(self, journal: Journal, address: tuple[str, int], secret: str) -> None:
        self.journal = journal
        name = journal.name
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id=name, reconnect_on_failure=True)
        self._client.username_pw_set(name, secret)
        self._client.reconnect_delay_set(1, 1)
        topics = [(f"devices/{name}/commands/+", 1), (f"devices/{name}/twin/desired", 1)]
        self._client.on_connect = lambda client, *_: client.subscribe(topics)
        self._client.on_message = lambda client, _data, message: self._hear(client, message)
        self._client.connect_async(*address, keepalive=10)
        self._client.loop_start()

    @property
    def is_connected(self) -> bool:
        return bool(self._client.is_connected())

    def drop(self) -> None:
        connection = self._client.socket()
        if connection is not None:
            connection.shutdown(2)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _hear(self, client: paho.Client, message: paho.MQTTMessage) -> None:
        content = json.loads(message.payload)
        if message.topic.endswith("/desired"):
            self.journal.versions.append(content["version"])
            client.publish(f"devices/{self.journal.name}/twin/reported", json.dumps({"seen": content["version"]}), 1)
            return
        reply = self.journal.answer(content)
        if reply is not None:
            client.publish(f"{message.topic}/reply", json.dumps({"state": "accepted"}), 1)
            client.publish(f"{message.topic}/reply", json.dumps(reply), 1)


class HttpDevice:
    """Polls for its commands, and answers until the answer is taken."""

    def __init__(self, journal: Journal, url: str, bearer: str) -> None:
        self.journal = journal
        self._door = Door(url, bearer)
        self._is_done = threading.Event()
        self._thread = threading.Thread(target=self._run, name=journal.name)
        self._thread.start()

    def close(self) -> None:
        self._is_done.set()
        self._thread.join(20)
        self._door.close()

    def _run(self) -> None:
        while not self._is_done.is_set():
            status, body = insist(self._door, "GET", "/v1/device/commands?wait=1", until=self._is_done.is_set)
            for command in json.loads(body)["commands"] if status == 200 else ():
                reply = self.journal.answer(command)
                if reply is not None:
                    path = f"/v1/device/commands/{command['id']}/reply"
                    insist(self._door, "POST", path, reply, until=self._is_done.is_set)


class Operator:
    """Three at once send commands to devices in turn, and patch their twins; each until the platform took it."""

    def __init__(self, door: Door, devices: Sequence[str], absent: str, seed: int) -> None:
        self._door, self._devices, self._absent = door, devices, absent
        self._random = Random(seed)
        self._is_done = threading.Event()
        self._numbers = count()
        self._threads = [threading.Thread(target=self._run, args=(name,)) for name in "abc"]
        self.taken: dict[str, tuple[str, str]] = {}  # id -> device, what it is to do
        self.desired: dict[str, dict[str, int]] = {device: {} for device in devices}
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        self._is_done.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "it found out that something is wrong"

    def _run(self, name: str) -> None:
        while not self._is_done.wait(0.02):
            number = next(self._numbers)
            self._send(self._devices[number % len(self._devices)], number)
            if number % 9 == 0:
                self._send(self._absent, number)
            if number % 3 == 0:
                self._patch(self._random.choice(self._devices), name, number)

    def _send(self, device: str, number: int) -> None:
        do = self._random.choices(("succeeded", "failed", "nothing"), (80, 15, 2))[0]
        deadline_s = LONG_S if do in ENDS and device != self._absent else SHORT_S
        wanted = {"name": "work", "params": {"do": do, "n": number}, "deadline_s": deadline_s, "retries": 50}
        body = wanted | {"idempotency_key": f"{device}-{number}"}
        status, answer = insist(self._door, "POST", f"/v1/devices/{device}/commands", body)
        if status != 409:  # its queue is full
            assert status == 201, (status, answer)
            self.taken[json.loads(answer)["id"]] = (device, do)

    def _patch(self, device: str, name: str, number: int) -> None:
        patch = {f"{name}{number % 7}": number}  # members of its own: two writers lose nothing
        status, answer = insist(self._door, "PATCH", f"/v1/devices/{device}/twin/desired", patch)
        assert status == 200, (status, answer)
        self.desired[device] |= patch


def insist(
    door: Door, method: str, path: str, body: Any = None, *, until: Callable[[], bool] = lambda: False
) -> tuple[int, bytes]:
    """Ask until there is an answer that is no `later`; `(0, b"")` when `until` came true first."""
    deadline_s = time.monotonic() + 60
    while not until():
        try:
            status, answer, _ = door.call(method, path, None if body is None else json.dumps(body).encode())
        except BROKEN as error:
            status, answer = 0, str(error).encode()
        if status and status not in (429, 500, 502, 503, 504):
            return status, answer
        assert time.monotonic() < deadline_s, (path, status, answer[:300])
        time.sleep(0.05)
    return 0, b""
