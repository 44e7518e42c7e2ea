from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.presence.state import (
    MQTT_GRACE_NS,
    BrokerNews,
    Evidence,
    Mark,
    judge,
    parse_line,
    parse_status,
    silence,
    silence_limit_s,
)
from wire.clock import NS_PER_S

T0 = 1_800_000_000 * NS_PER_S


def after(*steps: tuple[str, float] | tuple[str, float, str], mark: Mark = Mark()) -> Mark:  # noqa: B008 - frozen
    for kind, at_s, *word in steps:
        mark = judge(mark, Evidence(kind, "d1", T0 + int(at_s * NS_PER_S), *word))
    return mark


@pytest.mark.parametrize(
    ("steps", "is_online"),
    [
        ([("connected", 0)], True),
        ([("connected", 0), ("disconnected", 1)], False),
        ([("connected", 0), ("disconnected", 1), ("connected", 2)], True),
        ([("said", 0, "online")], True),
        ([("connected", 0), ("said", 1, "offline")], False),
        ([("said", 0, "online"), ("said", 1, "offline"), ("connected", 1)], True),
        ([("seen", 0)], True),
        ([("connected", 0), ("disconnected", 1), ("seen", 2)], True),
        ([("connected", 0), ("disconnected", 1), ("seen", 0.9)], False),
        ([("connected", 0), ("disconnected", 1), ("seen_mqtt", 2)], False),
        ([("connected", 0), ("disconnected", 1), ("seen_mqtt", 60)], True),
        ([("connected", 0), ("disconnected", 1), ("spoke", 60)], False),
        ([("retained", 0, "online")], False),
        ([("connected", 0), ("said", 1, "online"), ("disconnected", 2), ("retained", 9, "online")], False),
        ([("said", 0, "offline"), ("retained", 9, "online")], True),
        ([("said", 0, "online"), ("retained", 9, "offline")], False),
        ([("connected", 0), ("retained", 1, "offline")], True),
    ],
)
def test_evidence_in_order_decides(steps, is_online) -> None:
    assert after(*steps).online is is_online


def test_silenced_device_comes_back_by_its_next_message() -> None:
    mark = after(("seen", 0))

    assert not silence(mark).online
    assert after(("seen_mqtt", 1), mark=silence(mark)).online


def test_silence_limit_is_three_expected_intervals() -> None:
    assert (silence_limit_s(10, 300), silence_limit_s(None, 300)) == (30, 300)


KINDS = st.sampled_from(["connected", "disconnected", "said", "retained", "seen", "seen_mqtt"])


@given(st.lists(st.tuples(KINDS, st.integers(0, 100), st.sampled_from(["online", "offline"])), max_size=20))
def test_marks_stay_sound_whatever_comes(steps) -> None:
    mark = Mark()
    for kind, at_s, word in steps:
        seen_ns = mark.last_seen_ns
        mark = judge(mark, Evidence(kind, "d1", T0 + at_s * NS_PER_S, word))

        assert mark.last_seen_ns >= seen_ns
        assert kind != "connected" or (mark.online and mark.connected)
        assert kind != "disconnected" or not (mark.online or mark.connected)
    late_ns = T0 + 101 * NS_PER_S + MQTT_GRACE_NS
    assert judge(mark, Evidence("seen_mqtt", "d1", late_ns)).online


@pytest.mark.parametrize(
    ("line", "news"),
    [
        ("1: New client connected from 127.0.0.1:4 as d1 (p2, c1, k5, u'd1').", BrokerNews("connected", "d1")),
        ("1: New client connected from 127.0.0.1:4 as d1 (p2, c1, k5, u'd2').", None),
        ("1: New client connected from 127.0.0.1:4 as _control (p2, c1, k5, u'_control').", None),
        (
            "1: New client connected from 127.0.0.1:4 as _bridge (p2, c1, k5, u'_bridge').",
            BrokerNews("bridge_came", "_bridge"),
        ),
        ("1: Socket error on client _bridge-2, disconnecting.", BrokerNews("bridge_went", "_bridge-2")),
        ("1: New client connected from 127.0.0.1:4 as d1 (p2, c1, k5, u'_bridge').", None),
        ("1: Client d1 disconnected.", BrokerNews("disconnected", "d1")),
        ("1: Client d1 closed its connection.", BrokerNews("disconnected", "d1")),
        ("1: Client d1 has exceeded timeout, disconnecting.", BrokerNews("disconnected", "d1")),
        ("1: Socket error on client d1, disconnecting.", BrokerNews("disconnected", "d1")),
        ("1: Client <unknown> disconnected, not authorised.", BrokerNews("refused")),
        ("1: Client x\n1: Client d1 disconnected. disconnected, not authorised.", None),
        ("1: Client <unknown> disconnected.", None),
        ("1: mosquitto version 2.0.11 running", BrokerNews("started")),
        ("1: New connection from 127.0.0.1:4 on port 1883.", None),
        ("", None),
    ],
)
def test_lines_of_the_broker_are_read(line, news) -> None:
    assert parse_line(line) == news


@pytest.mark.parametrize(
    ("payload", "word"),
    [
        (b"online", "online"),
        (b" Offline\n", "offline"),
        (b'{"state":"online","rssi":-60}', "online"),
        (b' {"state": "OFFLINE"}', "offline"),
        (b'{"state":1}', None),
        (b'{"state":', None),
        (b"{" * 100_000, None),
        (b"sleeping", None),
        (b"", None),
        (b"\xff\xfe", None),
    ],
)
def test_status_payloads_are_read(payload, word) -> None:
    assert parse_status(payload) == word
