"""The batch reader finds what paho finds, however the bytes are cut."""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from ingest.bridge.arrivals import Arrivals
from ingest.bridge.frames import MAX_PACKET_BYTES, Frames
from ingest.framing import Delivery

EXPIRY, USER = b"\x02\x00\x00\x0e\x10", b"\x26\x00\x01k\x00\x03val"  # properties of MQTT 5 as a broker forwards them
PINGRESP, SUBACK = b"\xd0\x00", b"\x90\x03\x00\x01\x01"


def publish(
    topic: bytes, payload: bytes, mid: int = 0, *, dup: bool = False, retain: bool = False, properties: bytes = b""
) -> bytes:
    body = struct.pack("!H", len(topic)) + topic + (struct.pack("!H", mid) if mid else b"") + properties + payload
    first = 0x30 | (dup and 8) | (2 if mid else 0) | retain
    return bytes([first]) + length(len(body)) + body


def length(size: int) -> bytes:
    out = bytearray()
    while True:
        size, byte = divmod(size, 128)
        out.append(byte | (128 if size else 0))
        if not size:
            return bytes(out)


def cut(stream: bytes, sizes: list[int]) -> list[bytes]:
    chunks, pos = [], 0
    while pos < len(stream):
        size = sizes[len(chunks) % len(sizes)]
        chunks.append(stream[pos : pos + size])
        pos += size
    return chunks


class PahoReader(paho.Client):
    """Stock paho, reading from a list of bytes."""

    def __init__(self, stream: bytes, version: int) -> None:
        super().__init__(CallbackAPIVersion.VERSION2, client_id="x", manual_ack=True, protocol=version)
        self.stream, self.found = stream, []
        self.on_message = lambda _c, _u, m: self.found.append((m.topic, m.payload, m.mid, m.dup, m.retain))

    def _sock_recv(self, bufsize: int) -> bytes:
        taken, self.stream = self.stream[:bufsize], self.stream[bufsize:]
        return taken

    def read_all(self) -> list[tuple[object, ...]]:
        while self.stream:
            assert self._packet_read() == 0
        return self.found


topic_names = st.sampled_from(["devices/d1/telemetry", "devices/ü/telemetry/senml", "devices/" + "x" * 200, "a"])
property_sets = st.sampled_from([b"", EXPIRY, USER, EXPIRY + USER, USER * 20])
messages = st.tuples(
    topic_names, st.binary(max_size=400), st.integers(0, 65_535), st.booleans(), st.booleans(), property_sets
)


@given(st.lists(messages, max_size=20), st.lists(st.integers(1, 700), min_size=1, max_size=5), st.sampled_from([4, 5]))
def test_any_cutting_gives_what_paho_gives(wanted, sizes, version):
    stream = b"".join(
        publish(topic.encode(), payload, mid, dup=dup and mid > 0, retain=retain, properties=written(given, version))
        for topic, payload, mid, dup, retain, given in wanted
    )
    frames = Frames(Arrivals(), has_properties=version == 5)

    found = [each for chunk in cut(stream, sizes) for each in frames.feed(chunk)]

    assert [(each.topic, each.payload, each.mid, each.dup, each.retain) for each in found] == PahoReader(
        stream, version
    ).read_all()


def written(properties: bytes, version: int) -> bytes:
    return length(len(properties)) + properties if version == 5 else b""


def test_packets_may_be_cut_at_every_byte():
    packets = [
        publish(b"devices/d/telemetry", b"q1", 7, properties=written(USER, 5)),
        publish(b"devices/d/telemetry", b"q0" * 100, properties=written(b"", 5)),
        PINGRESP,
        publish(b"devices/d/telemetry/senml", b"", 65_535, dup=True, properties=written(EXPIRY, 5)),
    ]
    stream = b"".join(packets)

    for at in range(1, len(stream)):
        frames = Frames(Arrivals(), has_properties=True)
        found = frames.feed(stream[:at]) + frames.feed(stream[at:])
        assert [(each.mid, each.payload) for each in found] == [(7, b"q1"), (0, b"q0" * 100), (65_535, b"")]
        assert frames.others == [PINGRESP]


@pytest.mark.parametrize(
    "body", [b"\x00\x01a\x00\x05\x09", b"\x00\x01a\x00\x05\x80", b"\x00\x01a\x00\x05\x80\x80\x80\x80"]
)
def test_broken_properties_end_the_connection(body):
    with pytest.raises(ConnectionError):
        Frames(Arrivals(), has_properties=True).feed(b"\x32" + bytes([len(body)]) + body)


