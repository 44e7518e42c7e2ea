"""Homie's messages."""

from __future__ import annotations

from typing import Any

import orjson


def message(_protocol: str, values: dict[str, Any], ms: int) -> tuple[bytes, str]:
    """Give a property's value, or what is told of several properties: values come one by one."""
    if len(values) == 1:
        return repr(*values.values()).encode(), "homie/5/car/engine/temperature"
    properties = {name: {"datatype": "float", "unit": "V", "format": f"0:{value}"} for name, value in values.items()}
    return orjson.dumps({"nodes": {"n": {"properties": properties}}}), "homie/5/car/$description"
