"""Attributes of OTLP to tags: every attribute is one, its value as text; empty ones are none."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import orjson

from ingest.protocols.flatten import Refused
from ingest.protocols.tags import MAX_TAGS, check_tag

KNOWN_TAGS = 4_096  # attributes of a fleet repeat
SHORT = 512  # characters: what is longer is not remembered


def tags_of(attributes: Iterable[Any]) -> dict[str, str]:
    """Give attributes as tags; of one key the last holds.

    Raises:
        Refused: one cannot be a tag, or they are too many.
    """
    tags: dict[str, str] = {}
    for attribute in attributes:
        text = _text_of(attribute.value)
        if type(attribute.key) is not str:
            raise Refused("bad_encoding", "the key of an attribute is not UTF-8")
        if text:
            _check(attribute.key, text)
            tags[attribute.key] = text
        if len(tags) > MAX_TAGS:
            raise Refused("too_many_fields", f"more than {MAX_TAGS} attributes")
    return tags


def _check(key: str, text: str) -> None:
    (_known if len(key) + len(text) <= SHORT else check_tag)(key, text)


_known = lru_cache(KNOWN_TAGS)(check_tag)


def _text_of(value: Any) -> str:
    plain = _plain(value)
    if type(plain) is str:
        return plain
    return "" if plain is None else orjson.dumps(plain).decode()


def _plain(value: Any) -> Any:
    """Give a value as JSON has it; the depth is bounded by the parser."""
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    given = getattr(value, kind)
    if kind == "array_value":
        return [_plain(each) for each in given.values]
    if kind == "kvlist_value":
        return {_checked(each.key): _plain(each.value) for each in given.values}
    if kind == "bytes_value":
        return b64encode(given).decode()
    return _checked(given) if kind == "string_value" else given


def _checked(text: Any) -> str:
    if type(text) is not str:
        raise Refused("bad_encoding", "a text of an attribute is not UTF-8")
    return text
