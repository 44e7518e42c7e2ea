"""Tasmota's sensors as messages."""

from __future__ import annotations

from typing import Any

import orjson


def message(_protocol: str, values: dict[str, Any], ms: int) -> tuple[bytes, str]:
    """Give the values as those of one sensor."""
    return orjson.dumps({"Epoch": ms // 1_000, "ESP32": values}), "tele/attic/SENSOR"
