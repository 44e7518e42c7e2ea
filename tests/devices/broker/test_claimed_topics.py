"""Claimed topics at a real mosquitto: its access list follows the claims."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from devices.broker.access_list import AccessList, kept_of, render
from tests.devices.running import Broker, Service
from tests.support.waiting import wait_until
from wire.claims import Claim

SOON_S = 10.0  # 2 s are promised; a crowded machine takes its time
BLANK = "Plant A/Line 1"


class Client:
    """Speaks MQTT 5, in which a broker says that it refuses a publish."""

    def __init__(self, broker: Broker, name: str, secret: str) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self.codes: dict[int, Any] = {}
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, name, protocol=mqtt.MQTTv5)
        self.client.username_pw_set(name, secret)
        self.client.reconnect_delay_set(1, 1)
        self.client.on_message = lambda _client, _data, message: self.heard.append((message.topic, message.payload))
        self.client.on_publish = lambda _client, _data, mid, code, _more: self.codes.update({mid: code})
        self.client.connect_async("127.0.0.1", broker.port)
        self.client.loop_start()
        wait_until(self.client.is_connected)

    def may_publish(self, topic: str, payload: bytes = b"x") -> bool:
        sent = self.client.publish(topic, payload, 1)
        wait_until(lambda: sent.mid in self.codes)
        return not self.codes[sent.mid].is_failure

    def subscribe(self, *topics: str) -> None:
        done: list[Any] = []
        self.client.on_subscribe = lambda *given: done.append(given)
        self.client.subscribe([(topic, mqtt.SubscribeOptions(1)) for topic in topics])
        wait_until(lambda: done)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def enter(broker: Broker):
    made: list[Client] = []

    def connect(name: str, secret: str) -> Client:
        made.append(Client(broker, name, secret))
        return made[-1]

    yield connect
    for client in made:
        client.close()


def claim(service: Service, device: str, topics: str) -> None:
    answer = service.admin("POST", f"/v1/devices/{device}/topics", {"filter": topics, "protocol": "tasmota"})
    assert answer.status_code == 201, answer.json


def test_claimed_topics_are_of_their_device_alone_until_they_are_released(connected_service, enter) -> None:
    owner = enter("plant", connected_service.register("plant"))
    other = enter("other", connected_service.register("other"))
    control = enter("_control", "control-secret")
    topic = f"{BLANK}/SENSOR"
    assert not owner.may_publish(topic)

    claim(connected_service, "plant", f"{BLANK}/#")
    wait_until(lambda: owner.may_publish(topic), SOON_S)
    for client in (owner, other):
        client.subscribe(f"{BLANK}/#", "devices/other/errors")
    assert not other.may_publish(topic, b"forged")
    assert not other.may_publish("Plant", b"forged")
    assert control.may_publish(f"{BLANK}/cmnd", b"do")
    wait_until(lambda: (f"{BLANK}/cmnd", b"do") in owner.heard)
    control.may_publish("devices/other/errors", b"last")
    wait_until(lambda: ("devices/other/errors", b"last") in other.heard)

    assert other.heard == [("devices/other/errors", b"last")]
    connected_service.admin("DELETE", "/v1/devices/plant/topics?filter=Plant%20A/Line%201/%23")
    wait_until(lambda: not owner.may_publish(topic), SOON_S)
    assert not control.may_publish(f"{BLANK}/cmnd")
    assert owner.client.is_connected()


def test_head_of_the_list_is_kept_and_says_who_the_bridges_are(tmp_path: Path) -> None:
    head = "user _bridge\ntopic x\n\nuser _bridge-2\ntopic x\n\npattern write devices/%u/telemetry\n"
    (tmp_path / "services.acl").write_text(head)
    claims = [Claim("tele/b/#", "tasmota", "b"), Claim("cmnd/a/#", "tasmota", "a"), Claim("tele/a/#", "tasmota", "a")]
    made = AccessList(tmp_path / "acl", tmp_path / "services.acl", "_control")

    assert [made.write(claims), made.write(claims)] == [True, False]
    text = (tmp_path / "acl").read_text()

    assert text.startswith(head)
    assert kept_of(text).splitlines()[2:] == [
        "user _bridge", "topic read tele/#", "user _bridge-2", "topic read tele/#",
        "user _control", "topic write cmnd/#", "topic write tele/#",
        "user a", "topic readwrite cmnd/a/#", "topic readwrite tele/a/#", "user b", "topic readwrite tele/b/#",
    ]  # fmt: skip
    assert (render(head, [], "_control"), kept_of(head)) == (head, "")
