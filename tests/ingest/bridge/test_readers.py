"""Both readers, with both versions of MQTT, do the same between a real broker and a small ingest service."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from compose import ports
from ingest.bridge import session
from ingest.bridge.config import BridgeConfig, Limits
from tests.ingest.bridge.support import (
    Broker,
    Ingest,
    Publisher,
    config_for,
    make_certificate,
    running,
    take_all,
)
from tests.support.waiting import wait_until

WAYS = [("batch", "5"), ("batch", "3.1.1"), ("paho", "5"), ("paho", "3.1.1")]


@pytest.fixture(params=WAYS, ids=["-".join(way) for way in WAYS])
def config(request, mosquitto: Broker, bridge_ingest: Ingest) -> BridgeConfig:
    reader, version = request.param
    return config_for(mosquitto, bridge_ingest, bridge_reader=reader, broker_protocol=version)


def wait_ready(bridge) -> None:
    wait_until(lambda: bridge.session.is_ready, what="subscribed")


def test_messages_of_every_quality_and_size_arrive(config, bridge_ingest, bridge_publisher):
    sizes = (0, 1, 100, 20_000, 70_000, 200_000)
    with running(config) as bridge:
        wait_ready(bridge)
        for qos in (0, 1, 2):
            for size in sizes:
                bridge_publisher.send("d", b"%d" % qos + b"x" * size, qos=qos)
        bridge_publisher.wait_acked()

        wait_until(lambda: len(bridge_ingest.taken) == 3 * len(sizes), what="all are taken")
        assert {(each.payload[:1], bool(each.mid)) for each in bridge_ingest.taken} == {
            (b"0", False), (b"1", True), (b"2", True)
        }  # fmt: skip
        assert {len(each.payload) for each in bridge_ingest.taken} == {1 + size for size in sizes}
        assert len({each.received_ns for each in bridge_ingest.taken}) == 3 * len(sizes)


def test_broker_restart_costs_neither_message_nor_order(config, mosquitto, bridge_ingest, bridge_publisher):
    with running(config) as bridge:
        wait_ready(bridge)
        bridge_publisher.send_numbers(500)
        mosquitto.stop()
        mosquitto.start()
        bridge_publisher.send_numbers(500, first=500)
        bridge_publisher.wait_acked()

        wait_until(lambda: len(bridge_ingest.payloads()) == 1000, what="all are taken")
        assert all(numbers == sorted(numbers) for numbers in bridge_ingest.by_device().values())


def test_messages_un_acked_come_again_to_the_next_bridge(config, bridge_ingest, bridge_publisher):
    bridge_ingest.behave = lambda batch: (503, b"")
    with running(config) as bridge:
        wait_ready(bridge)
        bridge_publisher.send_numbers(300)
        wait_until(lambda: bridge.session._unacked == 300, what="all are held")

    bridge_ingest.behave = take_all
    with running(config):
        wait_until(lambda: len(bridge_ingest.payloads()) == 300, what="all are taken")
        assert all(each.dup for each in bridge_ingest.taken)


def test_acknowledged_messages_do_not_come_again(config, mosquitto, bridge_ingest, bridge_publisher):
    with running(config) as bridge:
        wait_ready(bridge)
        bridge_publisher.send_numbers(300)
        wait_until(lambda: bridge.session._unacked == 0 and len(bridge_ingest.taken) == 300, what="all are acked")
    wait_until(lambda: "Client _bridge disconnected" in mosquitto.log(), what="the broker has read the last ack")

    with running(config):
        bridge_publisher.send_numbers(1, first=300)
        wait_until(lambda: len(bridge_ingest.payloads()) == 301, what="the next is taken")
        assert len(bridge_ingest.taken) == 301


def test_pings_go_on_while_the_socket_is_left_unread(config, mosquitto, bridge_ingest, bridge_publisher):
    bridge_ingest.behave = lambda batch: (503, b"")
    with running(
        config, limits=Limits(window_messages=50, keepalive_s=1, retry_first_s=0.02, retry_most_s=0.1)
    ) as bridge:
        wait_ready(bridge)
        bridge_publisher.send_numbers(200)
        wait_until(lambda: mosquitto.log().count("PINGREQ from _bridge") >= 5, what="longer than the broker waits")

        bridge_ingest.behave = take_all
        wait_until(lambda: len(bridge_ingest.payloads()) == 200, what="all are taken")
        assert "_bridge has exceeded timeout" not in mosquitto.log()
        assert len(bridge_ingest.taken) == 200, "and the connection was the same one all the time"


@pytest.fixture(params=WAYS, ids=["-".join(way) for way in WAYS])
def secure(request, tmp_path: Path, bridge_ingest: Ingest) -> Iterator[tuple[Broker, BridgeConfig, Publisher]]:
    """A broker with TLS for the bridge, and a plain door for the publisher."""
    cert, key = make_certificate(tmp_path)
    plain = Broker(tmp_path / "plain").port
    lines = {"certfile": cert, "keyfile": key, "listener": f"{plain} 127.0.0.1"}
    reader, version = request.param
    with Broker(tmp_path / "secure", **lines) as broker:
        wait_until(lambda: not ports.is_free("127.0.0.1", plain), what="the plain door is open")
        publisher = Publisher(SimpleNamespace(port=plain))
        yield (
            broker,
            config_for(broker, bridge_ingest, bridge_reader=reader, broker_protocol=version, broker_ca=cert),
            publisher,
        )
        publisher.close()


def test_all_of_it_works_over_tls(secure, bridge_ingest):
    broker, config, publisher = secure
    with running(config) as bridge:
        wait_ready(bridge)
        publisher.send_numbers(1000)
        publisher.send("d", b"x" * 200_000)
        broker.stop(signal.SIGTERM)
        broker.start()
        publisher.send_numbers(500, first=1000)
        publisher.wait_acked()

        wait_until(lambda: len(bridge_ingest.payloads()) == 1501, what="all are taken")


@pytest.mark.parametrize("reader", ["batch", "paho"])
def test_retained_telemetry_is_stored_once_and_taken_away_from_the_broker(
    reader, mosquitto, bridge_ingest, bridge_publisher, monkeypatch
):
    monkeypatch.setattr(session, "CLEAR_S", 0.0)
    with running(config_for(mosquitto, bridge_ingest, bridge_reader=reader)) as bridge:
        wait_ready(bridge)
        for number in range(50):
            bridge_publisher.client.publish(f"devices/d/telemetry/p{number}", b"%d" % number, 1, retain=True)
        wait_until(lambda: len(bridge_ingest.payloads()) == 50, what="all are taken")
        assert not any(each.retain for each in bridge_ingest.taken), "they are no old messages"

        seen: list[str] = []
        bridge_publisher.client.on_message = lambda _client, _userdata, message: seen.append(message.topic)
        wait_until(lambda: not bridge.session._client.arrivals.retained, what="cleared")
        bridge_publisher.send_numbers(1)
        wait_until(lambda: len(bridge_ingest.payloads()) == 51, what="behind the clearing")
        bridge_publisher.client.subscribe([("devices/d/telemetry/+", 0), ("devices/mark", 0)])
        bridge_publisher.client.publish("devices/mark", b"x", retain=True)
        wait_until(lambda: "devices/mark" in seen, what="what the broker keeps comes first")
        assert seen == ["devices/mark"]
    assert len(bridge_ingest.taken) == 51
