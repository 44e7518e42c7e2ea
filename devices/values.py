"""Devices as the rows that keep them."""

from __future__ import annotations

from typing import Any

import orjson

from devices.query.values import indexed
from devices.rows import NewDevice
from wire.registry import DeviceView


def device_values(tenant: str, device: NewDevice | DeviceView, now_ns: int) -> dict[str, Any]:
    """Give the columns of a device, but for its firmware version."""
    return {
        "tenant": tenant,
        "id": device.id,
        "type": device.type,
        "gateway": device.gateway,
        "state": _stored_state(device.state),
        "tags": orjson.dumps(device.tags).decode(),
        "attributes": orjson.dumps(device.attributes).decode(),
        "search": "\n".join([device.id, device.type or "", *device.tags.values()]).lower(),
        "created_ns": now_ns,
        "updated_ns": now_ns,
    }


def _stored_state(state: str) -> str:
    """Give what is stored: that a device was never seen is not, presence tells it."""
    return "active" if state == "registered" else state


def tag_rows(tenant: str, device: NewDevice | DeviceView) -> list[dict[str, Any]]:
    """Give its tags as rows by which they are found."""
    named = device.tags.items()
    return [{"tenant": tenant, "device": device.id, "key": key, "value": value} for key, value in named]


def attribute_rows(tenant: str, device: NewDevice | DeviceView) -> list[dict[str, Any]]:
    """Give its attributes as rows by which they are found."""
    of_device = {"tenant": tenant, "device": device.id}
    return [of_device | {"key": key, **indexed(value)} for key, value in device.attributes.items()]
