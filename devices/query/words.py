"""A query's text cut into words, quoted texts, operators and brackets, each with its place."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from devices.query.tree import BadQuery

MAX_CHARACTERS = 2_000
_TOKEN = re.compile(
    r"""(?P<blank>\s+)|(?P<quoted>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(?P<operator>!=|<=|>=|[=<>~])"""
    r"""|(?P<bracket>[(),])|(?P<word>[^\s"'=<>~(),!]+)""",
    re.DOTALL,
)
_UNUSABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


@dataclass(slots=True, frozen=True)
class Token:
    """A piece of the text; `at` counts characters from 0."""

    kind: Literal["word", "quoted", "operator", "bracket", "end"]
    text: str
    at: int
    length: int

    def is_word(self, *words: str) -> bool:
        """Tell whether it is one of these words, in any case and not quoted."""
        return self.kind == "word" and self.text.lower() in words

    def is_bracket(self, text: str) -> bool:
        """Tell whether it is this bracket or comma."""
        return self.kind == "bracket" and self.text == text


def cut(text: str) -> list[Token]:
    """Cut a query into tokens; the last one is its end.

    Raises:
        BadQuery: it is too long, or a character has no place in a query.
    """
    if len(text) > MAX_CHARACTERS:
        raise BadQuery(f"the query has more than {MAX_CHARACTERS} characters", MAX_CHARACTERS, 1, "")
    unusable = _UNUSABLE.search(text)
    if unusable is not None:
        raise BadQuery("a control character", unusable.start(), 1, "text")
    tokens, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise _stray(text, at)
        if match.lastgroup != "blank":
            tokens.append(_token(match))
        at = match.end()
    return [*tokens, Token("end", "", len(text), 0)]


def _token(match: re.Match[str]) -> Token:
    text, kind = match[0], match.lastgroup
    if kind == "quoted":
        text = re.sub(r"\\(.)", r"\1", text[1:-1])
    return Token(kind, text, match.start(), len(match[0]))  # type: ignore[arg-type]


def _stray(text: str, at: int) -> BadQuery:
    if text[at] in "\"'":
        return BadQuery("the quotation is not closed", at, len(text) - at, f"a closing {text[at]}")
    return BadQuery(f"stray {text[at]!r}", at, 1, "!= or the word not")
