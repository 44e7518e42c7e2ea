"""How attributes are kept so that queries find them. Pure functions."""

from __future__ import annotations

from typing import Any

import orjson

from devices.query.versions import order_of


def indexed(value: float | str) -> dict[str, Any]:
    """Give the columns of an attribute's value: its text, and its number if it is one."""
    if isinstance(value, str):
        return {"value": value, "number": None}
    number = None if isinstance(value, bool) else float(value)
    return {"value": orjson.dumps(value).decode(), "number": number}


def fw_values(version: float | str | None) -> dict[str, Any]:
    """Give the columns of a device's firmware version, its order among them; None: unknown."""
    text = None if version is None else indexed(version)["value"]
    return {"fw": text, "fw_order": None if text is None else order_of(text)}
