"""Uplinks of LoRaWAN network servers."""

from __future__ import annotations

from typing import Any

import orjson

EUI = "a84041000181c061"
CHIRPSTACK = {"deviceInfo": {"devEui": EUI}}
TTS = {"end_device_ids": {"device_id": "d", "application_ids": {"application_id": "a"}}}


def message(protocol: str, values: dict[str, Any], _ms: int) -> tuple[bytes, str]:
    """Give the values as what the server's codec decoded."""
    if protocol == "chirpstack":
        return orjson.dumps(CHIRPSTACK | {"object": values}), f"application/a/device/{EUI}/event/up"
    return orjson.dumps(TTS | {"uplink_message": {"decoded_payload": values}}), "v3/a@t/devices/d/up"
