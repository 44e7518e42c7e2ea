"""Messages of a Ruuvi Gateway over HTTP."""

from __future__ import annotations

import struct
from typing import Any

import orjson

OF_A_SENSOR = 10  # values, at least


def message(_protocol: str, values: dict[str, Any], ms: int) -> tuple[bytes, str]:
    """Give as many values, of as many sensors as it takes; they are the first value, in steps of a sensor's."""
    first = int(next(iter(values.values())) * 200)
    sensors = {}
    for number in range(-(-len(values) // OF_A_SENSOR)):
        head = struct.pack(">BhHHhhhHBH", 5, first, 21_396, 50_044, 4, -4, 1_036, 0xAC36, 66, number)
        data = "0201061bff9904" + head.hex() + f"cbb8334c{number:04x}"
        sensors[f"CB:B8:33:4C:00:{number:02X}"] = {"rssi": -71, "timestamp": str(ms // 1_000), "data": data}
    told = {"coordinates": "", "timestamp": str(ms // 1_000), "gw_mac": "C8:25:2D:8E:9C:2C", "tags": sensors}
    return orjson.dumps({"data": told}), ""
