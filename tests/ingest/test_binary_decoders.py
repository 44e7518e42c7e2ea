"""CBOR and MessagePack: what they share with JSON, what is their own, and what must not harm."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any

import cbor2
import msgpack
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.protocols import PROTOCOLS
from ingest.protocols.base import Context, Decoded
from wire import clock

NOW = 1_772_700_000 * clock.NS_PER_S
DUMP = {"cbor": cbor2.dumps, "msgpack": msgpack.packb}
NAMES = sorted(DUMP)
TAG = cbor2.CBORTag

texts = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S")), min_size=1, max_size=8)
scalars = st.one_of(st.none(), st.booleans(), st.floats(allow_nan=False, allow_infinity=False), texts)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=12
)


def decode(name: str, content: bytes) -> Decoded:
    return PROTOCOLS[name].decode(content, Context(NOW))


def fields(name: str, value: Any) -> dict[str, Any]:
    decoded = decode(name, DUMP[name](value))
    assert decoded.faults == []
    return decoded.records[0].fields


def codes(decoded: Decoded) -> list[str]:
    assert decoded.records == []
    return [fault.code for fault in decoded.faults]


@pytest.mark.parametrize("name", NAMES)
@given(members=st.dictionaries(texts, values, max_size=5), time_s=st.integers(10**9, 2 * 10**9))
def test_same_reading_as_json(name: str, members: dict[str, Any], time_s: int) -> None:
    envelope = {"ts": time_s, "values": members}

    assert decode(name, DUMP[name](envelope)) == PROTOCOLS["json"].decode(orjson.dumps(envelope), Context(NOW))


@pytest.mark.parametrize("name", NAMES)
@given(number=st.integers(-(2**63), 2**64 - 1))
def test_integers_stay_what_they_are(name: str, number: int) -> None:
    found = fields(name, {"n": number})["n"]

    assert (type(found), found) == (int, number)


@pytest.mark.parametrize("name", NAMES)
def test_bytes_and_integer_keys_have_a_text(name: str) -> None:
    assert fields(name, {"b": b"\x01\x02", 7: {-1: "x"}}) == {"b": "AQI=", "7.-1": "x"}


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("cbor", b"", "no_values"),
        ("cbor", b"\xa1\x61a", "bad_syntax"),
        ("cbor", b"\xa1\x61\xff\x01", "bad_encoding"),
        ("cbor", b"\xa1\x61a\x01\xff", "trailing_data"),
        ("cbor", b"\x81" * 500 + b"\x01", "too_deep"),
        ("cbor", b"\xa1\x61a" + b"\x81" * 40 + b"\x01", "too_deep"),
        ("cbor", b"\x9b" + b"\x7f" * 8, "bad_syntax"),
        ("cbor", b"\xd8\x1c\x81\xd8\x1d\x00", "bad_value"),  # a list that holds itself
        ("cbor", b"\xd9\x01\x00\x82\x63abc\xd8\x19\x00", "bad_value"),  # a string and a reference to it
        ("cbor", cbor2.dumps({"n": TAG(4, [10**15, 1])}), "bad_value"),
        ("cbor", cbor2.dumps({"n": TAG(5, [2_000_000, 1])}), "bad_value"),
        ("cbor", cbor2.dumps({"n": TAG(30, [1, 0])}), "bad_value"),
        ("cbor", cbor2.dumps({"n": TAG(1, 1e30)}), "bad_value"),
        ("cbor", cbor2.dumps({"n": cbor2.CBORSimpleValue(3)}), "bad_value"),
        ("cbor", b"\xa1\x80\x01", "bad_name"),
        ("cbor", cbor2.dumps({"n": 10**40}), "out_of_range"),
        ("cbor", cbor2.dumps({"n": float("nan")}), "nonfinite"),
        ("cbor", cbor2.dumps("text"), "bad_structure"),
        ("msgpack", b"", "no_values"),
        ("msgpack", b"\x81\xa1a", "bad_syntax"),
        ("msgpack", b"\xc1", "bad_syntax"),
        ("msgpack", b"\x81\x90\x01", "bad_syntax"),
        ("msgpack", b"\x81\xa1\xff\x01", "bad_encoding"),
        ("msgpack", b"\x81\xa1a\x01\xc0", "trailing_data"),
        ("msgpack", b"\x91" * 3000 + b"\x01", "too_deep"),
        ("msgpack", b"\x81\xa1a" + b"\x91" * 40 + b"\x01", "too_deep"),
        ("msgpack", b"\xdd\x7f\xff\xff\xff", "bad_syntax"),
        ("msgpack", b"\x81\xc0\x01", "bad_name"),
        ("msgpack", b"\x07", "bad_structure"),
    ],
)
def test_what_cannot_be_taken_says_why(name: str, content: bytes, code: str) -> None:
    found = decode(name, content)

    assert [fault.code for fault in found.faults] == [code]
    assert not [record for record in found.records if record.fields]


@pytest.mark.parametrize("name", NAMES)
def test_bad_record_leaves_its_neighbours(name: str) -> None:
    decoded = decode(name, DUMP[name]([{"a": 1}, 5, {"a": 2}]))

    assert [record.fields for record in decoded.records] == [{"a": 1}, {"a": 2}]
    assert [(fault.index, fault.code) for fault in decoded.faults] == [(1, "bad_structure")]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (TAG(4, [-2, 27315]), 273.15),
        (TAG(5, [-1, 3]), 1.5),
        (TAG(30, [1, 4]), 0.25),
        (TAG(0, "2013-03-21T20:04:00.123456789Z"), "2013-03-21T20:04:00.123456789Z"),
        (TAG(1, 1363896240), "2013-03-21T20:04:00.000000000Z"),
        (TAG(100, 1), "1970-01-02"),
        (TAG(37, bytes(16)), "00000000-0000-0000-0000-000000000000"),
        (TAG(35, "(a+)+$"), "(a+)+$"),
        (TAG(55799, 5), 5),
        (TAG(12345, "x"), "x"),
    ],
)
def test_tags_of_cbor_stand_for_what_they_mean(value: Any, expected: Any) -> None:
    assert fields("cbor", {"v": value}) == {"v": expected}


def test_undefined_is_no_value() -> None:
    assert fields("cbor", {"v": cbor2.undefined, "n": 1}) == {"n": 1}


@pytest.mark.parametrize(
    ("name", "time"),
    [("cbor", TAG(1, 1_700_000_000.5)), ("cbor", datetime.fromtimestamp(1_700_000_000.5, UTC)),
     ("msgpack", msgpack.Timestamp(1_700_000_000, 500_000_000))],
)  # fmt: skip
def test_times_of_the_format_are_exact(name: str, time: Any) -> None:
    decoded = decode(name, DUMP[name]({"ts": time, "values": {"a": 1}}))

    assert decoded.records[0].time_ns == 1_700_000_000_500_000_000


def test_timestamp_of_msgpack_keeps_its_nanoseconds() -> None:
    decoded = decode(
        "msgpack", msgpack.packb({"ts": msgpack.Timestamp(1_700_000_000, 123_456_789), "values": {"a": 1}})
    )

    assert decoded.records[0].time_ns == 1_700_000_000_123_456_789


@pytest.mark.parametrize("name", NAMES)
def test_mutated_messages_never_raise(name: str) -> None:
    dice = random.Random(7)
    seeds = [DUMP[name](value) for value in ({"ts": 1.5e9, "values": {"t": 21.5, "n": -7, "s": "x", "b": b"y"}},
             [{"a": [1, {"b": None}]}, {"c": 2**63}], {"long": list(range(40))})]  # fmt: skip
    for _ in range(3_000):
        content = bytearray(dice.choice(seeds))
        for _ in range(dice.randint(1, 6)):
            content[dice.randrange(len(content))] = dice.randrange(256)
        decoded = decode(name, bytes(content[: dice.randint(1, len(content))]))
        assert decoded.records or decoded.faults
