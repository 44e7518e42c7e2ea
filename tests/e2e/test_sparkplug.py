"""A Sparkplug edge node through a whole installation: asked for its birth, born, killed services, dead."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest

from ingest.protocols.sparkplug.messages import Payload
from tests.e2e.platform import Device, Installation
from tests.ingest.sparkplug.made import add, birth, data, death, payload
from tests.support.waiting import wait_until
from wire import clock

pytestmark = pytest.mark.e2e
STATE = "spBv1.0/STATE/headwater"
NODE, PUMP = "spBv1.0/Plant A/{}/Line 1", "spBv1.0/Plant A/{}/Line 1/Pump 7"


class EdgeNode:
    """Publishes, and keeps what it is told."""

    def __init__(self, installation: Installation, device: Device) -> None:
        self.told: list[tuple[str, bytes]] = []
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, device.id)
        self.client.username_pw_set(device.id, device.secret)
        told = [("spBv1.0/Plant A/NCMD/Line 1", 0), ("spBv1.0/Plant A/DCMD/Line 1/+", 0), (STATE, 1)]
        self.host_states: list[bool] = []
        self.client.on_connect = lambda client, *_: client.subscribe(told)
        self.client.on_message = lambda _c, _u, message: self.hear(message.topic, message.payload)
        self.client.reconnect_delay_set(1, 1)
        self.client.connect("127.0.0.1", installation.mqtt)
        self.client.loop_start()
        wait_until(self.client.is_connected, 10)

    def hear(self, topic: str, content: bytes) -> None:
        if topic == STATE:
            self.host_states.append(json.loads(content)["online"])
        else:
            self.told.append((topic, content))

    def says(self, topic: str, content: bytes) -> None:
        self.client.publish(topic, content, 1).wait_for_publish(10)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def node(installation: Installation) -> Iterator[EdgeNode]:
    gateway = installation.add_device("plant-a", gateway=True)
    installation.run("topic", "claim", "plant-a", "spBv1.0/Plant A/#", "--protocol", "sparkplug", check=True)
    made = EdgeNode(installation, gateway)
    yield made
    made.close()


def now_ms() -> int:
    return clock.now_ns() // clock.NS_PER_MS


def test_life_of_an_edge_node(  # noqa: PLR0915 - a life is long, a start of an installation too
    installation: Installation, node: EdgeNode
) -> None:
    def asked() -> bool:
        if not node.told:
            node.says(NODE.format("NDATA"), data(1, now_ms(), t=19.5))
        return bool(node.told)

    wait_until(asked, 20, "a birth is asked for")
    topic, content = node.told[0]
    assert (topic, Payload.FromString(content).metrics[0].name) == (NODE.format("NCMD"), "Node Control/Rebirth")

    node.says(NODE.format("NBIRTH"), birth(time_ms=now_ms(), t=20.5))
    made = payload(1, now_ms())
    add(made, "flow", 1.5, alias=4)
    node.says(PUMP.format("DBIRTH"), made.SerializeToString())
    wait_until(lambda: values(installation, "Plant-A.Line-1.Pump-7") == [{"flow": 1.5}], 20)
    wait_until(lambda: is_online(installation, "Plant-A.Line-1.Pump-7"), 10)

    path = "/v1/devices/Plant-A.Line-1.Pump-7/commands"
    command = installation.call("POST", path, {"name": "write", "params": {"flow": 2.5}}).body["id"]
    wait_until(lambda: node.told[-1][0] == PUMP.format("DCMD"), 10, "the command reaches the node")
    written = Payload.FromString(node.told[-1][1]).metrics[0]
    assert (written.name, written.alias, written.double_value) == ("", 4, 2.5)
    wait_until(lambda: installation.call("GET", f"/v1/commands/{command}").body["state"] == "sent", 10)

    os.kill(int(Path(installation.data / "run/ingest-sparkplug.pid").read_text()), signal.SIGKILL)
    made = payload(2, now_ms())
    add(made, None, 2.5, alias=4, datatype=0)
    node.says(PUMP.format("DDATA"), made.SerializeToString())
    wait_until(lambda: {"flow": 2.5} in values(installation, "Plant-A.Line-1.Pump-7"), 30)

    wait_until(lambda: node.host_states[-1:] == [True], 20, "the host is said to be online")
    ended = wait_until(lambda: ended_command(installation, command), 20, "the value told back ends the command")
    assert (ended["state"], ended["result"], ended["via"]) == ("succeeded", {"flow": 2.5}, "sparkplug")

    node.says(NODE.format("NDEATH"), death())
    wait_until(lambda: not is_online(installation, "Plant-A.Line-1.Pump-7"), 10)
    assert not is_online(installation, "Plant-A.Line-1")
    assert values(installation, "Plant-A.Line-1") == [{"t": 20.5}]
    assert {entry["code"] for entry in installation.quarantined("plant-a")} == {"not_born"}


def ended_command(installation: Installation, command: str) -> dict[str, Any] | None:
    found: dict[str, Any] = installation.call("GET", f"/v1/commands/{command}").body
    return found if found["ended"] is not None else None


def values(installation: Installation, device: str) -> list[dict[str, object]]:
    return [point["fields"] for point in installation.points(device)]


def is_online(installation: Installation, device: str) -> bool:
    return bool(installation.call("GET", f"/v1/devices/{device}").body["online"])
