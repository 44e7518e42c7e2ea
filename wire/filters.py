"""MQTT topic filters (MQTT 5.0 s. 4.7): what they match, and which have topics in common. Pure.

For filters whose first level is literal: topics that begin with `$` are no concern of them.
"""

from __future__ import annotations

from itertools import zip_longest


def covers(wide: str, narrow: str) -> bool:
    """Tell whether all topics of one filter are topics of another; a topic is a filter of itself."""
    for mine, theirs in zip_longest(wide.split("/"), narrow.split("/")):
        if mine == "#":  # also the level above it: `a/#` matches `a`
            return True
        if mine is None or theirs is None or theirs == "#" or mine not in ("+", theirs):
            return False
    return True


def overlap(one: str, other: str) -> bool:
    """Tell whether any topic belongs to both filters."""
    for mine, theirs in zip_longest(one.split("/"), other.split("/")):
        if mine == "#" or theirs == "#":
            return True
        if mine is None or theirs is None or (mine != theirs and "+" not in (mine, theirs)):
            return False
    return True


def check(text: str) -> str:
    """Give a filter back when it is one (s. 4.7.1).

    Raises:
        ValueError: it is none, with the reason.
    """
    levels = text.split("/")
    if not text or any(len(level) > 1 and not {"+", "#"}.isdisjoint(level) for level in levels):
        raise ValueError("a topic filter is levels with `/` between them; `+` and `#` stand for whole levels")
    if "#" in levels[:-1]:
        raise ValueError("`#` can only be the last level of a topic filter")
    return text
