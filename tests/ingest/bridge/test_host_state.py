"""The bridge as a Sparkplug host application, by its rules alone and at a real broker."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from ingest.bridge.claims import Claims
from ingest.bridge.host_state import ANEW_S, HostState
from tests.ingest.bridge.support import config_for, running
from tests.support.waiting import wait_until
from wire.claims import Claim

TOPIC = "spBv1.0/STATE/headwater"
CLAIMS = Claims([Claim("spBv1.0/p/#", "sparkplug", "gw")])


class Listener:
    """Hears all states; `said` is what came, in order, with its flag of retained ones."""

    def __init__(self, port: int) -> None:
        self.said: list[tuple[Any, bool]] = []
        self.client = paho.Client(CallbackAPIVersion.VERSION2, "listener")
        self.client.on_connect = lambda client, *_: client.subscribe("spBv1.0/STATE/#", 1)
        subscribed: list[object] = []
        self.client.on_subscribe = lambda *given: subscribed.append(given)
        self.client.on_message = lambda _c, _u, m: self.said.append((json.loads(m.payload or b"null"), m.retain))
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        wait_until(lambda: subscribed)

    def states(self) -> list[bool]:
        return [told["online"] for told, _ in self.said]

    def say(self, **told: Any) -> None:
        self.client.publish(TOPIC, json.dumps(told), 1, retain=True).wait_for_publish(5)


@pytest.fixture
def hear(mosquitto) -> Iterator[Callable[[], Listener]]:
    made: list[Listener] = []

    def listen() -> Listener:
        made.append(Listener(mosquitto.port))
        return made[-1]

    yield listen
    for each in made:
        each.client.disconnect()
        each.client.loop_stop()


def test_birth_carries_the_time_of_the_will_and_the_end_too(mosquitto, bridge_ingest, hear) -> None:
    listener = hear()
    with running(config_for(mosquitto, bridge_ingest)) as bridge:
        wait_until(lambda: bridge.session.is_ready)
        assert listener.said == []  # nobody speaks Sparkplug yet
        bridge.session.learn(CLAIMS)
        wait_until(lambda: listener.said)
    wait_until(lambda: not listener.states()[-1])

    birth, end = listener.said[0][0], listener.said[-1][0]
    assert (birth["online"], end) == (True, {"online": False, "timestamp": birth["timestamp"]})
    late = hear()
    wait_until(lambda: late.said)
    assert late.said == [(end, True)]


def test_connection_that_breaks_is_told_by_the_will_and_the_next_has_a_later_time(
    mosquitto, bridge_ingest, hear
) -> None:
    listener = hear()
    with running(config_for(mosquitto, bridge_ingest)) as bridge:
        bridge.session.learn(CLAIMS)
        wait_until(lambda: listener.said)
        bridge.session._client.socket().shutdown(2)
        first = listener.said[0][0]
        wait_until(lambda: listener.said[-1][0]["timestamp"] > first["timestamp"])

        assert listener.said[1][0] == {"online": False, "timestamp": first["timestamp"]}
        assert listener.said[-1][0]["online"]


def test_what_another_says_of_our_id_is_answered(mosquitto, bridge_ingest, hear) -> None:
    listener = hear()
    with running(config_for(mosquitto, bridge_ingest)) as bridge:
        bridge.session.learn(CLAIMS)
        wait_until(lambda: listener.said)
        born_ms = listener.said[0][0]["timestamp"]
        listener.say(online=False, timestamp=born_ms - 5)
        wait_until(lambda: listener.states() == [True, False, True])
        listener.say(online=False, timestamp=born_ms + 60_000)
        wait_until(lambda: listener.states()[3:] == [False, False, True])

        assert listener.said[2][0]["timestamp"] == born_ms
        assert listener.said[-1][0]["timestamp"] > born_ms + 60_000
        assert bridge_ingest.taken == []  # states are no data of anybody


def test_without_an_id_and_with_another_number_nothing_is_said(mosquitto, bridge_ingest, hear) -> None:
    listener = hear()
    for settings in ({"sparkplug_host": ""}, {"bridge_number": 2, "bridges": 2, "broker_username": "_bridge-2"}):
        with running(config_for(mosquitto, bridge_ingest, **settings)) as bridge:
            bridge.session.learn(CLAIMS)
            wait_until(lambda: bridge.session.is_ready)
    listener.say(online=True, timestamp=1)
    wait_until(lambda: listener.said)

    assert listener.said == [({"online": True, "timestamp": 1}, False)]


def test_two_hosts_of_one_id_do_not_reconnect_in_turn_for_ever() -> None:
    now_s = 100.0
    host = HostState("headwater", lambda: now_s)
    host.will(is_wanted=True)

    answers = []
    for later in range(3):
        told = json.dumps({"online": False, "timestamp": 4_000_000_000_000 + later}).encode()
        host.hear(told)
        answers.append(host.is_outdated)
        host.will(is_wanted=True)
    now_s += ANEW_S

    assert answers == [True, False, False]
    told = json.dumps({"online": False, "timestamp": 4_100_000_000_000}).encode()
    host.hear(told)
    assert host.is_outdated


@pytest.mark.parametrize(
    "payload",
    [b"", b"OFFLINE", b"[]", b'{"online":true,"timestamp":1}', b'{"online":0}', b"\xff", b"null", b'{"timestamp":5}'],
)
def test_anything_but_an_offline_state_is_passed_over(payload: bytes) -> None:
    host = said_twice(HostState("headwater"))

    host.hear(payload)

    assert (host.is_due(), host.is_outdated) == (False, False)


@pytest.mark.parametrize(
    "payload", [b'{"online":false}', b'{"online":false,"timestamp":"x"}', b'{"online":false,"timestamp":1e300}']
)
def test_offline_state_without_a_time_is_answered_once(payload: bytes) -> None:
    host = said_twice(HostState("headwater"))

    host.hear(payload)

    assert (host.is_due(), host.is_due()) == (True, False)


def test_birth_is_said_twice_and_again_when_it_was_refused() -> None:
    now_s = 100.0
    host = HostState("headwater", lambda: now_s)
    assert host.will(is_wanted=True) == host.say(is_online=False)

    said = []
    for second in range(20):
        now_s = 100.0 + second
        if host.is_due():
            said.append(second)
            host.settle(is_refused=second == 3)

    assert said == [0, 3, 6]


def said_twice(host: HostState) -> HostState:
    host.will(is_wanted=True)
    host._due_s, host._left = math.inf, 0
    return host
