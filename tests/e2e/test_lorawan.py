"""A LoRaWAN network server through a whole installation: bytes decoded by a codec, a downlink queued and acknowledged."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest

from tests.e2e.platform import Installation
from tests.support.waiting import wait_until

pytestmark = pytest.mark.e2e
EUI = "a840410001810077"
AT = f"application/app-1/device/{EUI}"
CLAIMED = ("application/+/device/+/event/+", "application/+/device/+/command/+")
CODEC = """
function decodeUplink(input) {
  if (input.bytes[0] === 255) { for (;;); }
  return {data: {level: input.bytes[0] / 2}};
}
function encodeDownlink(input) { return {bytes: [input.data.open ? 1 : 0], fPort: 7}; }
"""


class Server:
    """Publishes events, and keeps what it is told."""

    def __init__(self, installation: Installation, secret: str) -> None:
        self.told: list[dict[str, Any]] = []
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, "lns")
        self.client.username_pw_set("lns", secret)
        self.client.on_connect = lambda client, *_: client.subscribe(CLAIMED[1], 1)
        self.client.on_message = lambda _c, _u, message: self.told.append(json.loads(message.payload))
        self.client.connect("127.0.0.1", installation.mqtt)
        self.client.loop_start()
        wait_until(self.client.is_connected, 10)

    def says(self, event: str, **more: Any) -> None:
        body = {"deviceInfo": {"devEui": EUI, "applicationId": "app-1"}} | more
        self.client.publish(f"{AT}/event/{event}", json.dumps(body).encode(), 1).wait_for_publish(10)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def server(installation: Installation, tmp_path: Path) -> Iterator[Server]:
    lns = installation.add_device("lns", gateway=True)
    for topics in CLAIMED:
        installation.run("topic", "claim", "lns", topics, "--protocol", "chirpstack", check=True)
    installation.call("PUT", "/v1/device-types/well", {})
    (tmp_path / "codec.js").write_text(CODEC)
    installation.run("type", "codec", "set", "well", "--file", str(tmp_path / "codec.js"), check=True)
    installation.run("gateway", "set", "lns", "--children", "auto", "--type", "well", check=True)
    made = Server(installation, lns.secret)
    yield made
    made.close()


def test_bytes_become_fields_and_commands_become_downlinks(installation: Installation, server: Server) -> None:
    for payload in ("Kg==", "/w==", "Kw=="):  # 42, 255 which never ends, 43
        server.says("up", data=payload, fPort=2)
    wait_until(lambda: len(installation.points(EUI)) == 2, 30, "two of three are decoded")
    assert [point["fields"]["level"] for point in installation.points(EUI)] == [21, 21.5]
    [waiting] = installation.quarantined(EUI)
    assert (waiting["code"], waiting["detail"]) == ("codec", "codec: it needs more than 50 ms")

    wanted = {"name": "downlink", "params": {"object": {"open": True}, "confirmed": True}}
    command = installation.call("POST", f"/v1/devices/{EUI}/commands", wanted).body["id"]
    wait_until(lambda: server.told, 20, "the server is told")
    told = server.told[0]
    assert (told["data"], told["fPort"], told["confirmed"]) == ("AQ==", 7, True)
    wait_until(lambda: shown(installation, command)["state"] == "sent", 10)

    server.says("ack", queueItemId=told["id"], acknowledged=True)
    wait_until(lambda: shown(installation, command)["state"] == "succeeded", 20, "the acknowledgement ends it")
    assert (shown(installation, command)["via"], len(server.told)) == ("lorawan", 1)


def shown(installation: Installation, command: str) -> dict[str, Any]:
    found: dict[str, Any] = installation.call("GET", f"/v1/commands/{command}").body
    return found
