"""Readings as bytes, in the payload formats that simulated devices speak."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import cbor2
import msgpack
import orjson

from simulators import sparkplug
from simulators.scenario import Model

Render = Callable[[float], Any]  # the time that the thing lives in -> its values, ready for the other
Write = Callable[[int, str, int, Any], bytes]  # time, boot_id, seq, values -> a message
_PAD = b',"pad":"%s"}}'


class Format(NamedTuple):
    """How a protocol's messages are made, and what they are called over HTTP."""

    media_type: str
    encode: Callable[[Any], bytes] | None = None  # None: JSON, which is put together from pieces
    path: str = "/v1/telemetry"  # %t: the reading's time in ns


MILLIS_BELOW = 10**14  # a time below it is in ms, else in us


def to_ns(ts: int) -> int:
    """Give a reading's time in ns."""
    return ts * (1_000_000 if ts < MILLIS_BELOW else 1_000)


def encode_line(reading: dict[str, Any]) -> bytes:
    """Encode a reading in InfluxDB's line protocol; lists and objects in it become texts of JSON."""
    numbered = {name: reading[name] for name in ("boot_id", "seq") if name in reading}
    fields = ",".join(f"{_key(name)}={_value(value)}" for name, value in (numbered | reading["values"]).items())
    return f"telemetry {fields} {to_ns(reading['ts'])}".encode()


def _key(name: str) -> str:
    return name.replace(",", "\\,").replace("=", "\\=").replace(" ", "\\ ")


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value}i"
    if isinstance(value, float):
        return repr(value)
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def to_pack(reading: dict[str, Any]) -> list[dict[str, Any]]:
    """Give a reading as a SenML pack: a record for each value, under the sender's own names; lists become texts."""
    pack = [{"n": _SENML_ODD.sub("_", name), **_senml(value)} for name, value in reading["values"].items()]
    return [{"bt": _seconds(reading["ts"])} | pack[0], *pack[1:]] if pack else []


def _senml(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"vb": value}
    if isinstance(value, int | float):
        return {"v": value}
    return {"vs": value if isinstance(value, str) else orjson.dumps(value).decode()}


def encode_thingsboard(reading: dict[str, Any]) -> bytes:
    """Encode a reading as ThingsBoard's SDK does: alone in a list, its time in ms, what numbers it among the values."""
    ts, numbered = reading["ts"], {name: reading[name] for name in ("boot_id", "seq") if name in reading}
    at_ms = ts if ts < MILLIS_BELOW else ts / 1_000
    return orjson.dumps([{"ts": at_ms, "values": numbered | reading["values"]}])


def encode_picture(reading: dict[str, Any]) -> bytes:
    """Encode a reading as a snapshot: a PNG that tells it in a comment (PNG 1.2, s. 4.2.3.1)."""
    head = struct.pack(">IIBBBBB", _SIDE, _SIDE, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(_SIDE * (1 + _SIDE)), 1)
    told = b"Comment\0" + orjson.dumps(reading)
    chunks = ((b"IHDR", head), (b"tEXt", told), (b"IDAT", rows), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, content) for name, content in chunks)


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


_SIDE = 32  # pixels


def _seconds(ts: int) -> float:
    return ts / (1_000 if ts < MILLIS_BELOW else 1_000_000)


def _tasmota(reading: dict[str, Any]) -> bytes:
    """Encode a reading as that of a sensor."""
    return orjson.dumps({"Epoch": _seconds(reading["ts"]), "SIM": reading["values"], "TempUnit": "C"})


def _shelly(reading: dict[str, Any]) -> bytes:
    """Encode a reading as the change of a component."""
    params = {"ts": _seconds(reading["ts"]), "sim:0": {"id": 0} | reading["values"]}
    return orjson.dumps(
        {"src": "shellysim-000000000000", "dst": "x/events", "method": "NotifyStatus", "params": params}
    )


_SENML_ODD = re.compile(r"[^A-Za-z0-9_-]")


FORMATS = {
    "json": Format("application/json"),
    "cbor": Format("application/cbor", cbor2.dumps),
    "line": Format("text/plain", encode_line, "/api/v2/write?org=sim&bucket=sim&precision=ns"),
    "media": Format("image/png", encode_picture, "/v1/media?channel=sim&time=%t"),
    "msgpack": Format("application/msgpack", msgpack.packb),
    "senml": Format("application/senml+json", lambda reading: orjson.dumps(to_pack(reading))),
    "sparkplug": Format("", sparkplug.encode),  # over MQTT only
    "senml-cbor": Format("application/senml+cbor", lambda reading: cbor2.dumps(to_pack(reading))),
    "thingsboard": Format("application/json", encode_thingsboard, "/v1/telemetry/thingsboard"),
    "shelly": Format("application/json", _shelly, "/v1/telemetry/shelly"),
    "tasmota": Format("application/json", _tasmota, "/v1/telemetry/tasmota"),
    "zigbee2mqtt": Format(
        "application/json",
        lambda reading: orjson.dumps(reading["values"] | {"last_seen": reading["ts"]}),
        "/v1/telemetry/zigbee2mqtt",
    ),
}


def speak(protocol: str, model: Model, size: int = 0) -> tuple[Render, Write]:
    """Give how a thing's values are taken, and how a message is made of them, padded to `size` bytes."""
    encode = FORMATS[protocol].encode
    if encode is not None:
        return model.values, _binary(encode, size)
    own: Render | None = getattr(model, "render", None)
    return own or (lambda at_s: orjson.dumps(model.values(at_s))), _json(size)


@cache  # one for all devices, not one each
def _json(size: int) -> Write:
    def write(ts: int, boot_id: str, seq: int, values: bytes) -> bytes:
        content = b'{"ts":%d,"boot_id":"%s","seq":%d,"values":%s}' % (ts, boot_id.encode(), seq, values)
        if size > len(content):
            content = content[:-2] + _PAD % (b"x" * (size - len(content) - len(_PAD) + 4))
        return content

    return write


@cache
def _binary(encode: Callable[[Any], bytes], size: int) -> Write:
    def write(ts: int, boot_id: str, seq: int, values: dict[str, Any]) -> bytes:
        reading = {"ts": ts, "boot_id": boot_id, "seq": seq, "values": values}
        content = encode(reading)
        if size > len(content):
            values["pad"] = ""
            values["pad"] = "x" * (size - len(encode(reading)))  # its own length may take four bytes more
            content = encode(reading)
        return content

    return write
