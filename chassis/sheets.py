"""CSV for spreadsheets: text that a spreadsheet would run as a formula is marked as text. Knows no domain."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a cell begins with that a spreadsheet runs (OWASP, CSV injection)
Cell = str | int | float | None


def to_csv(rows: Iterable[Sequence[Cell]]) -> bytes:
    """Write rows (RFC 4180, UTF-8); a text that begins like a formula gets an apostrophe before it, numbers do not."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows([_guard(cell) for cell in row] for row in rows)
    return text.getvalue().encode()


def _guard(cell: Cell) -> Cell:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell
