"""How attributes and firmware versions are kept so that queries find them. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from devices.query.versions import order_of

MAX_FW = 256


def indexed(value: float | str) -> dict[str, Any]:
    """Give the columns of an attribute's value: its text, and its number if it is one."""
    if isinstance(value, str):
        return {"value": value, "number": None}
    number = None if isinstance(value, bool) else float(value)
    return {"value": orjson.dumps(value).decode(), "number": number}


def fw_of(reported: Mapping[str, Any], attribute: float | str | None) -> float | str | None:
    """Give the firmware version of a device: what it reports itself, else its attribute `fw`; None: unknown.

    It reports `fw`, or `firmware` as a text or as an object with a `version`.
    """
    firmware = reported.get("firmware")
    said = (reported.get("fw"), firmware.get("version") if isinstance(firmware, dict) else firmware, attribute)
    return next((each for each in said if _is_version(each)), None)


def _is_version(value: Any) -> bool:
    is_text = isinstance(value, str) and 0 < len(value) <= MAX_FW and value.isprintable()
    return is_text or (isinstance(value, int | float) and not isinstance(value, bool))


def fw_values(version: float | str | None) -> dict[str, Any]:
    """Give the columns of a device's firmware version, its order among them; None: unknown."""
    text = None if version is None else indexed(version)["value"]
    return {"fw": text, "fw_order": None if text is None else order_of(text)}
