from __future__ import annotations

from devices.control.link import _take_each
from devices.control.traffic import Inbound
from wire import topics
from wire.errors import BadRequest, HeadwaterError


class Stumbling:
    """A traffic with one message that its author did not think of, and one that it refuses."""

    filters, found, channels = (), "", ("twin",)

    def __init__(self) -> None:
        self.taken: list[bytes] = []

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
