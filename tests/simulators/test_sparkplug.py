"""The simulator's Sparkplug, read by the platform's own decoder: two hands that wrote the same format."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ingest.protocols.base import Context
from ingest.protocols.sparkplug.sessions import Sessions
from simulators.sparkplug import EdgeNode, claim, encode, external_name, topic
from wire import clock, filters

MS = 1_772_600_000_000
KINDS = {"t": "float", "n": "int", "on": "bool", "mode": "string"}
VALUES = st.fixed_dictionaries(
    {
        "t": st.floats(allow_nan=False, allow_infinity=False),
        "n": st.integers(-(2**63), 2**63 - 1),
        "on": st.booleans(),
        "mode": st.text(max_size=40),
    }
)


class Host:
    """The platform's host, and what it read."""

    def __init__(self) -> None:
        self.sessions, self.read, self.codes, self.asked = Sessions(), list[dict[str, Any]](), list[str](), 0

    def take(self, said: tuple[str, bytes], now_s: float = 0.0) -> Any:
        context = Context((MS + 5_000) * clock.NS_PER_MS, topic=said[0])
        taken = self.sessions.take(said[1], context, now_s)
        self.sessions.commit()
        self.asked += len(self.sessions.due(now_s)[0])
        self.codes += [fault.code for fault in taken.decoded.faults]
        self.read += [record.fields for record in taken.decoded.records]
        return taken


@given(st.lists(VALUES, min_size=1, max_size=4), st.integers(0, 400))
def test_readings_come_through_as_they_were_taken(readings: list[dict[str, Any]], before: int) -> None:
    node, host = EdgeNode("d1", KINDS), Host()
    for _ in range(before):
        node.number(b"")  # any number of messages of a session before
    host.take(node.birth())

    for number, values in enumerate(readings):
        content = encode({"ts": MS + number, "boot_id": "b", "seq": number, "values": values})
        host.take((topic("NDATA", "d1"), node.number(content)))

    assert (host.read, host.codes, host.asked) == (readings, [], 0)


def test_life_of_a_node() -> None:
    node, host = EdgeNode("d1", KINDS), Host()
    node.begin()

    assert host.take(node.birth()).decoded.presence == {external_name("d1"): True}
    assert host.read == []  # a birth of the simulator tells no values
    late = node.death()
    node.begin()
    host.take(node.birth())
    assert host.take(late).is_repeated
    assert host.take(node.death()).decoded.presence == {external_name("d1"): False}


def test_lost_message_is_a_gap_that_a_birth_answers() -> None:
    node, host = EdgeNode("d1", KINDS), Host()
    host.take(node.birth())
    node.number(b"")

    host.take((topic("NDATA", "d1"), node.number(encode({"ts": MS, "values": {"n": 1}}))))
    host.sessions.due(10.0)

    assert node.is_asked_for_birth(b"\x12\x16\x0a\x14Node Control/Rebirth")
    assert not node.is_asked_for_birth(b"")
    host.take(node.birth(), 11.0)
    host.take((topic("NDATA", "d1"), node.number(encode({"ts": MS + 9, "values": {"n": 2}}))), 11.0)
    assert (host.read, host.codes) == ([{"n": 1}, {"n": 2}], [])


def test_padding_needs_no_birth() -> None:
    node, host = EdgeNode("d1", {"n": "int"}), Host()
    host.take(node.birth())

    host.take((topic("NDATA", "d1"), node.number(encode({"ts": MS * 1_000, "values": {"n": 1, "pad": "xx"}}))))

    assert (host.read, host.codes) == ([{"n": 1, "pad": "xx"}], [])


def test_claim_holds_all_topics_of_a_node() -> None:
    for verb in ("NBIRTH", "NDATA", "NDEATH", "NCMD"):
        assert filters.covers(claim("d1"), topic(verb, "d1"))
