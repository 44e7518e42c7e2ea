"""Filters against the words of the standard, tried on all topics of a small alphabet."""

from __future__ import annotations

import re
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.filters import check, covers, overlap

LEVELS = ("a", "b", "")
TOPICS = ["/".join(levels) for depth in range(1, 6) for levels in product(LEVELS, repeat=depth)]
literal = st.sampled_from([*LEVELS, "+"])
filters = st.builds(
    lambda levels, ends_open: "/".join([*levels, "#"] if ends_open else levels),
    st.lists(literal, min_size=1, max_size=3),
    st.booleans(),
)


def topics_of(name: str) -> set[str]:
    """All topics that a filter matches (MQTT 5.0 s. 4.7.1.2 and 4.7.1.3), by a pattern."""
    pattern = "/".join("[^/]*" if level == "+" else level for level in name.removesuffix("/#").split("/"))
    form = re.compile(pattern + ("(/.*)?" if name.endswith("/#") else ""))
    return {topic for topic in TOPICS if form.fullmatch(topic)}


@given(filters, filters)
def test_filters_overlap_when_a_topic_belongs_to_both(one: str, other: str) -> None:
    assert overlap(one, other) is overlap(other, one) is bool(topics_of(one) & topics_of(other))


@given(filters, filters)
def test_filter_covers_another_when_it_has_all_its_topics(one: str, other: str) -> None:
    assert covers(one, other) is (topics_of(other) <= topics_of(one))


@given(filters, st.sampled_from(TOPICS))
def test_topic_is_a_filter_of_itself(name: str, topic: str) -> None:
    assert covers(name, topic) is (topic in topics_of(name))


@pytest.mark.parametrize("text", ["", "a/#/b", "a+", "a/b#", "#b", "+a/b"])
def test_wildcards_stand_for_whole_levels(text: str) -> None:
    with pytest.raises(ValueError, match="level"):
        check(text)
