"""The packets of a server: what clients send, whole and damaged, and what they are told."""

from __future__ import annotations

import os
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.thingsboard import packets
from ingest.thingsboard.packets import Packet, PacketError, PacketReader
from simulators import packets as client

MESSAGES = 50_000 if os.environ.get("HEADWATER_TEST_LONG") else 10_000
VERSIONS = st.sampled_from([packets.V311, packets.V5])
TEXTS = st.text(st.characters(exclude_characters="\0+#", exclude_categories=["Cs"]), max_size=40)


def whole(data: bytes) -> Packet:
    (found,) = PacketReader(1 << 20).feed(data)
    return found


@given(VERSIONS, TEXTS, TEXTS, st.integers(0, 65_535), st.booleans())
def test_connect_is_read_as_it_was_written(
    version: int, username: str, password: str, keepalive_s: int, has_will: bool
) -> None:
    will = client.Will("gone", b"x") if has_will else None
    sent = client.Connect("me", version, keepalive_s, username, password, will)

    read = packets.read_connect(whole(sent.encode()))

    assert read == (version, keepalive_s, "me", username, password)


@given(VERSIONS, TEXTS.filter(bool), st.binary(max_size=300), st.integers(0, 65_535), st.booleans())
def test_message_is_read_as_it_was_written(version: int, topic: str, payload: bytes, mid: int, dup: bool) -> None:
    made = client.Publisher(topic, version)
    sent = made.qos1(payload, mid, dup=dup) if mid else made.qos0(payload)

    assert packets.read_publish(whole(sent), version) == (topic, payload, mid, dup and bool(mid))


@given(VERSIONS, TEXTS, st.binary(max_size=300), st.integers(0, 65_535))
def test_message_to_a_client_is_read_as_it_was_written(version: int, topic: str, payload: bytes, mid: int) -> None:
    (found,) = client.PacketReader().feed(packets.publish(version, topic, payload, mid))

    assert client.read_publish(found, version) == (topic, payload, mid)


@pytest.mark.parametrize(("version", "codes"), [(packets.V311, (0, 5, 3)), (packets.V5, (0, 0x87, 0x88))])
def test_answers_to_connect_are_told_in_the_words_of_the_version(version: int, codes: tuple[int, ...]) -> None:
    answers = [packets.connack(version, code) for code in (0, packets.NOT_AUTHORIZED, packets.UNAVAILABLE)]

    assert tuple(client.read_connack(whole(each).body, version).code for each in answers) == codes


def test_limits_are_told_to_mqtt_5() -> None:
    told = client.read_connack(whole(packets.connack(packets.V5, receive_maximum=100, max_bytes=1000)).body, packets.V5)

    assert told.receive_maximum == 100


@pytest.mark.parametrize("version", [packets.V311, packets.V5])
def test_acknowledgements_are_read(version: int) -> None:
    refused = client.read_puback(whole(packets.puback(version, 9, packets.BAD_PAYLOAD)).body)

    assert refused == (9, packets.BAD_PAYLOAD if version == packets.V5 else 0)
    assert whole(packets.suback(version, 3, [0, 1, packets.REFUSED])).body[-3:] == b"\x00\x01\x80"
    assert len(whole(packets.unsuback(version, 3, 2)).body) == (5 if version == packets.V5 else 2)


@given(st.lists(st.integers(1, 40), max_size=30))
def test_stream_may_be_split_anywhere(cuts: list[int]) -> None:
    sent = client.Connect("me", packets.V5, 30, "u", "p").encode() + client.Publisher("t", 5).qos1(b"x" * 200, 1)
    reader, found, at = PacketReader(1000), list[Packet](), 0
    for size in [*cuts, len(sent)]:
        found += reader.feed(sent[at : at + size])
        at += size

    assert [packet.kind for packet in found] == [packets.CONNECT, packets.PUBLISH]


@pytest.mark.parametrize(
    "odd",
    [
        b"\x30\xff\xff\xff\xff",  # a length of more than four bytes
        b"\x30\xff\xff\x7f",  # more than may be
        b"\x34\x05\x00\x01t\x00\x01",  # QoS 2
        b"\x32\x05\x00\x01t\x00\x00",  # QoS 1 without an id
        b"\x30\x03\x00\x01#",
        b"\x30\x02\x00\x00",
        b"\x30\x04\x00\x02\xff\xfe",
        b"\x82\x02\x00\x01",
    ],
)
def test_what_is_not_mqtt_is_refused(odd: bytes) -> None:
    with pytest.raises(PacketError):
        read_all(PacketReader(1000).feed(odd), packets.V311)


def read_all(found: list[Packet], version: int) -> None:
    readers = {
        packets.PUBLISH: packets.read_publish,
        packets.SUBSCRIBE: packets.read_subscribe,
        packets.UNSUBSCRIBE: packets.read_subscribe,
    }
    for packet in found:
        if packet.kind in readers:
            readers[packet.kind](packet, version)
        elif packet.kind == packets.PUBACK:
            packets.read_puback(packet)
        else:
            packets.read_connect(packet)


def test_damaged_packets_are_read_or_refused() -> None:
    dice, outcomes = random.Random(1), [0, 0]
    samples = [
        client.Connect("me", version, 30, "d1.s", "", client.Will("gone", b"x")).encode()
        + client.Publisher("v1/devices/me/telemetry", version).qos1(b'{"t":1}', 5)
        + client.subscribe("v1/devices/me/#", 7, version)
        for version in (packets.V311, packets.V5)
    ]
    for number in range(MESSAGES):
        content = bytearray(samples[number % 2])
        for _ in range(dice.choice((0, 1, 1, 2, 8))):
            at = dice.randrange(len(content))
            content[at : at + dice.choice((0, 1, 2))] = dice.randbytes(dice.choice((0, 1, 3)))
        try:
            read_all(PacketReader(1000).feed(bytes(content)), (packets.V311, packets.V5)[number % 2])
            outcomes[0] += 1
        except PacketError:
            outcomes[1] += 1

    assert min(outcomes) > MESSAGES // 50
