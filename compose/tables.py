"""Results on the terminal: JSON for programs, aligned columns for people."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

WIDEST = 60
_FRACTION = re.compile(r"(?<=^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.\d+(?=Z$)")  # of a second: for programs


def show_json(content: Any) -> None:
    """Print JSON."""
    print(json.dumps(content, indent=2, ensure_ascii=False))


def show(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool = False) -> None:
    """Print a listing; with `as_json` the rows whole, else the named columns, aligned, all but the last cut short."""
    found = list(rows)
    if as_json:
        show_json(found)
        return
    if not found:
        print("none")
        return
    table = [[column.upper().replace("_", " ") for column in columns]]
    *short, last = columns
    table += [[*(cell(row.get(column)) for column in short), clean(_flat(row.get(last)))] for row in found]
    widths = [max(len(line[i]) for line in table) for i in range(len(columns))]
    for line in table:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def cell(value: Any) -> str:
    """Render a value in one short line that cannot carry control characters to the terminal."""
    text = clean(_flat(value))
    return text if len(text) <= WIDEST else text[: WIDEST - 3] + "..."


def clean(text: str) -> str:
    """Replace what could command a terminal: device names and payloads are strangers' text."""
    return "".join(char if char.isprintable() else "?" for char in text)


def _flat(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return " ".join(f"{key}={_flat(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return ", ".join(_flat(inner) for inner in value)
    return _FRACTION.sub("", str(value))
