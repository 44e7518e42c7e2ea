r"""The grammar of the line protocol: text to lines, a line to its parts. Knows no reading, device or time unit.

`measurement[,tag=value]* field=value[,field=value]* [time]`. A backslash before `,` or a blank, in keys and values of
tags also before `=`, takes its meaning away; in strings before `"` and `\`. Any other backslash is itself. Read in the
reference of InfluxDB v2 and held against the parsers of InfluxDB 1.2 and Telegraf (docs/protocols.md names the cases).

Every expression is possessive: a line is walked once, whatever it holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from ingest.protocols.flatten import Refused, is_name
from ingest.protocols.tags import MAX_TAGS, check_tag

KNOWN_HEADS = 4_096  # a device begins its lines alike, again and again
KNOWN_KEYS = 4_096
SHORT = 512  # characters: what is longer is not remembered

_HEAD = r"(?:[^ \\\n]++|\\[ ,=]?+)++"
_KEY = r"(?:[^,= \\\n]++|\\[,= ]?+)++"
_STRING = r'"(?:[^"\\]++|\\.)*+"'
_FIELD = rf'{_KEY}=(?:{_STRING}|[^, "\\\n]++)'
_NUMBER = r"[-+]?(?:[0-9]++\.?[0-9]*+|\.[0-9]++)(?:[eE][-+]?[0-9]++)?"

# A quote opens a string behind `=` only, and only where it is closed again: elsewhere a line ends with its line feed.
_IN_LINE = rf'[^\n="\\]++|={_STRING}|\\[ ,=]?+|[="]'
_LINE = re.compile(rf"[ \t]*+(?:#[^\n]*+|(?:{_HEAD})?(?:{_IN_LINE})*+)(?:\n|\Z)", re.DOTALL)
_PARTS = re.compile(rf"({_HEAD}) ++({_FIELD}(?:,{_FIELD})*+)(?: ++(-?[0-9]++))? *+", re.DOTALL)
_FIELDS = re.compile(rf'({_KEY})=(?:({_NUMBER})|([-+]?[0-9]++)i|([0-9]++)u|([^,"]++)|({_STRING}))(?:,|\Z)', re.DOTALL)
_TAG = re.compile(rf"({_KEY})=({_KEY})", re.DOTALL)
_NEXT_FIELD = re.compile(rf"{_FIELD}(,?)", re.DOTALL)
_BEFORE_FIELDS = re.compile(rf"{_HEAD} ++")
_COMMA = re.compile(r"(?<!\\),")
_ESCAPED = re.compile(r"\\([,= ])")
_ESCAPED_IN_NAME = re.compile(r"\\([, ])")
_ESCAPED_IN_STRING = re.compile(r'\\(["\\])')

Field = tuple[str, str, str, str, str, str]  # key, and of these one: number, digits of `i`, of `u`, word, string


class Parts(NamedTuple):
    """A line apart; nothing but names and tags is read yet."""

    measurement: str
    tags: dict[str, str]  # shared by lines that begin alike: not to be changed
    fields: list[Field]
    time: str  # empty: none


def lines(text: str) -> Iterator[tuple[int, str]]:
    """Give the lines that are neither blank nor comments, and the number of the first physical line of each, from 0."""
    number = 0
    for line in _LINE.findall(text) if '"' in text else text.split("\n"):
        inner = line.strip(" \t\r\n")
        if inner and inner[0] != "#":
            yield number, inner
        number += line.count("\n") if '"' in text else 1


def parse(line: str) -> Parts:
    """Take a line apart.

    Raises:
        Refused: it is not one, or its measurement or tags cannot be such.
    """
    found = _PARTS.fullmatch(line)
    if found is None:
        raise Refused("bad_syntax", _explain(line))
    head, fields, time = found.groups("")
    measurement, tags = _known_head(head) if len(head) <= SHORT else _read_head(head)
    return Parts(measurement, tags, _FIELDS.findall(fields), time)


def field_name(key: str) -> str:
    """Give the name that a field's key stands for; empty: it cannot be one."""
    return _known_name(key) if len(key) <= SHORT else ""


def unquote(string: str) -> str:
    """Give what a string with its quotes stands for."""
    return _ESCAPED_IN_STRING.sub(r"\1", string[1:-1]) if "\\" in string else string[1:-1]


@lru_cache(KNOWN_KEYS)
def _known_name(key: str) -> str:
    name = _ESCAPED.sub(r"\1", key)
    return name if is_name(name) else ""


def _read_head(head: str) -> tuple[str, dict[str, str]]:
    name, *pairs = _COMMA.split(head) if "\\" in head else head.split(",")
    measurement = _ESCAPED_IN_NAME.sub(r"\1", name)
    if not measurement:
        raise Refused("bad_syntax", "no measurement")
    if not is_name(measurement):
        raise Refused("bad_name", "a measurement is 1 to 256 bytes without control characters")
    if len(pairs) > MAX_TAGS:
        raise Refused("too_many_fields", f"more than {MAX_TAGS} tags")
    tags = dict(map(_read_tag, pairs))
    if len(tags) < len(pairs):
        raise Refused("bad_syntax", "a tag stands there twice")
    return measurement, tags


_known_head = lru_cache(KNOWN_HEADS)(_read_head)


def _read_tag(pair: str) -> tuple[str, str]:
    found = _TAG.fullmatch(pair)
    if found is None:
        raise Refused("bad_syntax", "a tag is `key=value`, neither of them empty")
    key, value = (_ESCAPED.sub(r"\1", part) for part in found.groups())
    check_tag(key, value)
    return key, value


def _explain(line: str) -> str:
    """Say what keeps a line from being one, as far as can be told."""
    head = _BEFORE_FIELDS.match(line)
    if head is None:
        return "no field: a line is `measurement[,tag=value] field=value [time]`"
    at, count, comma = head.end(), 0, ","
    while comma and (found := _NEXT_FIELD.match(line, at)):
        at, count, comma = found.end(), count + 1, found[1]
    if not comma:
        return f"behind field {count} comes neither a comma nor a time"
    if line[at:].partition("=")[2].startswith('"'):
        return f"field {count + 1} is a string without its closing quote"
    return f"field {count + 1} is not `key=value`"
