"""Messages of Home Assistant's discovery."""

from __future__ import annotations

from typing import Any

import orjson


def message(_protocol: str, values: dict[str, Any], ms: int) -> tuple[bytes, str]:
    """Give what is told of fields of these names."""
    told = {name: {"name": name, "unit_of_meas": "V", "max": value, "val_tpl": f"{{{{ value_json.{name} }}}}"}
            for name, value in values.items()}  # fmt: skip
    return orjson.dumps({"stat_t": "zigbee2mqtt/attic", "cmps": told}), "homeassistant/device/attic/config"
