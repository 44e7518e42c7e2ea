"""Sparkplug's data messages."""

from __future__ import annotations

from typing import Any

from tests.ingest.sparkplug.made import add, payload


def message(_protocol: str, values: dict[str, Any], ms: int) -> tuple[bytes, str]:
    """Give each value as a metric, under its name; lists and objects as texts."""
    made = payload(1, ms)
    for name, value in values.items():
        add(made, name, value if isinstance(value, int | float | str) else repr(value))
    return made.SerializeToString(), "spBv1.0/g/NDATA/n"
