"""Advertisements of Ruuvi's sensors, as its gateway relays them over MQTT and HTTP, to records. Pure.

docs.ruuvi.com: "Data format 5 (RAWv2)", "Data format 3 (RAWv1)", "Gateway firmware, data formats". A gateway speaks for
its sensors; any other sender for itself.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

from ingest.protocols import objects, parse, times
from ingest.protocols.base import MAX_RECORDS, Context, Decoded, Fault, Record
from ingest.protocols.flatten import Refused
from ingest.protocols.json.decoder import place, unreadable
from ingest.protocols.parse import Unreadable
from wire.points import FieldValue

MEASUREMENT = "ruuvi"
MANUFACTURER, COMPANY = 0xFF, b"\x99\x04"  # type of the advertisement's element, and Ruuvi's number in it
RAWV1, RAWV2 = struct.Struct(">xBBBHhhhH"), struct.Struct(">xhHHhhhHBH6x")
ABSENT_SIGNED, ABSENT, ABSENT_BYTE = -0x8000, 0xFFFF, 0xFF
ABSENT_VOLTAGE, ABSENT_POWER = 0x7FF, 0x1F
LOWEST_PA = 50_000
SIGN = 0x80


class Heard(NamedTuple):
    """One advertisement and what the gateway says of it."""

    sensor: str  # its address; empty: not told
    told: dict[str, Any]  # `data`, `rssi`, and its time as `ts` or `timestamp`


def decode(content: bytes, context: Context) -> Decoded:
    """Decode a message of a gateway: an advertisement over MQTT, those of all its sensors over HTTP."""
    topic = objects.own_topic(context)
    try:
        value, _ = parse.parse(parse.trim(content))
        heard = _heard(value, topic)
    except Unreadable as error:
        return unreadable(error)
    decoded = Decoded(is_event=True)
    for index, each in enumerate(heard):
        try:
            record = _read(index, each, context)
        except Refused as error:
            decoded.faults.append(Fault(index, error.code, error.detail))
        else:
            decoded.records += [record] if record is not None else []
    decoded.is_event = not decoded.records and not decoded.faults
    return decoded


def _heard(value: Any, topic: str) -> list[Heard]:
    """Give the advertisements of a message; none: it speaks of the gateway itself. Raises Unreadable."""
    if isinstance(value, dict) and topic.endswith("/gw_status"):
        return []
    data = value.get("data") if isinstance(value, dict) else None
    if isinstance(data, str):
        return [Heard(topic.rpartition("/")[2], value)]
    sensors = data.get("tags") if isinstance(data, dict) else None
    if not isinstance(sensors, dict) or not all(isinstance(told, dict) for told in sensors.values()):
        raise Unreadable("bad_structure", "neither `data` of one sensor nor `data.tags` of several")
    if len(sensors) > MAX_RECORDS:
        raise Unreadable("too_large", f"more than {MAX_RECORDS} sensors")
    return [Heard(sensor, told) for sensor, told in sensors.items()]


def _read(index: int, heard: Heard, context: Context) -> Record | None:
    """Read an advertisement; None: it is none of Ruuvi's, which a gateway relays when its filter is off."""
    payload = _payload(heard.told.get("data"))
    if payload is None:
        return None
    fields = _fields(payload)
    record = Record(index, fields, measurement=MEASUREMENT)
    sensor = (heard.sensor or (payload[-6:].hex(":") if len(payload) == RAWV2.size else "")).upper()
    if sensor and context.is_gateway:
        record.device = f"ruuvi:{sensor}"
    elif sensor:
        record.tags["sensor"] = sensor
    rssi = heard.told.get("rssi")
    if type(rssi) is int and ABSENT_SIGNED < rssi <= -ABSENT_SIGNED:
        fields["rssi"] = rssi
    if not fields:
        raise Refused("no_values", "the sensor gives no value")
    _set_time(record, heard.told.get("ts", heard.told.get("timestamp")), context)
    return record


def _set_time(record: Record, token: Any, context: Context) -> None:
    if token is None:
        return
    try:
        time_ns, _ = times.read(token, "s")
    except ValueError as error:
        raise Refused("bad_time", str(error)) from None
    policy = times.policy_of(context.type) if context.type is not None else times.GUARDED
    place(record, time_ns, context.received_ns, policy)


def _payload(text: Any) -> bytes | None:
    """Give what Ruuvi's element of an advertisement holds, from its data format on (Bluetooth 5.0, 3.C.11)."""
    try:
        advertised = bytes.fromhex(text)
    except (TypeError, ValueError):
        raise Refused("bad_encoding", "`data` is not hexadecimal text") from None
    at = 0
    while at + 1 < len(advertised) and advertised[at]:
        element = advertised[at + 1 : at + 1 + advertised[at]]
        if element[0] == MANUFACTURER and element[1:3] == COMPANY:
            return element[3:]
        at += 1 + advertised[at]
    return None


def _fields(payload: bytes) -> dict[str, FieldValue]:
    known = {3: (RAWV1, _rawv1), 5: (RAWV2, _rawv2)}.get(payload[0]) if payload else None
    if known is None:
        raise Refused("unsupported", f"data format {payload[:1].hex() or 'none'}; known are 03 and 05")
    layout, read = known
    if len(payload) != layout.size:
        raise Refused("bad_structure", f"{len(payload)} bytes of data format {payload[0]}, not {layout.size}")
    return {name: value for name, value in read(layout.unpack(payload)).items() if value is not None}


def _rawv1(values: tuple[int, ...]) -> dict[str, FieldValue | None]:
    humidity, whole, hundredths, pressure, *axes, voltage = values
    degrees = whole % SIGN + hundredths / 100
    return {
        "temperature": -degrees if whole & SIGN else degrees,
        "humidity": humidity / 2,
        "pressure": float(pressure + LOWEST_PA),
        **_acceleration(axes),
        "voltage": voltage / 1000,
    }


def _rawv2(values: tuple[int, ...]) -> dict[str, FieldValue | None]:
    degrees, humidity, pressure, *axes, power, movements, sequence = values
    voltage, step = power >> 5, power & ABSENT_POWER
    return {
        "temperature": None if degrees == ABSENT_SIGNED else degrees / 200,
        "humidity": None if humidity == ABSENT else humidity / 400,
        "pressure": None if pressure == ABSENT else float(pressure + LOWEST_PA),
        **_acceleration(axes),
        "voltage": None if voltage == ABSENT_VOLTAGE else (voltage + 1600) / 1000,
        "tx_power": None if step == ABSENT_POWER else 2 * step - 40,
        "movements": None if movements == ABSENT_BYTE else movements,
        "sequence": None if sequence == ABSENT else sequence,
    }


def _acceleration(axes: Sequence[int]) -> dict[str, FieldValue | None]:
    named = zip(("acceleration_x", "acceleration_y", "acceleration_z"), axes, strict=True)
    return {name: None if value == ABSENT_SIGNED else value / 1000 for name, value in named}
