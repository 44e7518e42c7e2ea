from __future__ import annotations

import subprocess
import threading
from pathlib import Path

from devices.control.link import BrokerLink, _take_each
from devices.control.traffic import Inbound
from tests.support.mosquitto import Mosquitto
from tests.support.waiting import wait_until
from wire import topics
from wire.errors import BadRequest, HeadwaterError


class Stumbling:
    """A traffic with one message that its author did not think of, and one that it refuses."""

    filters, found, channels = ("devices/+/commands/+/reply",), (), ("twin", "commands")

    def __init__(self) -> None:
        self.taken: list[bytes] = []

    def begin(self, retained: object) -> None:
        """Nothing to do."""

    def outgoing(self) -> list[object]:
        return []

    def take(self, messages: list[Inbound]) -> list[tuple[Inbound, HeadwaterError]]:
        if any(message.payload == b"odd" for message in messages):
            raise TypeError("of nobody's foresight")
        self.taken += [message.payload for message in messages if message.payload != b"bad"]
        return [(message, BadRequest("bad")) for message in messages if message.payload == b"bad"]


def test_message_nobody_foresaw_is_refused_and_costs_the_others_nothing() -> None:
    topic = topics.parse_device_topic("devices/d1/twin/reported")
    assert topic is not None
    messages = [Inbound(topic, payload) for payload in (b"a", b"odd", b"bad", b"b")]
    traffic = Stumbling()

    refused = _take_each(traffic, messages)

    assert [(message.payload, error.code) for message, error in refused] == [
        (b"odd", "internal"),
        (b"bad", "bad_request"),
    ]
    assert traffic.taken == [b"a", b"b"]


def test_what_a_device_says_retained_is_taken_and_not_left_at_the_broker(tmp_path: Path) -> None:
    traffic, stopping = Stumbling(), threading.Event()
    with Mosquitto(tmp_path / "broker") as broker:
        link = BrokerLink(broker.address, ("control", ""), [traffic])
        thread = threading.Thread(target=link.run, args=(stopping,))
        thread.start()
        wait_until(lambda: link._is_ready, what="connected")
        publish = ["mosquitto_pub", "-p", str(broker.port), "-q", "1", "-r", "-m", "yes", "-t"]
        subprocess.run([*publish, "devices/d1/commands/c1/reply"], check=True)
        wait_until(lambda: traffic.taken == [b"yes"], what="it is taken")
        subprocess.run([*publish, "mark"], check=True)

        listen = ["mosquitto_sub", "-p", str(broker.port), "-t", "devices/#", "-t", "mark", "-C", "1", "-v"]
        found = subprocess.run(listen, check=True, capture_output=True, text=True, timeout=15).stdout
        stopping.set()
        thread.join(10)

    assert found == "mark yes\n"
    assert traffic.taken == [b"yes"]
