"""Damaged messages of each protocol: an answer about each, with a known reason, no larger than itself."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

from ingest.protocols import PROTOCOLS
from ingest.protocols.base import MAX_RECORDS, Context, Decoded
from simulators.payloads import FORMATS
from tests.ingest.samples import Sample, by_protocol, made
from wire.errors import REASONS
from wire.points import INT64_MIN, UINT64_MAX

NOW = 1_772_700_000_000_000_000
MESSAGES = 50_000 if os.environ.get("HEADWATER_TEST_LONG") else 10_000  # of each protocol
CHUNKS = 4  # of the work, so that it can be shared out
ODD = [b"", b"\0", b"\xff", b"\x7f", b"\x80", b"\xc1", b"\xdf\xff\xff\xff\xff", b"\xfb\x7f\xf0", b"\x9f", b"\xbf", b'"', b"[[[[", b"{", b"1e999", b"\\u0000", b"-9223372036854775809", b"\\", b'="', b",", b" ", b"=", b"\n", b"1i"]  # fmt: skip
NUMBERS = {"t": 21.5, "n": 3}
READING = NUMBERS | {"s": "on", "a": [1, {"b": True}]}


FIELDS = {"media": 5}  # of each message, however short it is


def samples(name: str) -> list[Sample]:
    return [*by_protocol()[name], made(name, READING if name in FORMATS else NUMBERS, NOW // 10**6)]


def damaged(samples: list[Sample], dice: random.Random, count: int) -> Iterator[Sample]:
    """Flip, cut out, put in, repeat and splice."""
    for _ in range(count):
        whole, topic = dice.choice(samples)
        content = bytearray(whole)
        for _ in range(dice.choice((1, 1, 2, 3, 8))):
            at = dice.randrange(len(content) + 1)
            to = min(len(content), at + dice.choice((0, 1, 1, 2, 4, 16)))
            other = dice.choice(samples).content
            begin = dice.randrange(len(other) + 1)
            content[at:to] = dice.choice(
                (
                    bytes((dice.randrange(256),)),
                    dice.choice(ODD),
                    content[at:to] * 2,
                    other[begin : begin + dice.randrange(24)],
                )
            )
        yield Sample(bytes(content), topic)


def values_of(decoded: Decoded) -> int:
    return sum(len(record.fields) for record in decoded.records)


@pytest.mark.parametrize("chunk", range(CHUNKS))
@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_damaged_messages_are_answered(name: str, chunk: int) -> None:
    decode, outcomes = PROTOCOLS[name].decode, [0, 0]

    dice = random.Random(f"{name} {chunk}")
    for content, topic in damaged(samples(name), dice, MESSAGES // CHUNKS):
        decoded = decode(content, Context(NOW, topic=topic, transport="mqtt"))

        assert {fault.code for fault in decoded.faults} <= REASONS.keys(), content
        assert values_of(decoded) + len(decoded.faults) <= max(FIELDS.get(name, 1), len(content)), content
        assert len(decoded.records) <= MAX_RECORDS
        for record in decoded.records:
            assert all(
                type(value) is not int or INT64_MIN <= value <= UINT64_MAX for value in record.fields.values()
            ), content
        outcomes[bool(decoded.faults)] += 1

    assert all(count > MESSAGES // CHUNKS // 50 for count in outcomes), "both kinds must occur, or this proves little"
