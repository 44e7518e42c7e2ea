"""JSON to records: never raises, never loses a neighbour, flattens so that it can be undone."""

from __future__ import annotations

import json
import math
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.protocols import PROTOCOLS
from ingest.protocols.base import Context
from ingest.protocols.flatten import flatten
from ingest.protocols.times import Inexact, read
from wire.errors import REASONS

NOW = 1_772_700_000_000_000_000
NAMES = sorted(PROTOCOLS)
KEYS = st.text(st.characters(blacklist_categories=("Cc", "Cs"), blacklist_characters="\\\x7f"), min_size=1, max_size=5)
LEAVES = st.one_of(
    st.booleans(), st.floats(-1e15, 1e15), st.text(st.characters(blacklist_categories=("Cs",)), max_size=5)
)
TREES = st.recursive(LEAVES, lambda inner: st.dictionaries(KEYS, inner, min_size=1, max_size=4), max_leaves=20)
ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), st.floats(), st.integers(), st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.one_of(st.sampled_from(["ts", "values", "seq", "boot_id", "time"]), st.text(max_size=4)),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
)


def check(name: str, content: bytes) -> None:
    decoded = PROTOCOLS[name].decode(content, Context(NOW))

    assert {fault.code for fault in decoded.faults} <= REASONS.keys()
    for record in decoded.records:
        assert all(type(value) in (float, int, bool, str) for value in record.fields.values())
        assert all(math.isfinite(value) for value in record.fields.values() if type(value) is float)
        assert record.fields or any(fault.index == record.index for fault in decoded.faults)
        json.dumps(record.fields).encode()


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(NAMES), st.binary(max_size=200))
def test_bytes_never_raise(name, content) -> None:
    check(name, content)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(NAMES), ANYTHING)
def test_json_never_raises(name, value) -> None:
    check(name, json.dumps(value).encode())


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(NAMES), ANYTHING, st.data())
def test_mutated_json_never_raises(name, value, data) -> None:
    content = bytearray(json.dumps([value, {"ts": 1.5, "values": {"a": [1e300]}}]).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))

    check(name, bytes(content))


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(KEYS, TREES, min_size=1, max_size=4))
def test_flattening_can_be_undone(tree) -> None:
    fields, faults = flatten(tree)

    assert faults == []
    assert unflatten(fields) == tree


def unflatten(fields: dict) -> dict:
    tree: dict = {}
    for name, value in fields.items():
        *path, last = (part.replace("\0", ".") for part in name.replace("\\.", "\0").split("."))
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    return tree


@settings(max_examples=200, deadline=None)
@given(st.integers(946_684_800_000_000_000, 2**62), st.sampled_from(["s", "ms"]))
def test_fraction_is_exact_to_the_nanosecond(time_ns, unit) -> None:
    text = f"{Decimal(time_ns) / (10**9 if unit == 's' else 10**6):f}"

    assert read(Decimal(text), unit) == (time_ns, True)
    assert read(text, unit) == (time_ns, True)


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        (9_223_372_036, 9_223_372_036 * 10**9),
        (100_000_000_000, 100_000_000_000 * 10**6),
        (9_223_372_036_854, 9_223_372_036_854 * 10**6),
        (100_000_000_000_000, 100_000_000_000_000 * 10**3),
        (100_000_000_000_000_000, 100_000_000_000_000_000),
        (-5, -5 * 10**9),
        (1.276020076001e9, 1_276_020_076_001_000_000),
        ("1772600000", 1_772_600_000 * 10**9),
    ],
)
def test_unit_is_told_by_magnitude(token, expected) -> None:
    assert read(token)[0] == expected


@pytest.mark.parametrize(
    "token",
    [
        True,
        [],
        {},
        "yesterday",
        "",
        2**63,
        -(2**63) - 1,
        99_999_999_999,
        1e30,
        math.inf,
        math.nan,
        Decimal("1e999999"),
        "2026-13-01T00:00:00Z",
        Decimal("100000000000000.5"),
    ],
)
def test_what_is_no_time_is_refused(token) -> None:
    with pytest.raises(ValueError):
        read(token)


def test_float_of_full_length_asks_for_the_text() -> None:
    with pytest.raises(Inexact):
        read(1772600000.1234567, is_exact=False)


def test_whole_message_over_the_record_limit_is_too_large() -> None:
    decoded = PROTOCOLS["ndjson"].decode(b'{"a":1}\n' * 20_001, Context(NOW))

    assert [fault.code for fault in decoded.faults] == ["too_large"]
    assert decoded.records == []
