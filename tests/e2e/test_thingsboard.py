"""ThingsBoard's own SDK against a whole installation, and a door that is killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from tests.e2e.platform import Device, Installation, free_ports
from tests.support.waiting import wait_until

pytestmark = pytest.mark.e2e
SDK = ("tb-mqtt-client==1.13.14", "mmh3==5.3.1")  # it installs the second by itself when it is not there
NOW_MS = 1_772_600_000_000
READINGS, KILLED_AT = 400, (80, 240)


class WithDoor(Installation):
    """An installation with ThingsBoard's MQTT door."""

    def __init__(self, data: Path) -> None:
        (self.door,) = free_ports(1)
        super().__init__(data, "--no-demo", "--thingsboard-port", str(self.door))

    def door_pid(self) -> int:
        return next(each["pid"] or 0 for each in self.status()["processes"] if each["name"] == "thingsboard-mqtt")


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WithDoor]:
    made = WithDoor(tmp_path_factory.mktemp("thingsboard") / "data")
    made.start()
    yield made
    assert made.stop() == 0


@pytest.fixture(scope="session")
def sdk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ThingsBoard's SDK, alone: it overwrites the package paho."""
    folder = tmp_path_factory.mktemp("sdk")
    install = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--target", str(folder)]
    uv = shutil.which("uv")
    command = [uv, "pip", "install", "-q", "--python", sys.executable, "--target", str(folder)] if uv else install
    done = subprocess.run([*command, *SDK], capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        pytest.skip(f"ThingsBoard's SDK cannot be installed here: {done.stderr[-200:]}")
    return folder


class Seen:
    """What the SDK has seen so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._things: list[list[Any]] = []
        self._reader = threading.Thread(target=self._read, args=(process,), daemon=True)
        self._reader.start()

    def of(self, kind: str) -> Any:
        """Wait for a thing of this kind."""
        found = wait_until(lambda: [what for name, what in self._things if name == kind], 30, f"{kind}: {self._things}")
        return found[0]

    def end(self) -> None:
        self._reader.join(10)

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("["):
                self._things.append(json.loads(line))


@pytest.fixture
def seen(platform: WithDoor, sdk: Path) -> Iterator[Seen]:
    device = platform.add_device("thing-1")
    gateway = platform.add_device("edge-1", gateway=True)
    script = Path(__file__).with_name("thingsboard_sdk.py")  # -P: not with this folder's modules beside it
    command = [sys.executable, "-P", "-S", script, str(platform.door), device.bearer, gateway.bearer]
    environ = os.environ | {"PYTHONPATH": str(sdk)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ) as process:
        made = Seen(process)
        try:
            yield made
        finally:
            process.kill()
            made.end()


def values(platform: Installation, device: str, count: int) -> list[dict[str, Any]]:
    found = wait_until(lambda: points if len(points := platform.points(device)) >= count else None, 15)
    return [point["fields"] for point in found]


def command(platform: Installation, device: str, name: str) -> str:
    sent = platform.call("POST", f"/v1/devices/{device}/commands", {"name": name, "params": {"n": 1}})
    return str(sent.body["id"])


def test_device_and_gateway_of_the_sdk_work_unmodified(platform: WithDoor, seen: Seen) -> None:
    assert [seen.of(kind) for kind in ("telemetry", "series", "attributes", "their telemetry", "their second")] == [
        0
    ] * 5
    seen.of("ready")
    platform.call("PATCH", "/v1/devices/thing-1/twin/desired", {"interval": 5})
    platform.call("PATCH", "/v1/devices/Meter-1/twin/desired", {"rate": 9})
    sent = [command(platform, "thing-1", "setGpio"), command(platform, "Meter-1", "open")]

    assert seen.of("requested") == {"client": {"fw": "1.0"}}
    assert abs(seen.of("time") / 1000 - time.time()) < 600
    assert "openDoor" in seen.of("unknown")["error"]
    assert seen.of("shared") == {"interval": 5}
    assert seen.of("rpc") == {"method": "setGpio", "params": {"n": 1}}
    assert seen.of("their shared") == {"device": "Meter 1", "data": {"rate": 9}}
    assert seen.of("their rpc")["data"] | {"id": 0} == {"id": 0, "method": "open", "params": {"n": 1}}
    assert seen.of("their requested")["values"] == {"serial": "X"}
    ended = [
        wait_until(lambda id_=id_: (now := platform.get(f"/v1/commands/{id_}"))["state"] == "succeeded" and now, 10)
        for id_ in sent
    ]
    assert [(each["result"], each["via"]) for each in ended] == [
        ({"done": "setGpio"}, "thingsboard"),
        ({"success": True}, "thingsboard"),
    ]
    assert values(platform, "thing-1", 4) == [{"n": 0.0}, {"n": 1.0}, {"n": 2.0}, {"temperature": 21.5, "on": True}]
    assert (values(platform, "Meter-1", 1), values(platform, "Hall.2", 1)) == ([{"kwh": 12.5}], [{"kwh": 7.0}])
    assert platform.get("/v1/devices/thing-1/twin")["reported"] == {"fw": "1.0", "net": {"ip": "::1"}}
    wait_until(lambda: platform.get("/v1/devices/Hall.2")["online"], 10, "what the gateway announced is online")


def send_through_kills(platform: WithDoor, device: Device) -> None:
    """Send numbered readings while the door is killed; return when all are acknowledged."""
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="thing", clean_session=False)
    client.username_pw_set(device.bearer)
    client.reconnect_delay_set(1, 1)
    client.connect("127.0.0.1", platform.door)
    client.loop_start()
    acknowledged: list[int] = []
    client.on_publish = lambda *told: acknowledged.append(told[2])
    for number in range(READINGS):
        reading = {"ts": NOW_MS + number, "values": {"n": number}} if number % 2 else {"n": number}
        client.publish("v1/devices/me/telemetry", json.dumps(reading), qos=1)
        if number in KILLED_AT:
            os.kill(wait_until(platform.door_pid, 20), signal.SIGKILL)
    wait_until(lambda: len(acknowledged) == READINGS, 60, "everything is acknowledged")
    client.disconnect()
    client.loop_stop()


def test_killed_door_loses_nothing_and_stores_nothing_twice(platform: WithDoor) -> None:
    device = platform.add_device("thing-2")

    send_through_kills(platform, device)

    platform.settle()
    found = [point["fields"]["n"] for point in platform.points(device.id)]
    assert sorted(found) == [float(number) for number in range(READINGS)], "lost, or stored twice"
