"""What the broker holds of children's twins, when they move while something is on its way: nothing stays behind."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from devices.control.traffic import Outbound, Receipt, Way
from devices.internal.lookups import LookupStore
from devices.twins.mqtt import TwinTraffic
from devices.twins.store import DesiredStore

TOPIC = "devices/{}/children/c1/twin/desired"


class Carrier:
    """Carries twins to a broker that acknowledges when it is told to, and notes what that holds."""

    def __init__(self, service) -> None:
        self.service = service
        self.held: dict[str, bytes] = {}
        database = service.app.extensions["headwater.database"]
        self.desired = DesiredStore(database)
        self.traffic = TwinTraffic(None, self.desired, LookupStore(database).revision, look_s=0.0)
        self.traffic.begin({})

    def send(self) -> Sequence[Outbound]:
        """Publish what is to go out."""
        sent = self.traffic.outgoing()
        for message in sent:
            self.held[message.topic] = message.payload
        return sent

    def confirm(self, sent: Sequence[Outbound]) -> None:
        self.traffic.confirm([Receipt(message.token, is_heard=True) for message in sent])

    def settle(self) -> None:
        while sent := self.send():
            self.confirm(sent)

    def places(self) -> list[str]:
        return sorted(topic for topic, payload in self.held.items() if payload)


@pytest.fixture
def carrier(service) -> Carrier:
    for gateway in ("g1", "g2"):
        service.register(gateway, gateway=True)
    service.internal("POST", "/internal/children:admit", {"gateway": "g1", "children": ["c1"]})
    assert service.admin("PATCH", "/v1/devices/c1/twin/desired", {"a": 1}).status_code == 200
    return Carrier(service)


def move(carrier: Carrier, gateway: str) -> None:
    assert carrier.service.admin("PUT", "/v1/devices/c1/parent", {"gateway": gateway}).status_code == 200


def prefixes(carrier: Carrier, *given: str) -> None:
    answer = carrier.service.admin("PUT", "/v1/devices/g1/gateway", {"prefixes": given})
    assert answer.status_code == 200


def test_child_that_moves_before_the_broker_has_its_wish_leaves_none_behind(carrier) -> None:
    on_way = carrier.send()
    move(carrier, "g2")
    carrier.confirm(on_way)
    assert [way for way, _ in carrier.desired.pending(9)] == [Way("c1", "g2")]  # still

    carrier.settle()

    assert carrier.places() == [TOPIC.format("g2")]


def test_look_that_came_before_the_broker_had_the_wish_is_repeated(carrier) -> None:
    first = carrier.send()
    move(carrier, "g2")
    second = carrier.send()  # looks too: at that time nothing is known of g1's topic
    carrier.confirm(first)
    carrier.confirm(second)

    carrier.settle()

    assert carrier.places() == [TOPIC.format("g2")]


def test_child_that_is_back_before_its_wish_was_taken_away_is_told_again(carrier) -> None:
    carrier.settle()
    move(carrier, "g2")
    on_way = carrier.send()
    move(carrier, "g1")
    carrier.confirm(on_way)

    carrier.settle()

    assert carrier.places() == [TOPIC.format("g1")]


def test_wish_on_its_way_is_not_sent_twice(carrier) -> None:
    on_way = carrier.send()
    assert [message.topic for message in on_way] == [TOPIC.format("g1")]
    assert carrier.send() == []
    carrier.confirm(on_way)

    move(carrier, "g2")
    taken_away = carrier.send()
    assert [(message.topic, message.payload) for message in taken_away] == [(TOPIC.format("g1"), b"")]
    assert carrier.send() == []


def test_child_outside_the_prefixes_has_no_place_until_it_has_one_again(carrier) -> None:
    carrier.settle()
    prefixes(carrier, "a-")
    carrier.settle()
    assert carrier.places() == []
    carrier.service.admin("PATCH", "/v1/devices/c1/twin/desired", {"a": 2})
    carrier.settle()
    assert carrier.places() == []

    prefixes(carrier, "a-", "c")
    carrier.settle()

    assert carrier.places() == [TOPIC.format("g1")]
    assert b'"a":2' in carrier.held[TOPIC.format("g1")]


def test_rules_that_change_before_the_broker_has_the_wish_leave_none_behind(carrier) -> None:
    on_way = carrier.send()
    prefixes(carrier, "a-")
    carrier.confirm(on_way)

    carrier.settle()

    assert carrier.places() == []


def test_child_outside_the_prefixes_is_told_by_its_next_gateway_or_itself(carrier) -> None:
    carrier.settle()
    prefixes(carrier, "a-")
    carrier.settle()

    move(carrier, "g2")
    carrier.settle()
    assert carrier.places() == [TOPIC.format("g2")]
    carrier.service.admin("DELETE", "/v1/devices/c1/parent")
    carrier.settle()

    assert carrier.places() == ["devices/c1/twin/desired"]


def test_registry_that_starts_again_takes_away_what_prefixes_leave_out_now(carrier) -> None:
    carrier.settle()
    prefixes(carrier, "a-")
    again = Carrier(carrier.service)
    again.held = dict(carrier.held)
    again.traffic.begin({Way("c1", "g1"): carrier.held[TOPIC.format("g1")]})

    again.settle()

    assert again.places() == []
