"""collectd's messages."""

from __future__ import annotations

from typing import Any


def message(_protocol: str, values: dict[str, Any], ms: int) -> tuple[bytes, str]:
    """Give the values as those of one type."""
    return f"{ms / 1_000:.3f}:{':'.join(map(repr, values.values()))}\0".encode(), "collectd/h/plugin/type"
