from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.twins import merge
from wire.errors import HeadwaterError

NAMES = st.sampled_from(["a", "b", "c"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([0.5, 1.0, "x", ""]),
    lambda deeper: st.lists(deeper, max_size=2) | st.dictionaries(NAMES, deeper, max_size=3),
    max_leaves=8,
)
DOCUMENTS = st.dictionaries(NAMES, VALUES, max_size=3)


# RFC 7396, appendix A, as far as target and patch are objects.
@pytest.mark.parametrize(
    ("state", "patch", "merged"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_patches_merge_as_the_standard_says(state, patch, merged) -> None:
    assert merge.apply(state, patch) == merged


@given(DOCUMENTS, DOCUMENTS)
def test_delta_is_a_patch_that_fulfils_the_wish(wish, known) -> None:
    desired, reported = merge.apply({}, wish), merge.apply({}, known)

    missing = merge.delta(desired, reported)

    assert merge.delta(desired, merge.apply(reported, missing)) == {}


@given(DOCUMENTS, DOCUMENTS)
def test_patch_twice_is_patch_once(known, patch) -> None:
    once = merge.apply(merge.apply({}, known), patch)

    assert merge.is_same(merge.apply(once, patch), once)


def test_delta_knows_true_from_one_and_one_from_one() -> None:
    assert merge.delta({"on": True, "n": 1}, {"on": 1, "n": 1.0}) == {"on": True}
    assert merge.delta({"a": {"b": 1, "c": 2}}, {"a": {"b": 1}, "z": 9}) == {"a": {"c": 2}}


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"{", "bad_syntax"),
        (b'{"a":NaN}', "bad_syntax"),
        (b"[1]", "bad_structure"),
        (b"5", "bad_structure"),
        (b'{"a":' * 17 + b"1" + b"}" * 17, "too_deep"),
        (b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}", "bad_syntax"),
        (b'{"":1}', "bad_name"),
        (b'{"a\\u0000":1}', "bad_name"),
        (b'{"a":[{"b\\n":1}]}', "bad_name"),
        (b'{"a":"' + b"x" * merge.MAX_PATCH_BYTES + b'"}', "too_large"),
    ],
)
def test_what_is_no_patch_is_refused(content, code) -> None:
    with pytest.raises(HeadwaterError) as refused:
        merge.read(content)

    assert refused.value.code == code


def test_depth_of_sixteen_and_large_integers_are_taken() -> None:
    content = b'{"a":' * 15 + b'{"n":18446744073709551615}' + b"}" * 15

    assert b"18446744073709551615" in merge.dump(merge.read(content), "desired").encode()
