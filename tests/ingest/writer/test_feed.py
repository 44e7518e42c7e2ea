"""The feed: bounded, conflating, indifferent to the broker's absence; real mosquitto where it matters."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from ingest.readings import Reading
from ingest.writer.acks import AckBoard
from ingest.writer.feed import FeedBuffer, FeedPublisher, News, to_messages
from ingest.writer.gaps import Boot, BootChange
from ingest.writer.state import BootAccount, DeviceBoots
from tests.ingest.bridge.support import Broker
from tests.support.waiting import wait_until
from wire import topics
from wire.feed import MAX_FRAME_BYTES
from wire.points import ALERTING, HISTORICAL, RETAINED


def point(number: int, device: str = "d", **members: object) -> Reading:
    fields = members.pop("fields", {"n": number})
    return Reading(device, "telemetry", number, members.pop("received_ns", number), fields, **members)  # type: ignore[arg-type]


def test_points_within_the_rate_come_as_they_were_offered() -> None:
    buffer = FeedBuffer(1_000)

    buffer.offer([point(1), point(2)])
    buffer.offer([point(3)])

    assert [each.time_ns for each in buffer.take(0.0)] == [1, 2, 3]
    assert buffer.take(0.1) == []


def test_beyond_the_rate_the_newest_of_each_series_is_kept() -> None:
    buffer = FeedBuffer(100)
    buffer.offer([point(number, f"d{number % 5}") for number in range(1_000)])

    first = buffer.take(0.0)
    second = buffer.take(0.1)

    assert [each.time_ns for each in first] == list(range(10)), "the burst"
    assert sorted(each.time_ns for each in second) == [995, 996, 997, 998, 999]
    assert buffer.take(10.0) == []


def test_history_that_alerts_are_told_of_goes_apart_from_what_viewers_see() -> None:
    buffer = FeedBuffer(1_000)
    buffer.offer([point(9), point(1, flags=HISTORICAL), point(2, flags=HISTORICAL | ALERTING),
                  point(3, flags=HISTORICAL | ALERTING | RETAINED)])  # fmt: skip

    payloads = [json.loads(payload) for payload, _ in to_messages(buffer.take(0.0))]

    assert [[each["fields"]["n"] for each in payload["points"]] for payload in payloads] == [[9], []]
    assert [[each["fields"]["n"] for each in payload.get("late", [])] for payload in payloads] == [[], [2]]


def test_history_never_displaces_the_newest_when_there_is_too_much() -> None:
    buffer = FeedBuffer(10)
    buffer.offer([point(number) for number in range(5)])
    buffer.offer([point(2, flags=HISTORICAL | ALERTING), point(7)])

    taken = [each for second in range(4) for each in buffer.take(float(second))]

    assert sorted((each.time_ns, each.is_late_news) for each in taken) == [(0, False), (2, True), (7, False)]


def test_rate_holds_over_time() -> None:
    buffer = FeedBuffer(100)
    sent = 0
    for step in range(100):
        buffer.offer([point(number, f"d{number}") for number in range(50)])
        sent += len(buffer.take(step / 100))

    assert 95 <= sent <= 115


def test_late_point_does_not_displace_a_newer_one() -> None:
    buffer = FeedBuffer(10)
    buffer.offer([point(0, "other"), point(9), point(5)])

    points = buffer.take(0.0) + buffer.take(1.0)

    assert [each.time_ns for each in points] == [0, 9]


def test_points_of_other_fields_or_tags_do_not_displace_each_other() -> None:
    buffer = FeedBuffer(10)
    buffer.offer([point(0, "x"), point(1, fields={"a": 1}), point(2, fields={"b": 1}), point(3, tags={"k": "v"})])

    points = buffer.take(0.0) + buffer.take(1.0) + buffer.take(2.0) + buffer.take(3.0)

    assert len(points) == 4


def test_memory_is_bounded_for_any_number_of_series() -> None:
    buffer = FeedBuffer(100)
    for start in range(0, 20_000, 1_000):
        buffer.offer([point(number, f"d{number}") for number in range(start, start + 1_000)])

    assert len(buffer._newest) + len(buffer._queue) <= 1_010


def test_points_that_are_no_news_stay_out() -> None:
    buffer = FeedBuffer()

    buffer.offer([point(1, flags=HISTORICAL)])

    assert buffer.take(0.0) == []


def test_messages_hold_all_points_and_stay_below_the_limit() -> None:
    points = [point(number, fields={"s": "x" * 900, "n": number}) for number in range(200)]
    points.insert(100, point(1, fields={"s": "x" * 70_000}))

    messages = list(to_messages(points))

    assert all(len(payload) <= MAX_FRAME_BYTES for payload, _ in messages)
    found = [each["fields"]["n"] for payload, _ in messages for each in json.loads(payload)["points"]]
    assert found == list(range(200))
    assert sum(count for _, count in messages) == 200


def test_message_is_the_public_shape_of_points() -> None:
    ((payload, _),) = to_messages(
        [Reading("d1", "telemetry", 1, 7, {"t": 1.5, "big": 2**64 - 1, "on": True}, {"k": "v"})]
    )

    assert json.loads(payload) == {
        "tenant": "default",
        "oldest": {"json/http": 7},
        "points": [
            {
                "device": "d1", "measurement": "telemetry", "time": "1970-01-01T00:00:00.000000001Z",
                "tags": {"k": "v"}, "fields": {"t": 1.5, "big": 2**64 - 1, "on": True},
            }
        ]
    }  # fmt: skip


def test_message_holds_points_of_one_tenant() -> None:
    mine, theirs = (Reading("d1", "m", 1, 7, {"t": 1.0}, tenant=tenant) for tenant in ("default", "acme"))

    messages = [json.loads(payload) for payload, _ in to_messages([mine, theirs, mine])]

    assert [(each["tenant"], len(each["points"])) for each in messages] == [("default", 2), ("acme", 1)]


def no_boots(device: str, tenant: str) -> DeviceBoots:
    return DeviceBoots([])


@contextmanager
def publishing(address: str, buffer: FeedBuffer, board: AckBoard | None = None):
    stopping = threading.Event()
    publisher = FeedPublisher(News(buffer, board or AckBoard(no_boots)), address, "_writer", "secret")
    thread = threading.Thread(target=publisher.run, args=(stopping,))
    thread.start()
    try:
        yield thread
    finally:
        stopping.set()
        thread.join(5)
    assert not thread.is_alive()


def test_message_tells_the_oldest_receipt_of_each_class() -> None:
    readings = [point(n, received_ns=100 - n, delivery=n % 2 or None, protocol="json") for n in range(10)]

    ((payload, _),) = to_messages(readings)

    assert json.loads(payload)["oldest"] == {"json/mqtt": 91, "json/http": 92}


@contextmanager
def listening(address: str):
    received: list[dict] = []
    subscribed = threading.Event()
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id="viewer")
    client.on_connect = lambda *_: client.subscribe(topics.FEED)
    client.on_subscribe = lambda *_: subscribed.set()
    client.on_message = lambda _client, _data, message: received.extend(json.loads(message.payload)["points"])
    host, port = address.split(":")
    client.connect(host, int(port))
    client.loop_start()
    try:
        assert subscribed.wait(10)
        yield received
    finally:
        client.disconnect()
        client.loop_stop()


def test_offered_points_reach_a_subscriber(mosquitto: Broker) -> None:
    buffer = FeedBuffer()
    with listening(mosquitto.address) as received, publishing(mosquitto.address, buffer):
        buffer.offer([point(1), point(2)])

        wait_until(lambda: len(received) == 2, what="two points")

    assert [each["fields"]["n"] for each in received] == [1, 2]


def test_absent_broker_harms_nobody_and_is_found_when_it_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.writer.feed.RETRY_MOST_S", 0.2)
    buffer, broker = FeedBuffer(), Broker(tmp_path / "late")
    with publishing(broker.address, buffer) as thread:
        for number in range(100):
            buffer.offer([point(number, f"d{n}") for n in range(1_000)])
        assert len(buffer._newest) + len(buffer._queue) < 100_000, "nothing waits for a broker that is away"

        with broker, listening(broker.address) as received:
            wait_until(lambda: (buffer.offer([point(7, "late")]), arrived(received))[1], 60, "a point")

        assert thread.is_alive()


class StalledClient:
    def want_write(self) -> bool:
        return True


def test_nothing_is_handed_to_a_connection_that_stalls() -> None:
    buffer = FeedBuffer()
    buffer.offer([point(1)])
    publisher = FeedPublisher(News(buffer, AckBoard(no_boots)), "127.0.0.1:1", "_writer", "")
    publisher._client = StalledClient()  # type: ignore[assignment]

    publisher._flush()

    assert len(buffer.take(0.0)) == 1


def arrived(received: list[dict]) -> bool:
    return any(each["device"] == "late" for each in received)


def test_frozen_broker_makes_the_feed_conflate_not_grow(mosquitto: Broker) -> None:
    buffer = FeedBuffer()
    with publishing(mosquitto.address, buffer), listening(mosquitto.address) as received:
        buffer.offer([point(0, "before")])
        wait_until(lambda: received, what="the feed flows")
        mosquitto.send_signal(signal.SIGSTOP)
        text = "x" * 20_000
        wait_until(
            lambda: (buffer.offer([point(1, f"d{n}", fields={"s": text}) for n in range(500)]), buffer._newest)[1],
            what="stall",
        )
        size = len(buffer._newest) + len(buffer._queue)
        for _ in range(20):
            buffer.offer([point(2, f"d{n}", fields={"s": text}) for n in range(500)])

        assert len(buffer._newest) + len(buffer._queue) <= max(size, 1_000)
        mosquitto.send_signal(signal.SIGCONT)
        wait_until(lambda: (buffer.offer([point(7, "late")]), arrived(received))[1], what="the feed flows again")


def test_devices_are_told_and_told_again_when_the_broker_forgot(mosquitto: Broker) -> None:
    boots = DeviceBoots([BootAccount("b", Boot([1], [7]), 0)])
    board = AckBoard(lambda device, tenant: boots)
    news = News(FeedBuffer(), board)
    news.note([BootChange(("default", "d1", "b"), b"", True, 0, 0, True, 0)])
    with publishing(mosquitto.address, news.feed, board):
        wait_until(lambda: retained(mosquitto)["newest"] == 7, what="the device is told")
        mosquitto.stop(signal.SIGKILL)
        (mosquitto.folder / "mosquitto.db").unlink(missing_ok=True)
        mosquitto.start()

        wait_until(lambda: retained(mosquitto)["newest"] == 7, what="the device is told again")

        boots.boots.clear()
        board.forget(["d1"], 0.0)
        wait_until(lambda: not retained(mosquitto, within_s=1)["newest"], what="the topic is cleared")


def retained(mosquitto: Broker, within_s: int = 5) -> dict[str, int]:
    """Give what a device finds on its topic when it connects."""
    command = ["mosquitto_sub", "-p", str(mosquitto.port), "-t", "devices/d1/acks", "-C", "1", "-W", str(within_s)]
    found = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False).stdout
    return json.loads(found or '{"newest":0}')
