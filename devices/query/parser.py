"""Reads a query: `type=pump and tag.site=a and not online and fw<1.2`. Knows no SQL and no database.

or < and < not; conditions that stand side by side are joined by `and`. Values become of their field's kind here, so a
mistake is told with its place.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import get_args

from devices.query import words
from devices.query.tree import (
    EVERY_DEVICE,
    BadQuery,
    Compare,
    Contains,
    Every,
    Field,
    Has,
    Is,
    Kind,
    Node,
    Not,
    OneOf,
    Some,
    Value,
)
from devices.query.versions import order_of
from devices.query.words import Token
from wire.clock import NS_PER_S, parse_rfc3339
from wire.devices import DeviceState
from wire.presence import PresenceState

MAX_TERMS = 64
MAX_DEPTH = 16  # of brackets and nots
MAX_VALUES = 100  # of one `in (..)`
MAX_STARS = 8  # a pattern with very many is slow to refute
KINDS: dict[str, Kind] = {
    "id": "text",
    "type": "text",
    "parent": "text",
    "name": "text",
    "state": "state",
    "presence": "presence",
    "group": "group",
    "fw": "version",
    "created": "time",
    "last_seen": "time",
}
KEYED: dict[str, Kind] = {"tag": "label", "attr": "attribute"}
MARKS = ("online", "offline", "gateway")
STATES: tuple[str, ...] = get_args(DeviceState)
PRESENCES = (*get_args(PresenceState), "never_seen")
OPERATORS: dict[Kind, tuple[str, ...]] = {
    "text": ("=", "!=", "~", "in"),
    "label": ("=", "!=", "~", "in"),
    "attribute": ("=", "!=", "<", "<=", ">", ">=", "~", "in"),
    "state": ("=", "!=", "in"),
    "presence": ("=", "!=", "in"),
    "group": ("=", "!=", "in"),
    "version": ("=", "!=", "<", "<=", ">", ">=", "~", "in"),
    "time": ("<", "<=", ">", ">="),
}
_FIELDS = "one of " + ", ".join([*KINDS, *(f"{name}.KEY" for name in KEYED), *MARKS])
_KEY = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
_SPAN = re.compile(r"(\d{1,9})([smhdw])", re.ASCII)
_UNIT_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_MINUTE = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d)(Z|[+-]\d\d:\d\d)?", re.ASCII)


def parse(text: str, now_ns: int) -> Node:
    """Read a query; `2h ago` is counted from `now_ns`. An empty one means every device.

    Raises:
        BadQuery: it cannot be read, or is too long or too deep.
    """
    return _Parser(words.cut(text), now_ns).parse()


class _Parser:
    def __init__(self, tokens: list[Token], now_ns: int) -> None:
        self._tokens = tokens
        self._now_ns = now_ns
        self._at = 0
        self._terms = 0
        self._depth = 0

    def parse(self) -> Node:
        if len(self._tokens) == 1:
            return EVERY_DEVICE
        tree = self._some()
        if self._next.kind != "end":
            raise _unexpected(self._next, "and, or, or the end")
        return tree

    @property
    def _next(self) -> Token:
        return self._tokens[self._at]

    def _take(self) -> Token:
        token = self._tokens[self._at]
        self._at += token.kind != "end"
        return token

    def _some(self) -> Node:
        parts = [self._every()]
        while self._next.is_word("or"):
            self._take()
            parts.append(self._every())
        return parts[0] if len(parts) == 1 else Some(tuple(parts))

    def _every(self) -> Node:
        parts = [self._one()]
        while not (self._next.kind == "end" or self._next.is_word("or") or self._next.is_bracket(")")):
            if self._next.is_word("and"):
                self._take()
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else Every(tuple(parts))

    def _one(self) -> Node:
        token = self._next
        if token.is_word("not"):
            self._take()
            return self._deeper(token, lambda: Not(self._one()))
        if token.is_bracket("("):
            self._take()
            return self._deeper(token, self._bracketed)
        self._terms += 1
        if self._terms > MAX_TERMS:
            raise BadQuery(f"more than {MAX_TERMS} conditions", token.at, token.length, "")
        return self._condition()

    def _deeper(self, token: Token, read: Callable[[], Node]) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise BadQuery(f"more than {MAX_DEPTH} levels of brackets and nots", token.at, token.length, "")
        found = read()
        self._depth -= 1
        return found

    def _bracketed(self) -> Node:
        tree = self._some()
        if not self._next.is_bracket(")"):
            raise _unexpected(self._next, "and, or, or a closing bracket")
        self._take()
        return tree

    def _condition(self) -> Node:
        token = self._take()
        if token.kind not in ("word", "quoted") or token.is_word("and", "or", "in"):
            raise _unexpected(token, "a condition such as type=pump, or a text to search for")
        operator = self._operator()
        if operator is not None:
            return self._comparison(_field(token), operator)
        if token.is_word("has") and self._next.kind == "word" and not self._next.is_word("and", "or", "not"):
            return Has(_field(self._take()))
        if token.is_word(*MARKS):
            return Not(Is("online")) if token.is_word("offline") else Is(token.text.lower())
        if token.kind == "word" and token.text.startswith(tuple(f"{name}." for name in KEYED)):
            rest = f"a comparison such as {token.text[:80]}=a, or has before it"
            raise BadQuery(f"{token.text[:80]} says nothing yet", token.at + token.length, 0, rest)
        return Contains(token.text)

    def _operator(self) -> Token | None:
        """Take an operator, `in` and `not in` among them, if one is next."""
        if self._next.kind == "operator":
            return self._take()
        ahead = self._tokens[self._at : self._at + 3]
        has_not = ahead[0].is_word("not")
        if len(ahead) > has_not + 1 and ahead[has_not].is_word("in") and ahead[has_not + 1].is_bracket("("):
            self._at += 1 + has_not
            return Token("operator", "not in" if has_not else "in", ahead[0].at, ahead[0].length)
        return None

    def _comparison(self, field: Field, operator: Token) -> Node:
        known = OPERATORS[field.kind]
        if operator.text.removeprefix("not ") not in known:
            raise BadQuery(f"{_name(field)} is not compared by {operator.text}", operator.at, operator.length,
                           " ".join(known))  # fmt: skip
        if operator.text.endswith("in"):
            chosen = OneOf(field, self._values(field))
            return Not(chosen) if operator.text == "not in" else chosen
        value = self._value(field, operator.text)
        if operator.text == "!=":
            return Not(Compare(field, "=", value))
        return Compare(field, operator.text, value)  # type: ignore[arg-type]

    def _values(self, field: Field) -> tuple[Value, ...]:
        bracket = self._take()
        values = [self._value(field, "=")]
        while self._next.is_bracket(","):
            self._take()
            values.append(self._value(field, "="))
        if not self._next.is_bracket(")"):
            raise _unexpected(self._next, "a comma or a closing bracket")
        self._take()
        if len(values) > MAX_VALUES:
            raise BadQuery(f"more than {MAX_VALUES} values", bracket.at, 1, "")
        return tuple(values)

    def _value(self, field: Field, operator: str) -> Value:
        token = self._take()
        if token.kind not in ("word", "quoted"):
            raise _unexpected(token, _EXPECTED[field.kind])
        if field.kind == "time":
            return self._moment(token)
        _check(field, operator, token)
        return token.text

    def _moment(self, token: Token) -> int:
        span = _SPAN.fullmatch(token.text)
        if span is not None and token.kind == "word":
            if not self._next.is_word("ago"):
                raise _unexpected(self._next, f"ago, as in {token.text} ago")
            self._take()
            return max(0, self._now_ns - int(span[1]) * _UNIT_S[span[2]] * NS_PER_S)
        text = token.text + "T00:00:00Z" if _DAY.fullmatch(token.text) else token.text
        text = _MINUTE.sub(r"\1:00\2", text) if _MINUTE.fullmatch(text) else text
        try:
            return parse_rfc3339(text)[0]
        except ValueError:
            raise _unexpected(token, _EXPECTED["time"]) from None


_EXPECTED: dict[Kind, str] = {
    "text": "a text",
    "label": "a text",
    "attribute": "a text or a number",
    "state": "one of " + ", ".join(STATES),
    "presence": "one of " + ", ".join(PRESENCES),
    "group": "the name of a group",
    "version": "a version such as 1.2.3",
    "time": "an age such as 2h ago, or a time such as 2026-01-31 or 2026-01-31T12:00Z",
}


def to_number(text: str) -> float | None:
    """Read a finite decimal number; None: it is none."""
    if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text, re.ASCII):
        return None
    number = float(text)
    return number if math.isfinite(number) else None


def _check(field: Field, operator: str, token: Token) -> None:
    """Refuse a value that does not fit its field."""
    is_order = operator in ("<", "<=", ">", ">=")
    if field.kind == "attribute" and is_order and to_number(token.text) is None:
        raise _unexpected(token, "a number")
    if field.kind == "version" and is_order and order_of(token.text) is None:
        raise _unexpected(token, _EXPECTED["version"])
    words = {"state": STATES, "presence": PRESENCES}.get(field.kind)
    if words is not None and token.text not in words:
        raise _unexpected(token, _EXPECTED[field.kind])
    if operator == "~" and token.text.count("*") > MAX_STARS:
        raise BadQuery(f"more than {MAX_STARS} stars in a pattern", token.at, token.length, "")


def _field(token: Token) -> Field:
    name, dot, key = token.text.partition(".")
    if token.kind == "word" and dot and name in KEYED and _KEY.fullmatch(key):
        return Field(name, KEYED[name], key, token.at)
    if token.kind != "word" or token.text not in KINDS:
        raise BadQuery(f"no field {token.text[:80]!r}", token.at, token.length, _FIELDS)
    return Field(token.text, KINDS[token.text], "", token.at)


def _name(field: Field) -> str:
    return f"{field.name}.{field.key}" if field.key else field.name


def _unexpected(token: Token, expected: str) -> BadQuery:
    if token.kind == "end":
        return BadQuery("the query ends", token.at, 0, expected)
    return BadQuery(f"unexpected {token.text[:80]!r}", token.at, token.length, expected)
