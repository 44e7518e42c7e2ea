"""Zigbee2MQTT's messages."""

from __future__ import annotations

from typing import Any

import orjson


def message(_protocol: str, values: dict[str, Any], ms: int) -> tuple[bytes, str]:
    """Give the values as those of one device."""
    return orjson.dumps(values | {"last_seen": ms}), "zigbee2mqtt/attic"
