"""Topics that tell no device: whose they are, and a bridge that follows the claims while it runs and over a restart."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.peers import HttpPeer
from ingest.bridge import metrics
from ingest.bridge.arrivals import RETAIN, Arrivals
from ingest.bridge.claims import ClaimFeed, Claims
from ingest.bridge.config import BridgeConfig
from ingest.bridge.process import Bridge
from tests.ingest.bridge.support import QUICK, TOKEN, Broker, Ingest, Publisher
from tests.support.waiting import wait_until
from wire.claims import Claim
from wire.errors import PeerUnavailable
from wire.filters import covers, overlap

LAMP = Claim("tele/lamp/#", "tasmota", "lamp")
HALL = Claim("home/hall/+", "tasmota", "hall")
levels = st.sampled_from(["a", "b", "c", "+"])
filters = st.builds(
    lambda root, rest, is_open: "/".join([root, *rest, *["#"] * is_open]),
    st.sampled_from(["x", "y"]),
    st.lists(levels, max_size=3),
    st.booleans(),
)


@given(st.lists(filters, max_size=12), st.lists(st.sampled_from("abcxy"), min_size=1, max_size=5))
def test_claim_of_a_topic_is_the_one_whose_filter_covers_it(wanted: list[str], parts: list[str]) -> None:
    kept: list[str] = []
    for name in wanted:
        if not any(overlap(name, other) for other in kept):
            kept.append(name)
    topic = "/".join(parts)

    found = Claims(Claim(name, "p", name) for name in kept).find(topic)

    assert [found.filter if found else None] == ([name for name in kept if covers(name, topic)] or [None])


def test_delivery_of_a_claimed_topic_names_device_and_protocol() -> None:
    arrivals = Arrivals(shows_retained=True)
    arrivals.learn(Claims([LAMP]))

    said = arrivals.take(b"tele/lamp/LWT", b"Online", 1, RETAIN)
    own = arrivals.take(b"devices/d1/telemetry", b"1", 2, 0)
    arrivals.learn(Claims())
    stray = arrivals.take(b"tele/lamp/LWT", b"Online", 3, 0)

    assert said
    assert own
    assert stray
    assert (said.device, said.protocol, said.retain) == ("lamp", "tasmota", True)
    assert (own.device, own.protocol) == ("d1", "")
    assert (stray.device, stray.protocol) == ("", "")
    assert (arrivals.unclaimed, arrivals.unclaimed_topic, arrivals.retained) == (1, "tele/lamp/LWT", set())


class Registry:
    """Answers as the devices service does."""

    def __init__(self, *claims: Claim) -> None:
        self.claims = list(claims)
        self.revision = 1
        self.changes: dict[str, Any] = {}
        self.is_away = False
        self.asked: list[str] = []
        self._told = threading.Event()

    def change(self, *claims: Claim, **told: Any) -> None:
        self.claims, self.changes = list(claims), told or {"topics": True}
        self.revision += 1
        self._told.set()

    def call(self, method: str, path: str, body: Any = None, *, token: str | None = None) -> Any:
        if self.is_away:
            raise PeerUnavailable("away")
        self.asked.append(path.partition("?")[0].removeprefix("/internal/"))
        if path == "/internal/topics":
            return {"claims": self.claims}
        if path.endswith(f"since={self.revision}"):
            self._told.wait(0.2)
            return {"revision": self.revision}
        return {"revision": self.revision, **self.changes}


def test_feed_asks_for_claims_only_when_they_may_be_others(tmp_path: Path) -> None:
    registry, told = Registry(LAMP), []
    feed = ClaimFeed(registry, tmp_path / "topics", told.append)

    feed.poll(0)
    registry.change(LAMP, devices=["other"])
    feed.poll(0)
    registry.change(devices=["lamp"])  # deleted
    feed.poll(0)

    assert registry.asked == ["changes", "topics", "changes", "changes", "topics"]
    assert [claims.all for claims in told] == [(LAMP,), ()]


def test_what_was_known_last_is_known_at_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "topics"
    ClaimFeed(Registry(LAMP, HALL), path, lambda _: None).poll(0)
    away = Registry()
    away.is_away = True

    feed = ClaimFeed(away, path, lambda _: None)

    assert feed.current.all == (LAMP, HALL)
    assert feed.poll(0) is False
    assert feed.current.filters == ["home/hall/+", "tele/#"]
    path.write_text("{")
    assert ClaimFeed(away, path, lambda _: None).current.all == ()


@pytest.fixture
def registry() -> Registry:
    return Registry(LAMP)


@pytest.fixture
def ingests() -> Iterator[dict[str, Ingest]]:
    made = {"json": Ingest(), "tasmota": Ingest()}
    yield made
    for ingest in made.values():
        ingest.close()


class Running:
    """A bridge that asks a registry of the test; started again at will."""

    def __init__(self, broker: Broker, ingests: dict[str, Ingest], registry: Registry, **settings: Any) -> None:
        url = f"tasmota={ingests['tasmota'].url}"
        topics = {"devices_url": "registry", "bridge_topics_file": broker.folder / "topics"}
        self.config = BridgeConfig(
            broker=broker.address, ingest_url=ingests["json"].url, ingest_urls=url, **topics | settings
        )
        self._registry = registry
        self.start()

    def start(self) -> None:
        def connect(url: str) -> Any:
            return self._registry if url == "registry" else HttpPeer(url, TOKEN)

        self.bridge = Bridge(self.config, QUICK, connect)
        self.bridge.start()
        wait_until(lambda: self.bridge.session.is_ready)

    def restart(self) -> None:
        self.bridge.stop()
        self.start()


@pytest.fixture
def start(mosquitto: Broker, ingests, registry):
    made: list[Running] = []

    def begin(**settings: Any) -> Running:
        made.append(Running(mosquitto, ingests, registry, **settings))
        return made[-1]

    yield begin
    for running in made:
        running.bridge.stop()


def taken(ingest: Ingest) -> list[tuple[str, str, bytes]]:
    return [(each.device, each.protocol, each.payload) for each in ingest.taken]


@pytest.mark.parametrize("settings", [{}, {"broker_protocol": "3.1.1"}, {"bridge_reader": "paho"}, {"bridges": 2}])
def test_claims_are_followed_while_messages_come(start, ingests, registry, bridge_publisher, settings) -> None:
    start(**settings)
    wait_until(lambda: metrics.CLAIMS._value.get() == 1)
    publisher: Publisher = bridge_publisher
    arrived: list[bytes] = []

    def comes(topic: str, payload: bytes) -> None:
        def again() -> bool:
            publisher.send("", payload, topic=topic)
            return payload in [each.payload for each in ingests["tasmota"].taken]

        wait_until(again, 10, f"{payload!r} comes")
        arrived.append(payload)

    comes("tele/lamp/SENSOR", b"1")
    publisher.send("d1", b"own")
    registry.change(LAMP, HALL)
    comes("home/hall/SENSOR", b"2")
    registry.change(HALL)
    wait_until(lambda: metrics.CLAIMS._value.get() == 1)
    comes("home/hall/SENSOR", b"3")

    assert {each[:2] for each in taken(ingests["tasmota"])} == {("lamp", "tasmota"), ("hall", "tasmota")}
    assert {each[2] for each in taken(ingests["tasmota"])} == set(arrived)
    wait_until(lambda: taken(ingests["json"]) == [("d1", "", b"own")])


def test_restart_without_the_registry_keeps_the_claims_and_what_waited(
    start, ingests, registry, bridge_publisher
) -> None:
    running = start()
    wait_until(lambda: metrics.CLAIMS._value.get() == 1)
    running.bridge.stop()
    registry.is_away = True
    bridge_publisher.send("", b"waited", topic="tele/lamp/SENSOR")
    bridge_publisher.wait_acked()

    running.start()

    wait_until(lambda: ("lamp", "tasmota", b"waited") in taken(ingests["tasmota"]))


def test_message_of_nobody_is_counted_and_handed_in(start, ingests, registry, bridge_publisher, caplog) -> None:
    running = start()
    wait_until(lambda: metrics.CLAIMS._value.get() == 1)
    before = metrics.UNCLAIMED._value.get()

    bridge_publisher.send("", b"stray", topic="tele/nobody/SENSOR")

    wait_until(lambda: taken(ingests["json"]) == [("", "", b"stray")])
    wait_until(lambda: metrics.UNCLAIMED._value.get() == before + 1)
    assert running.bridge.session.is_ready


def test_retained_state_comes_with_the_first_subscription_and_stays_at_the_broker(
    start, ingests, registry, mosquitto, bridge_publisher
) -> None:
    bridge_publisher.client.publish("tele/lamp/LWT", b"Online", 1, retain=True).wait_for_publish(5)

    running = start()
    wait_until(lambda: [each.payload for each in ingests["tasmota"].taken] == [b"Online"])
    bridge_publisher.client.publish("tele/lamp/LWT", b"Offline", 1, retain=True).wait_for_publish(5)
    wait_until(lambda: [each.payload for each in ingests["tasmota"].taken] == [b"Online", b"Offline"])
    running.restart()

    assert [each.retain for each in ingests["tasmota"].taken] == [True, False]
    heard: list[bytes] = []
    bridge_publisher.client.on_message = lambda _c, _u, message: heard.append(message.payload)
    bridge_publisher.client.subscribe("tele/lamp/LWT", 1)
    wait_until(lambda: heard == [b"Offline"])
