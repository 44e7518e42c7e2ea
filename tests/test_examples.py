"""The examples of the documentation do what the documentation says."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from paho.mqtt import client as paho

from tests.ingest.bridge.support import Broker
from tests.support.waiting import wait_until

EXAMPLES = Path(__file__).parents[1] / "docs/examples"


class Platform:
    """Counts the numbers it gets, and says on the device's topic what it is told to say."""

    def __init__(self, broker: Broker) -> None:
        self.seen: Counter[int] = Counter()
        self.boot_id = ""
        self._subscribed = threading.Event()
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        self._client.on_message = lambda *args: self._take(json.loads(args[2].payload))
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda client, *_: client.subscribe("devices/d1/telemetry", qos=1)
        self._client.connect("127.0.0.1", broker.port)
        self._client.loop_start()
        assert self._subscribed.wait(10)

    def say(self, newest: int, *missing: tuple[int, int]) -> None:
        body = {"boot_id": self.boot_id, "first": 1, "seq": newest, "newest": newest, "missing": missing}
        self._client.publish("devices/d1/acks", json.dumps(body), qos=1, retain=True).wait_for_publish(10)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _take(self, reading: dict[str, object]) -> None:
        self.boot_id = str(reading["boot_id"])
        self.seen[int(str(reading["seq"]))] += 1


@contextmanager
def device(broker: Broker) -> Iterator[None]:
    command = [sys.executable, str(EXAMPLES / "resend.py"), "127.0.0.1", str(broker.port), "d1", "secret"]
    process = subprocess.Popen(command)
    try:
        yield
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with Broker(tmp_path / "broker") as started:
        yield started


def test_device_sends_again_what_is_missing_and_what_a_broker_forgot(broker: Broker) -> None:
    platform = Platform(broker)
    with device(broker):
        wait_until(lambda: platform.seen[8], what="readings arrive")
        platform.say(8, (3, 4))
        wait_until(lambda: platform.seen[3] == platform.seen[4] == 2, what="the missing ones come again")
        assert platform.seen[5] == 1
        platform.say(8)
        wait_until(lambda: platform.seen[12], what="more arrives")

        newest = max(platform.seen)
        broker.stop(signal.SIGKILL)
        broker.start()

        wait_until(lambda: platform.seen[newest] > 1, 30, what="what is not covered comes again")
        assert platform.seen[8] == 1, "it was covered"
    platform.close()


def test_examples_are_short() -> None:
    code = [line for line in (EXAMPLES / "resend.py").read_text().splitlines() if line.strip()]

    assert len(code) <= 40
