"""The broker saves less often while it has much to write, and learns of it without a restart."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from compose import autosave
from tests.support.mosquitto import Mosquitto
from tests.support.waiting import wait_until

KB = 1024


@pytest.mark.parametrize(
    ("state_bytes", "changes"), [(0, 100), (400 * KB, 100), (401 * KB, 200), (30_000 * KB, 12_800), (4 * KB, 100)]
)
def test_changes_between_saves_grow_with_the_state(state_bytes, changes):
    assert autosave.interval(100, state_bytes) == changes


def test_small_swings_of_the_state_change_nothing():
    assert autosave.interval(100, 390 * KB, now=200) == 200
    assert autosave.interval(100, 150 * KB, now=200) == 100
    assert autosave.interval(1000, 0, now=1000) == 1000


def test_cost_of_a_change_is_bounded_at_every_size():
    for state_bytes in range(0, 10_000_000, 99_991):
        assert autosave.interval(100, state_bytes) * autosave.BYTES_A_CHANGE >= state_bytes


def test_changes_that_a_kill_may_cost_are_bounded_however_the_state_moves():
    """What docs/delivery.md says: the least number, or one message for each KiB of the state."""
    chance, now = random.Random(5), 100
    for _ in range(20_000):
        state_bytes = chance.choice((0, 1, 3, 30, 300, 3_000)) * chance.randrange(1, 100 * KB)
        now = autosave.interval(100, state_bytes, now)
        assert now <= max(100, state_bytes / KB)


def test_running_broker_takes_the_new_number(tmp_path: Path):
    """A durable session that is away: each message for it is a change."""
    lines = (
        "allow_anonymous true",
        "persistence true",
        f"persistence_location {tmp_path}/",
        "autosave_on_changes true",
    )
    with Mosquitto(tmp_path, *lines, "autosave_interval 800") as broker:
        state = tmp_path / "mosquitto.db"
        tend = autosave.tend(tmp_path / "mosquitto.conf", state, 50)
        away = connect(broker, "away")
        away.subscribe("t", 1)
        wait_until(lambda: "subscribed" in away.user_data_get(), what="subscribed")
        away.disconnect()
        away.loop_stop()
        publisher = connect(broker, "publisher")

        state.write_bytes(b"x" * 500 * KB)
        tend(broker.process.pid)
        raised = (tmp_path / "mosquitto.conf").read_text()
        state.unlink()
        tend(broker.process.pid)
        os.kill(broker.process.pid, 0)
        for _ in range(60):
            publisher.publish("t", b"x", 1).wait_for_publish(10)

        wait_until(state.exists, what="saved after 50 changes, not after 800")
        assert "autosave_interval 200\n" in raised
        publisher.disconnect()
        publisher.loop_stop()
        broker.stop(signal.SIGKILL)


def connect(broker: Mosquitto, name: str) -> paho.Client:
    seen: list[str] = []
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id=name, clean_session=False, userdata=seen)
    client.on_connect = lambda *_: seen.append("connected")
    client.on_subscribe = lambda *_: seen.append("subscribed")
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    wait_until(lambda: "connected" in seen, what="connected")
    return client
