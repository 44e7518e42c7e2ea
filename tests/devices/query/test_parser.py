from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from devices.query.parser import MAX_DEPTH, MAX_TERMS, MAX_VALUES, parse
from devices.query.tree import EVERY_DEVICE, BadQuery, Compare, Contains, Every, Field, Has, Is, Not, OneOf, Some
from devices.query.words import MAX_CHARACTERS
from wire.clock import NS_PER_S, parse_time

NOW_NS = parse_time("2026-06-01T12:00:00Z")


def compare(name, operator, value, kind="text", key="", at=0):
    return Compare(Field(name, kind, key, at), operator, value)


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("", EVERY_DEVICE),
        ("  \t", EVERY_DEVICE),
        ("hall", Contains("hall")),
        ("hall 3", Every((Contains("hall"), Contains("3")))),
        ('"hall 3"', Contains("hall 3")),
        (r"'it\'s'", Contains("it's")),
        ('"and"', Contains("and")),
        ("type", Contains("type")),
        ("has", Contains("has")),
        ("type=pump", compare("type", "=", "pump")),
        ("type = 'a b'", compare("type", "=", "a b")),
        ("id~pump-*", compare("id", "~", "pump-*")),
        ("tag.site=a", compare("tag", "=", "a", "label", "site")),
        ("attr.floor>=3", compare("attr", ">=", "3", "attribute", "floor")),
        ("fw<1.2", compare("fw", "<", "1.2", "version")),
        ("online", Is("online")),
        ("OFFLINE", Not(Is("online"))),
        ("NOT gateway", Not(Is("gateway"))),
        ("has tag.x", Has(Field("tag", "label", "x", 4))),
        ("state in (active, disabled)", OneOf(Field("state", "state"), ("active", "disabled"))),
        ("id not in (a)", Not(OneOf(Field("id", "text"), ("a",)))),
        ("last_seen < 2h ago", compare("last_seen", "<", NOW_NS - 7_200 * NS_PER_S, "time")),
        ("created >= 2026-01-31", compare("created", ">=", parse_time("2026-01-31T00:00:00Z"), "time")),
        ("created < 2026-01-31T12:00+02:00", compare("created", "<", parse_time("2026-01-31T10:00:00Z"), "time")),
        ("a or b and c", Some((Contains("a"), Every((Contains("b"), Contains("c")))))),
        ("(a or b) c", Every((Some((Contains("a"), Contains("b"))), Contains("c")))),
        ("not a b", Every((Not(Contains("a")), Contains("b")))),
        ("type != pump", Not(compare("type", "=", "pump"))),
    ],
)
def test_queries_are_read(text, tree) -> None:
    assert parse(text, NOW_NS) == tree


@pytest.mark.parametrize(
    ("text", "position", "expected"),
    [
        ("(", 1, "a condition"),
        ("a)", 1, "the end"),
        ("(a", 2, "closing bracket"),
        ("a and", 5, "a condition"),
        ("or a", 0, "a condition"),
        ("a and or b", 6, "a condition"),
        ("type=", 5, "a text"),
        ("type==x", 5, "a text"),
        ("pumps=3", 0, "tag.KEY"),
        ("tag.=3", 0, "tag.KEY"),
        ("a tag.site", 10, "has before it"),
        ("tag.site<3", 8, "= != ~ in"),
        ("attr.floor<low", 11, "a number"),
        ("attr.floor<nan", 11, "a number"),
        ("fw<new", 3, "a version"),
        ("state=on", 6, "registered"),
        ("created=2026-01-01", 7, "<"),
        ("last_seen<2h", 12, "ago"),
        ("last_seen<2y ago", 10, "an age"),
        ("created<2026-02-30", 8, "an age"),
        ("id in ()", 7, "a text"),
        ("id in (a b)", 9, "a comma"),
        ('a "b', 2, "closing"),
        ("a!", 1, "not"),
        ("a\0", 1, "text"),
        ("id=\ud800", 3, "text"),
    ],
)
def test_mistakes_name_place_and_remedy(text, position, expected) -> None:
    with pytest.raises(BadQuery) as caught:
        parse(text, NOW_NS)

    assert (caught.value.extra["position"], caught.value.status, caught.value.code) == (position, 400, "bad_query")
    assert expected in caught.value.extra["expected"]


@pytest.mark.parametrize(
    "text",
    [
        "a" * (MAX_CHARACTERS + 1),
        " ".join(["a"] * (MAX_TERMS + 1)),
        "(" * (MAX_DEPTH + 1) + "a" + ")" * (MAX_DEPTH + 1),
        "not " * (MAX_DEPTH + 1) + "a",
        f"id in ({','.join(['a'] * (MAX_VALUES + 1))})",
        f"id~{'*a' * 9}",
    ],
)
def test_too_much_is_refused(text) -> None:
    with pytest.raises(BadQuery, match="more than"):
        parse(text, NOW_NS)


def test_as_much_as_is_allowed_is_read() -> None:
    parse("(" * MAX_DEPTH + "a" + ")" * MAX_DEPTH, NOW_NS)
    parse("(a) " * MAX_TERMS, NOW_NS)


WORDS = st.sampled_from(
    [
        "type",
        "id",
        "tag.site",
        "attr.x",
        "fw",
        "state",
        "group",
        "last_seen",
        "online",
        "and",
        "or",
        "not",
        "in",
        "has",
        "(",
        ")",
        ",",
        "=",
        "!=",
        "<",
        "<=",
        "~",
        "a",
        "1.2",
        "2h",
        "ago",
        "2026-01-01",
        "'",
        '"',
        "\\",
        "*",
        "?",
        "pump",
    ]
)


@settings(deadline=None)
@given(st.one_of(st.text(max_size=60), st.lists(WORDS, max_size=30).map(" ".join)))
@example("last_seen < 999999999w ago")
@example("created < 9999-12-31T23:59:60Z")
def test_any_text_is_read_or_refused(text) -> None:
    position = 0
    try:
        parse(text, NOW_NS)
    except BadQuery as error:
        position = error.extra["position"]

    assert 0 <= position <= len(text)
