from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from series.embedded import cursor
from wire.errors import BadRequest

text = st.text(st.characters(exclude_categories=["Cs"]))
KEYS = st.tuples(st.just("default"), text, text, text)


@given(st.integers(-(2**63), 2**63 - 1), KEYS)
def test_cursors_come_back_and_are_safe_in_a_url(time_ns, key):
    ranged, latest = cursor.after_point(time_ns, key), cursor.after_series(key)

    assert cursor.read_range(ranged) == cursor.RangeCursor(time_ns, *key[1:])
    assert cursor.read_latest(latest) == cursor.LatestCursor(*key[1:])
    assert all(one.isascii() and not set(one) & set("+/=&?# ") for one in (ranged, latest))


@given(st.one_of(st.text(max_size=30), st.binary(max_size=30).map(lambda raw: raw.hex())))
def test_anything_else_is_a_bad_request(garbage):
    for read in (cursor.read_range, cursor.read_latest):
        with pytest.raises(BadRequest):
            read(garbage)


@given(st.integers(-(2**63), 2**63 - 1), KEYS, st.integers(0, 400))
def test_a_cut_cursor_is_a_bad_request(time_ns, key, at):
    whole = cursor.after_point(time_ns, key)
    cut = whole[: at % len(whole)]

    with pytest.raises(BadRequest):
        cursor.read_range(cut)
