"""A whole installation for end-to-end tests: `headwater up` on free ports, used only through its public interface."""

from __future__ import annotations

import base64
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import urllib3

from compose import ports, state
from compose.commands.status import collect
from compose.folder import Folder
from tests.support.tied import tied
from tests.support.waiting import wait_until

HEADWATER = str(Path(sys.executable).parent / "headwater")
START_S = 60.0
Json = Any


class Answer(NamedTuple):
    status: int
    body: Json
    headers: Any


class Device(NamedTuple):
    id: str
    secret: str
    bearer: str


def free_ports(count: int) -> list[int]:
    """Pick ports that nobody else is given: not for outgoing connections (Linux), not inside an installation."""
    chosen: set[int] = set()
    while len(chosen) < count:
        port = random.randint(10_000, ports.FIRST - 1)
        if ports.is_free("127.0.0.1", port):
            chosen.add(port)
    return list(chosen)


class Installation:
    """One `headwater up`; `url` is the gateway, `mqtt` the broker's port."""

    def __init__(self, data: Path, *arguments: str) -> None:
        self.data = data
        self.port, self.mqtt = free_ports(2)
        self.url = f"http://127.0.0.1:{self.port}"
        self.arguments = arguments or ("--no-demo",)
        self.log = data.parent / f"{data.name}.log"
        self._http = urllib3.PoolManager(retries=False, timeout=15.0)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, **environ: str) -> Installation:
        command = tied(HEADWATER, "up", "--data", str(self.data), "--port", str(self.port))
        command += ["--mqtt-port", str(self.mqtt), *self.arguments]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=os.environ | environ
            )
        wait_until(self._is_ready, START_S, every_s=0.05, what=f"ready; see {self.log}")
        return self

    def stop(self) -> int:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(20)
        finally:
            self._http.clear()

    def kill(self) -> None:
        """Kill -9 the supervisor alone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def token(self) -> str:
        return (self.data / "secrets/operator.token").read_text().strip()

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def status(self) -> Json:
        result = self.run("status", "--json")
        return json.loads(result.stdout or "{}")

    def run(self, *arguments: str, check: bool = False) -> subprocess.CompletedProcess[str]:
        command = [HEADWATER, *arguments, "--data", str(self.data)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=check)

    def call(self, method: str, path: str, body: Json = None, **headers: str) -> Answer:
        """Call the gateway as the admin; bytes are sent as they are, anything else as JSON."""
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        sent = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        answer = self._http.request(method, self.url + path, body=content, headers=sent)
        is_json = "json" in answer.headers.get("Content-Type", "")
        return Answer(answer.status, json.loads(answer.data) if is_json else answer.data, answer.headers)

    def get(self, path: str) -> Json:
        answer = self.call("GET", path)
        assert answer.status == 200, (path, answer)
        return answer.body

    def add_device(self, device_id: str, **more: Json) -> Device:
        answer = self.call("POST", "/v1/devices", {"id": device_id} | more)
        assert answer.status == 201, answer
        credential = answer.body["credential"]
        return Device(device_id, credential["secret"], credential["bearer"])

    def post(self, device: Device | None, content: bytes, path: str = "/v1/telemetry", **headers: str) -> Answer:
        """Publish over HTTP with the device's own credential (none: no header)."""
        sent = {"Authorization": f"Bearer {device.bearer}" if device else ""}
        return self.call("POST", path, content, **(sent | headers))

    def publish(self, device: Device, topic: str, content: bytes, *more: str) -> subprocess.CompletedProcess[str]:
        """Publish over MQTT with mosquitto_pub, QoS 1."""
        command = ["mosquitto_pub", "-h", "127.0.0.1", "-p", str(self.mqtt), "-u", device.id, "-P", device.secret]
        command += ["-i", device.id, "-q", "1", "-t", topic, "-s", *more]
        return subprocess.run(
            command, input=content.decode("latin-1"), encoding="latin-1", capture_output=True, timeout=20, check=False
        )

    def wait_for_broker(self, device: Device) -> None:
        """Wait until the broker knows the device (2 s are promised)."""
        topic = f"devices/{device.id}/status"
        wait_until(
            lambda: self.publish(device, topic, b"online").returncode == 0, 5, what="the broker takes the device"
        )

    def points(
        self, device_id: str, start: str = "1970-01-01T00:00:00Z", end: str = "2200-01-01T00:00:00Z"
    ) -> list[Json]:
        """All points of a device, over all pages."""
        found, cursor = [], None
        while True:
            more = f"&cursor={cursor}" if cursor else ""
            page = self.get(f"/v1/query/range?device={device_id}&start={start}&end={end}&limit=1000{more}")
            found += page["points"]
            cursor = page["next"]
            if not cursor:
                return found

    def settle(self) -> Json:
        """Wait until nothing is pending and give the ledger."""
        return wait_until(lambda: (ledger := self.get("/v1/ledger"))["pending"] == 0 and ledger, 30, what="pending 0")

    def quarantined(self, device_id: str) -> list[Json]:
        return self.get(f"/v1/quarantine?device={device_id}&limit=1000")["items"]

    def _is_ready(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"headwater up ended with {self._process.returncode}:\n{self.output()[-3000:]}")
        return is_ready(self.data, self.pid)


def is_ready(data: Path, pid: int) -> bool:
    """Tell what `headwater status` would, without its 0.4 s of CPU that a starting platform would have to wait for."""
    folder = Folder(data)
    running = state.read(folder)
    return running is not None and running.supervisor_pid == pid and running.ready and collect(folder)["ready"]


def basic(device: Device) -> str:
    return "Basic " + base64.b64encode(f"{device.id}:{device.secret}".encode()).decode()
