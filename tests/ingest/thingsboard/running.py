"""A running door over a registry and an ingestion service in memory, and a client of a few lines."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import orjson

from ingest.framing import decode_batch
from ingest.protocols import served_by
from ingest.thingsboard.config import DoorConfig, DoorLimits
from ingest.thingsboard.process import DoorProcess
from simulators import packets
from simulators.packets import Connect, Packet, PacketReader, Publisher
from tests.ingest.intake_support import FakeRegistry, World
from tests.support.waiting import wait_until
from wire.errors import PeerUnavailable


class FakeControl(FakeRegistry):
    """A registry that has twins, commands and provisioning, too."""

    def __init__(self) -> None:
        super().__init__()
        self.twins: dict[str, dict[str, Any]] = {}
        self.changed_twins: list[str] = []
        self.routed: set[str] = set()
        self.commands: list[dict[str, Any]] = []
        self.reported: list[dict[str, Any]] = []
        self.refuses: Exception | None = None
        self.missed: list[str] = []  # what was asked of it while it was away

    def twin(self, device: str) -> dict[str, Any]:
        return self.twins.setdefault(device, {"reported": {}, "desired": {}, "version": 0})

    def wish(self, device: str, desired: dict[str, Any]) -> None:
        twin = self.twin(device)
        self.twins[device] = twin | {"desired": desired, "version": twin["version"] + 1}
        self.changed_twins.append(device)

    def call(self, method: str, path: str, body: Any = None, *, token: str | None = None) -> Any:
        if self.is_away:
            self.missed.append(path)
            raise PeerUnavailable("away")
        if path.startswith("/internal/"):
            return super().call(method, path, body, token=token)
        if self.refuses is not None:
            raise self.refuses
        asked = urlsplit(path)
        device = parse_qs(asked.query).get("device", [(token or "").rpartition(".")[0]])[0]
        return getattr(self, "_" + asked.path.rpartition("/")[2])(device, body)

    def _twin(self, device: str, _body: Any) -> Any:
        return self.twin(device)

    def _reported(self, device: str, body: bytes) -> None:
        self.twin(device)["reported"].update(orjson.loads(body))

    def _provision(self, _device: str, body: bytes) -> Any:
        return {"status": "SUCCESS", "credentialsValue": orjson.loads(body)["deviceName"] + ".new"}

    def _commands_route(self, _path: str, body: Any) -> None:
        if body["ends"]:
            self.routed -= set(body["devices"])
        else:
            self.routed |= set(body["devices"])

    def _commands_claim(self, _path: str, body: Any) -> Any:
        found = [command for command in self.commands if command["device"] in self.routed]
        self.commands = [command for command in self.commands if command not in found]
        self._breathe(body, not found)
        return {"commands": found}

    def _commands_report(self, _path: str, body: Any) -> Any:
        self.reported += body["reports"]
        return {"unknown": []}

    def _twins_desired(self, _path: str, body: Any) -> Any:
        if body.get("devices"):
            return {"twins": [self._show(device) for device in body["devices"]], "next": None}
        since = body["since"]
        if since is None:
            return {"twins": [], "next": [len(self.changed_twins), ""]}
        found = self.changed_twins[since[0] :]
        self._breathe(body, not found)
        return {"twins": [self._show(device) for device in found], "next": [since[0] + len(found), ""]}

    def _breathe(self, body: Any, is_idle: bool) -> None:
        """Stay open for a moment as the registry does for seconds."""
        if is_idle and body["wait"]:
            threading.Event().wait(0.01)

    def _show(self, device: str) -> dict[str, Any]:
        twin = self.twin(device)
        return {"device": device, "version": twin["version"], "desired": dict(twin["desired"])}


class FakeIngest:
    """Hands batches to a service in memory; `is_away` cuts it off, `opens` holds what comes back until it is set."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.is_away = False
        self.opens = threading.Event()
        self.opens.set()
        self.batches = 0

    def call(self, _method: str, _path: str, body: Any = None, *, token: str | None = None) -> Any:
        if self.is_away:
            raise PeerUnavailable("away")
        batch = decode_batch(body)
        self.batches += 1
        verdict = self._world.service.accept_batch(batch)
        assert self.opens.wait(10)
        return msgspec.to_builtins(verdict)


