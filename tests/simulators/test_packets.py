"""The packet codec against split reads, odd lengths, and paho's own writer and the standard's examples."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulators import packets
from simulators.packets import Connect, Packet, PacketError, PacketReader, Publisher, Will

FRAMES = st.lists(st.tuples(st.integers(1, 15), st.integers(0, 15), st.binary(max_size=400)), max_size=12)


def encode(kind: int, flags: int, body: bytes) -> bytes:
    return bytes((kind << 4 | flags,)) + packets.encode_length(len(body)) + body


@given(FRAMES, st.data())
def test_split_stream_gives_the_same_packets(frames: list[tuple[int, int, bytes]], data: st.DataObject) -> None:
    stream = b"".join(encode(*frame) for frame in frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    reader = PacketReader()

    found = [
        packet
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)
        for packet in reader.feed(stream[start:end])
    ]

    assert found == [Packet(*frame) for frame in frames]


@given(st.integers(0, 268_435_455))
def test_length_is_written_as_the_standard_says(length: int) -> None:
    encoded = packets.encode_length(length)

    assert sum((byte & 0x7F) << 7 * place for place, byte in enumerate(encoded)) == length
    assert [byte >= 0x80 for byte in encoded] == [True] * (len(encoded) - 1) + [False]
    assert len(encoded) == 1 + (length > 127) + (length > 16_383) + (length > 2_097_151)


@given(st.binary(max_size=300))
def test_any_bytes_are_packets_or_an_error(data: bytes) -> None:
    try:
        for packet in PacketReader().feed(data):
            if packet.kind == packets.CONNACK:
                packets.read_connack(packet.body, packets.V5)
            if packet.kind == packets.PUBACK:
                packets.read_puback(packet.body)
    except PacketError:
        pass


@given(st.binary(max_size=60))
def test_any_connack_body_is_read_or_an_error(body: bytes) -> None:
    for version in (packets.V311, packets.V5):
        with contextlib.suppress(PacketError):
            assert packets.read_connack(body, version).code in range(256)


def test_length_of_five_bytes_is_an_error() -> None:
    with pytest.raises(PacketError):
        PacketReader().feed(b"\x20\xff\xff\xff\xff\x01")


def test_packet_over_the_limit_is_an_error() -> None:
    with pytest.raises(PacketError, match="limit 10"):
        PacketReader(max_bytes=10).feed(encode(3, 0, b"x" * 11))


def test_publish_has_topic_id_and_flags() -> None:
    made = Publisher("a/b", packets.V311).qos1(b"hi", 258, dup=True)

    assert made == b"\x3a\x09\x00\x03a/b\x01\x02hi"


def test_publish_of_version_5_has_empty_properties() -> None:
    publisher = Publisher("a/b", packets.V5)

    assert publisher.qos1(b"hi", 1) == b"\x32\x0a\x00\x03a/b\x00\x01\x00hi"
    assert publisher.qos0(b"hi", retain=True) == b"\x31\x08\x00\x03a/b\x00hi"


def test_connect_carries_will_and_login() -> None:
    made = Connect("d1", packets.V311, 30, "d1", "pw", Will("s", b"off")).encode()

    assert made == b"\x10\x1e\x00\x04MQTT\x04\xee\x00\x1e\x00\x02d1\x00\x01s\x00\x03off\x00\x02d1\x00\x02pw"


def test_connect_of_version_5_has_properties_of_connect_and_will() -> None:
    made = Connect("d1", packets.V5, 30, will=Will("s", b"off")).encode()

    assert made == b"\x10\x18\x00\x04MQTT\x05\x2e\x00\x1e\x00\x00\x02d1\x00\x00\x01s\x00\x03off"


def test_connack_of_version_5_tells_limits() -> None:
    properties = b"\x21\x00\x14" + b"\x13\x00\x3c" + b"\x1f\x00\x02ok" + b"\x26\x00\x01k\x00\x01v" + b"\x25\x01"
    body = b"\x00\x00" + packets.encode_length(len(properties)) + properties

    assert packets.read_connack(body, packets.V5) == packets.Connack(0, 20, 60)


def test_puback_without_reason_is_success() -> None:
    assert packets.read_puback(b"\x01\x02") == (258, 0)
    assert packets.read_puback(b"\x01\x02\x97\x00") == (258, 0x97)


@pytest.mark.parametrize("version", [packets.V311, packets.V5])
def test_subscribe_and_publish_are_what_another_library_writes(version: int) -> None:
    properties = b"\x00" if version == packets.V5 else b""
    expected = b"\x00\x07" + properties + b"\x00\x03a/b\x00"
    assert packets.subscribe("a/b", 7, version) == bytes((0x82, len(expected))) + expected

    body = b"\x00\x03a/b" + properties + b"text"
    assert packets.read_publish(packets.Packet(3, 1, body), version) == ("a/b", b"text", 0)

    expected = b"\x00\x07" + properties + b"\x00\x03a/b\x01"
    assert packets.subscribe("a/b", 7, version, qos=1)[2:] == expected
    body = b"\x00\x03a/b\x01\x02" + properties + b"text"
    assert packets.read_publish(packets.Packet(3, 2, body), version) == ("a/b", b"text", 258)
    assert packets.puback(258) == b"\x40\x02\x01\x02"


def test_publish_with_properties_is_read_behind_them() -> None:
    body = b"\x00\x03a/b" + b"\x02\x01\x00" + b"text"

    assert packets.read_publish(packets.Packet(3, 0, body), packets.V5) == ("a/b", b"text", 0)


@pytest.mark.parametrize(
    ("flags", "body"), [(4, b"\x00\x01a\x00\x01"), (2, b"\x00\x01a\x00"), (0, b"\x00\x09a"), (0, b"")]
)
def test_publish_that_cannot_be_read_is_refused(flags: int, body: bytes) -> None:
    with pytest.raises(packets.PacketError):
        packets.read_publish(packets.Packet(3, flags, body), packets.V311)