def test_retained_telemetry_is_told_and_handed_on_as_what_it_is():
    arrivals = Arrivals(shows_retained=True)
    stream = publish(b"devices/d/telemetry", b"{}", 7, retain=True) + publish(b"devices/d/telemetry", b"", retain=True)

    found = Frames(arrivals).feed(stream)

    assert [(each.mid, each.retain) for each in found] == [(7, False)]
    assert arrivals.retained == {"devices/d/telemetry"}


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_control_packets_are_handed_on_whole(sizes):
    stream = PINGRESP + publish(b"devices/d/telemetry", b"{}", 1) + SUBACK + PINGRESP
    frames = Frames(Arrivals())

    found = [each for chunk in cut(stream, sizes) for each in frames.feed(chunk)]

    assert frames.others == [PINGRESP, SUBACK, PINGRESP]
    assert len(found) == 1


@given(st.binary(max_size=300), st.lists(st.integers(1, 50), min_size=1, max_size=4))
def test_rubbish_ends_the_connection_or_waits_for_more(stream, sizes):
    frames = Frames(Arrivals())

    with suppress(ConnectionError):  # the only exception it may raise
        for chunk in cut(stream, sizes):
            frames.feed(chunk)


def test_device_is_the_second_level_of_the_topic():
    topics = [b"devices/d-1/telemetry/senml", b"devices//telemetry", b"devices", b"devices/\xff\xfe/telemetry"]

    found = Frames(Arrivals()).feed(b"".join(publish(topic, b"x", 1) for topic in topics))

    assert [each.device for each in found] == ["d-1", "", "", "\ufffd\ufffd"]


def test_receive_times_of_one_buffer_differ():
    found = Frames(Arrivals()).feed(publish(b"devices/d/telemetry", b"1", 1) * 1000)

    assert len({each.received_ns for each in found}) == 1000
    assert [each.received_ns for each in found] == sorted(each.received_ns for each in found)


def test_redelivered_message_keeps_its_first_time():
    topic = "devices/d/telemetry"
    frames = Frames(Arrivals({7: Delivery("d", topic, b"same", 111, 7), 8: Delivery("d", topic, b"before", 222, 8)}))
    stream = publish(topic.encode(), b"same", 7, dup=True) + publish(topic.encode(), b"another", 8, dup=True)

    same, another = frames.feed(stream)

    assert (same.received_ns, same.dup) == (111, True)
    assert another.received_ns > 222


def test_fresh_message_with_a_held_id_gets_a_time_of_its_own():
    frames = Frames(Arrivals({7: Delivery("d", "devices/d/telemetry", b"same", 111, 7)}))

    (found,) = frames.feed(publish(b"devices/d/telemetry", b"same", 7))

    assert found.received_ns > 111


def test_packet_over_the_limit_is_passed_over_without_its_payload():
    stream = publish(b"devices/d/telemetry", b"x" * (MAX_PACKET_BYTES + 1), 5) + publish(
        b"devices/d/telemetry", b"{}", 6
    )
    frames = Frames(Arrivals())

    found = [each for chunk in cut(stream, [65_536]) for each in frames.feed(chunk)]

    assert [(each.mid, each.payload) for each in frames.oversized] == [(5, b"")]
    assert [each.mid for each in found] == [6]


def test_broker_statistics_are_no_messages():
    arrivals = Arrivals()

    assert Frames(arrivals).feed(publish(b"$SYS/broker/publish/messages/dropped", b"3")) == []
    assert arrivals.notices == [("$SYS/broker/publish/messages/dropped", b"3")]


@pytest.mark.parametrize(
    "stream", [b"\x32\x03\x00\x05a", b"\x30\x80\x80\x80\x80\x01", b"\x32\x01\x00", b"\x32\x02\x00\x00"]
)
def test_broken_packet_ends_the_connection(stream):
    with pytest.raises(ConnectionError):
        Frames(Arrivals()).feed(stream)


def test_records_of_two_messages_never_meet_in_time() -> None:
    """Records without a time count up from their message's: a payload holds fewer of them than bytes."""
    payload = b"[" + b",".join([b"{}"] * 500) + b"]"
    found = Frames(Arrivals()).feed(
        publish(b"devices/d/telemetry", payload, 1) + publish(b"devices/d/telemetry", payload, 2)
    )

    assert found[1].received_ns - found[0].received_ns >= 500