class Running:
    """A door in a thread of its own."""

    def __init__(self, folder: Path, limits: DoorLimits | None = None, **settings: Any) -> None:
        self._settings = settings
        self.world = World(folder, served_by("thingsboard"))
        self.registry = FakeControl()
        self.world.gate._registry = self.registry  # the service asks the same one
        self.ingest = FakeIngest(self.world)
        self._limits = limits or DoorLimits(retry_s=0.02, report_s=0.05)
        self._clients: list[Client] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="door", daemon=True)
        self._thread.start()
        self.door: DoorProcess = self._call(self._start())

    @property
    def port(self) -> int:
        return self.door.port

    @property
    def readings(self) -> list[Any]:
        return self.world.commit.readings

    def client(self, username: str = "", password: str = "", version: int = packets.V311) -> Client:
        """Connect; it is closed in the end."""
        made = Client(self.port)
        self._clients.append(made)
        made.greet(username, password, version)
        return made

    def stop(self) -> None:
        self._call(self.door.stop())
        for client in self._clients:
            client.close()
        self._call(self._end_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()
        self.world.close()

    async def _start(self) -> DoorProcess:
        config = DoorConfig(thingsboard_port=0, **self._settings)
        made = DoorProcess(config, self._limits, self.registry, self.ingest)
        await made.start()
        return made

    async def _end_all(self) -> None:
        """End what still runs, as `asyncio.run` does at the end of the process."""
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def _call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(15)


class Client:
    """A client that shows each packet; MQTT 3.1.1 unless said otherwise."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self.version, self.code = packets.V311, -1
        self._socket = socket.create_connection(("127.0.0.1", port), 10)
        if tls is not None:
            self._socket = tls.wrap_socket(self._socket, server_hostname="localhost")
        self._reader, self._came = PacketReader(), list[Packet]()

    def greet(self, username: str, password: str, version: int) -> None:
        self.version = version
        self._socket.sendall(Connect("any", version, 30, username, password).encode())
        self.code = packets.read_connack(self.next(packets.CONNACK).body, version).code

    def publish(self, topic: str, content: Any, mid: int = 1, *, dup: bool = False) -> None:
        payload = content if isinstance(content, bytes) else orjson.dumps(content)
        made = Publisher(topic, self.version)
        self.send(made.qos1(payload, mid, dup=dup) if mid else made.qos0(payload))

    def say(self, topic: str, content: Any, mid: int = 1) -> int:
        """Publish, wait for the PUBACK, and give its reason."""
        self.publish(topic, content, mid)
        packet_id, reason = packets.read_puback(self.next(packets.PUBACK).body)
        assert packet_id == mid
        return reason

    def subscribe(self, *topics: str) -> None:
        for topic in topics:
            self.send(packets.subscribe(topic, 9, self.version, qos=1))
            self.next(packets.SUBACK)

    def heard(self) -> tuple[str, Any]:
        """Give the next message, acknowledged."""
        topic, payload, mid = packets.read_publish(self.next(packets.PUBLISH), self.version)
        if mid:
            self.send(packets.puback(mid))
        return topic, orjson.loads(payload)

    def next(self, kind: int) -> Packet:
        """Give the next packet of a kind; others stay."""
        while True:
            for packet in self._came:
                if packet.kind == kind:
                    self._came.remove(packet)
                    return packet
            data = self._socket.recv(65536)
            if not data:
                raise ConnectionError("closed by the door")
            self._came += self._reader.feed(data)

    def is_quiet(self, for_s: float = 0.2) -> bool:
        """Whether nothing comes for a while."""
        self._socket.settimeout(for_s)
        try:
            self._came += self._reader.feed(self._socket.recv(65536))
        except TimeoutError:
            return not self._came
        finally:
            self._socket.settimeout(10)
        return False

    def is_cut(self) -> bool:
        """Wait until the door has closed the connection."""
        try:
            while self._socket.recv(65536):
                pass
        except ConnectionResetError:
            pass
        return True

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def close(self) -> None:
        self._socket.close()


def until(condition: Callable[[], Any], what: str = "") -> Any:
    return wait_until(condition, 10, what)
