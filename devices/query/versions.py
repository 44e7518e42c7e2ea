"""The order of firmware versions, as a text that a database compares byte by byte. Pure functions."""

from __future__ import annotations

import re

MAX_KEY = 512
_VERSION = re.compile(r"[vV]?(\d[0-9A-Za-z._~-]*)(?:\+.*)?", re.ASCII)
_RUNS = re.compile(r"\d+|[A-Za-z]+", re.ASCII)
# Marks in their order: what ends a version decides between `1.2-rc1` < `1.2` < `1.2.1`, and `1.2rc1` < `1.2`.
_END_OF_PRE, _PRE, _PRE_NUMBER, _LETTERS, _END, _NUMBER = "0", "1", "2", "3", "4", "5"


def order_of(version: str) -> str | None:
    """Give the text by which a version is ordered: part by part, numbers by value. None: it is no version.

    A leading `v` and what follows `+` do not count, absent parts count as 0 (`1.2` is `1.2.0`), what follows `-` or
    `~` makes a version earlier (Semantic Versioning 2.0.0 s. 11), and so do letters after a number (`1.2rc1`).
    """
    match = _VERSION.fullmatch(version)
    if match is None:
        return None
    release, *before = re.split(r"[-~]", match[1], maxsplit=1)
    runs = _RUNS.findall(release)
    while runs and not runs[-1].strip("0"):
        runs.pop()
    key = "".join(_marked(run, _NUMBER) for run in runs)
    if before:
        key += _PRE + "".join(_marked(run, _PRE_NUMBER) for run in _RUNS.findall(before[0])) + _END_OF_PRE
    return (key + _END)[:MAX_KEY]


def _marked(run: str, number: str) -> str:
    if not run[0].isdigit():
        return f"{_LETTERS}{run.lower()}!"  # "!" sorts before every letter: rc < rcx
    digits = run.lstrip("0") or "0"
    return f"{number}{len(digits):03d}{digits}"
