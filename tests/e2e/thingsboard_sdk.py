"""A device and a gateway of ThingsBoard's own SDK. Prints a line of JSON for each thing it sees, until its input ends.

Usage: thingsboard_sdk.py PORT TOKEN GATEWAY_TOKEN
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from tb_device_mqtt import TBDeviceMqttClient  # type: ignore[import-not-found]
from tb_gateway_mqtt import TBGatewayMqttClient  # type: ignore[import-not-found]


def say(kind: str, what: Any = True) -> None:
    """Tell the test."""
    print(json.dumps([kind, what]), flush=True)  # noqa: T201


def connect(client: Any) -> Any:
    """Connect, and wait until the server has said yes."""
    client.connect()
    deadline_s = time.monotonic() + 20
    while not client.is_connected() and time.monotonic() < deadline_s:
        time.sleep(0.02)
    return client


def be_device(port: int, token: str) -> Any:
    """Send telemetry and attributes, ask for attributes and the time, answer RPC."""
    device = connect(TBDeviceMqttClient("127.0.0.1", port, token))

    def answer(number: str, asked: Any) -> None:
        say("rpc", asked)
        device.send_rpc_reply(number, {"done": asked["method"]})

    device.set_server_side_rpc_request_handler(answer)
    device.subscribe_to_all_attributes(lambda told, _: say("shared", told))
    say("telemetry", device.send_telemetry({"temperature": 21.5, "on": True}).get())
    series = [{"ts": 1772600000000 + n * 1000, "values": {"n": n}} for n in range(3)]
    say("series", device.send_telemetry(series).get())
    say("attributes", device.send_attributes({"fw": "1.0", "net": {"ip": "::1"}}).get())
    device.request_attributes(["fw"], ["interval"], callback=lambda told, *_: say("requested", told))
    device.send_rpc_call("getCurrentTime", {}, lambda _, told, __: say("time", told))
    device.send_rpc_call("openDoor", {}, lambda _, told, __: say("unknown", told))
    return device


def be_gateway(port: int, token: str) -> Any:
    """Speak for two meters."""
    gateway = connect(TBGatewayMqttClient("127.0.0.1", port, token))

    def answer(_: Any, asked: Any) -> None:
        say("their rpc", asked)
        gateway.gw_send_rpc_reply(asked["device"], asked["data"]["id"], {"success": True})

    gateway.gw_set_server_side_rpc_request_handler(answer)
    gateway.gw_subscribe_to_all_attributes(lambda told, *_: say("their shared", told))
    for name in ("Meter 1", "Hall/2"):
        gateway.gw_connect_device(name).get()
    telemetry = {"ts": 1772600000000, "values": {"kwh": 12.5}}
    say("their telemetry", gateway.gw_send_telemetry("Meter 1", telemetry).get())
    say("their second", gateway.gw_send_telemetry("Hall/2", {"kwh": 7}).get())
    gateway.gw_send_attributes("Meter 1", {"serial": "X"}).get()
    gateway.gw_request_client_attributes("Meter 1", ["serial"], lambda told, *_: say("their requested", told))
    return gateway


def main() -> None:
    """Run until the input ends."""
    port, token, gateway_token = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    device, gateway = be_device(port, token), be_gateway(port, gateway_token)
    say("ready")
    sys.stdin.read()
    gateway.gw_disconnect_device("Hall/2").get()
    gateway.disconnect()
    device.disconnect()
    os._exit(0)  # the SDK's threads never end


main()
