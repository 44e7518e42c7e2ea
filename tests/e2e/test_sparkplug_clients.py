"""Edge nodes made with independent clients, sparkplug-client (npm) and pysparkplug (PyPI), at a whole installation."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.platform import Device, Installation
from tests.support.waiting import wait_until

pytestmark = pytest.mark.e2e
HERE = Path(__file__).parent / "sparkplug"
CLIENTS = Path(__file__).parents[2] / ".venv" / "sparkplug"  # made by compose/prepare.sh
NODES = {
    "sparkplug-client": (["node", str(HERE / "edge_node.js")], {"NODE_PATH": str(CLIENTS / "node_modules")}),
    "pysparkplug": ([str(CLIENTS / "venv" / "bin" / "python"), str(HERE / "edge_node.py")], {}),
}


# pysparkplug takes no negative Int16 as others send it, cut to 32 bits.
RANGES = {
    "sparkplug-client": "Int16, which goes from -32768 to 32767",
    "pysparkplug": "Int32, which goes from -2147483648 to 2147483647",
}


class EdgeNode:
    """A client's process; `events` are what it tells."""

    def __init__(self, client: str, installation: Installation, gateway: Device) -> None:
        program, environment = NODES[client]
        arguments = [f"mqtt://127.0.0.1:{installation.mqtt}", gateway.id, gateway.secret, "Plant", gateway.id]
        self.events: list[dict[str, Any]] = []
        self.process = subprocess.Popen(
            [*program, *arguments],
            stdout=subprocess.PIPE,
            text=True,
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", **environment},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.late_s = time.monotonic() + 6.0

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.events += (json.loads(line) for line in self.process.stdout)

    def told(self, event: str) -> list[dict[str, Any]]:
        return [each for each in self.events if each["event"] == event]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)
        self._reader.join(10)

    def close(self) -> None:
        self.kill()
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextmanager
def heard(client: str, installation: Installation, gateway: Device, born: Callable[[], bool]) -> Iterator[EdgeNode]:
    """Start a node; anew when its birth got lost, because the broker had not read the claim yet."""
    nodes: list[EdgeNode] = []

    def is_born() -> bool:
        if not nodes or nodes[-1].process.poll() is not None or time.monotonic() > nodes[-1].late_s:
            for node in nodes:
                node.kill()
            nodes.append(EdgeNode(client, installation, gateway))
        return born()

    try:
        wait_until(is_born, 40, "the node's birth is heard")
        yield nodes[-1]
    finally:
        for node in nodes:
            node.close()


@pytest.mark.parametrize("client", sorted(NODES))
def test_node_of_another_hand_is_heard_told_reborn_and_dies(installation: Installation, client: str) -> None:
    gateway = installation.add_device(client, gateway=True)
    installation.run("topic", "claim", client, f"spBv1.0/Plant/+/{client}/#", "--protocol", "sparkplug", check=True)
    name, pump = f"Plant.{client}", f"Plant.{client}.Pump-7"

    def is_born() -> bool:
        return (points(installation, name), points(installation, pump)) == ([{"temp": 20.5}], [{"Set/Speed": 0}])

    with heard(client, installation, gateway, is_born) as node:
        written = send(installation, pump, "write", {"Set/Speed": -300})
        assert (written["state"], written["result"]) == ("succeeded", {"Set/Speed": -300})
        assert [each["value"] for each in node.told("dcmd")] == [-300]
        refused = send(installation, pump, "write", {"Set/Speed": 2**31})
        assert refused["error"] == f"out_of_range: Set/Speed: {2**31} in {RANGES[client]}"
        reborn = send(installation, name, "rebirth", {})
        assert (reborn["state"], node.told("ncmd")[-1]["names"]) == ("succeeded", ["Node Control/Rebirth"])
        wait_until(lambda: is_online(installation, name) and is_online(installation, pump), 10)

    wait_until(lambda: not is_online(installation, name) and not is_online(installation, pump), 10, "the will is heard")
    assert points(installation, pump)[-1] == {"Set/Speed": -300}


def send(installation: Installation, device: str, name: str, params: dict[str, Any]) -> dict[str, Any]:
    """Send a command; give it when it has ended."""
    body = {"name": name, "params": params, "deadline_s": 30}
    command = installation.call("POST", f"/v1/devices/{device}/commands", body).body["id"]
    ended: dict[str, Any] = wait_until(lambda: ended_command(installation, command), 30, f"the end of {name}")
    return ended


def ended_command(installation: Installation, command: str) -> dict[str, Any] | None:
    found: dict[str, Any] = installation.get(f"/v1/commands/{command}?wait=5")
    return found if found["ended"] is not None else None


def points(installation: Installation, device: str) -> list[dict[str, Any]]:
    return [point["fields"] for point in installation.points(device)]


def is_online(installation: Installation, device: str) -> bool:
    return bool(installation.call("GET", f"/v1/devices/{device}").body["online"])
