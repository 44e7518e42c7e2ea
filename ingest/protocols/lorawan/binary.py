"""ChirpStack v4's events in Protocol Buffers, given as the objects that its JSON would have been, and its commands.

Numbers are those of its `integration.proto`, `gw.proto`, `common.proto` and of `google/protobuf/struct.proto`; only
what is read is declared. In proto3 an absent number is zero.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from typing import Any

from ingest.protocols import protobuf
from ingest.protocols.flatten import Refused
from wire import clock

F = protobuf.Field
_TIMES = range(-(2**33), 2**33)  # seconds that 64 bits of nanoseconds hold
_HEAD = [F(2, "time", "Time"), F(3, "device_info", "DeviceInfo")]
_CLASSES = protobuf.declare(
    "headwater.chirpstack",
    {
        "Time": [F(1, "seconds", "i64"), F(2, "nanos", "i32")],
        "DeviceInfo": [F(8, "dev_eui", "string")],
        "Struct": [F(1, "fields", "Entry", is_many=True)],
        "Entry": [F(1, "key", "string"), F(2, "value", "Value")],
        "Value": [
            F(1, "null_value", "i32", choice="kind"),
            F(2, "number_value", "double", choice="kind"),
            F(3, "string_value", "string", choice="kind"),
            F(4, "bool_value", "bool", choice="kind"),
            F(5, "struct_value", "Struct", choice="kind"),
            F(6, "list_value", "List", choice="kind"),
        ],
        "List": [F(1, "values", "Value", is_many=True)],
        "Heard": [F(3, "gw_time", "Time"), F(6, "rssi", "i32"), F(7, "snr", "float")],
        "Location": [
            F(1, "latitude", "double"),
            F(2, "longitude", "double"),
            F(3, "altitude", "double"),
            F(5, "accuracy", "float"),
        ],
        "Up": [
            *_HEAD,
            F(6, "dr", "u32"),
            F(7, "f_cnt", "u32"),
            F(8, "f_port", "u32"),
            F(10, "data", "bytes"),
            F(11, "object", "Struct"),
            F(12, "rx_info", "Heard", is_many=True),
        ],
        "Ack": [*_HEAD, F(4, "queue_item_id", "string"), F(5, "acknowledged", "bool")],
        "TxAck": [*_HEAD, F(4, "queue_item_id", "string")],
        "Log": [F(2, "device_info", "DeviceInfo")],
        "Status": [
            *_HEAD,
            F(5, "margin", "i32"),
            F(6, "external_power_source", "bool"),
            F(7, "battery_level_unavailable", "bool"),
            F(8, "battery_level", "float"),
        ],
        "Located": [*_HEAD, F(4, "location", "Location")],
        "Other": [*_HEAD],
        "Command": [
            F(1, "id", "string"),
            F(2, "dev_eui", "string"),
            F(3, "confirmed", "bool"),
            F(4, "f_port", "u32"),
            F(5, "data", "bytes"),
            F(6, "object", "Struct"),
        ],
    },
)
EVENTS = {
    "up": "Up", "ack": "Ack", "txack": "TxAck", "log": "Log", "status": "Status", "location": "Located",
}  # fmt: skip


def is_binary(content: bytes) -> bool:
    """Tell whether an event is no JSON: its first message would be an object, or an array of them."""
    return content.lstrip()[:1] not in (b"{", b"[", b"")


def read(kind: str, content: bytes) -> dict[str, Any]:
    """Read an event of a kind as the object that its JSON would have been.

    Raises:
        Unreadable: it is none.
        Refused: its time or object cannot be taken.
    """
    message = protobuf.read(_CLASSES[EVENTS.get(kind, "Other")], content, "an event of ChirpStack")
    value: dict[str, Any] = {"deviceInfo": {"devEui": message.device_info.dev_eui}}
    if kind != "log" and message.HasField("time"):
        value["time"] = _time(message.time)
    further = _FURTHER.get(kind)
    return value | further(message) if further is not None else value


def dump_command(told: Mapping[str, Any]) -> bytes:
    """Write a command for the queue, given as its JSON."""
    command = _CLASSES["Command"](
        id=told["id"], dev_eui=told["devEui"], confirmed=told["confirmed"], f_port=told["fPort"]
    )
    if "data" in told:
        command.data = b64decode(told["data"])
    else:
        _fill(command.object, told["object"])
    content: bytes = command.SerializeToString()
    return content


def _up(message: Any) -> dict[str, Any]:
    value = {"dr": message.dr, "fCnt": message.f_cnt, "fPort": message.f_port}
    value |= {"data": b64encode(message.data).decode(), "rxInfo": [_heard(each) for each in message.rx_info]}
    return value | ({"object": _struct(message.object)} if message.HasField("object") else {})


def _heard(heard: Any) -> dict[str, Any]:
    value: dict[str, Any] = {"rssi": heard.rssi, "snr": heard.snr}
    return value | ({"gwTime": _time(heard.gw_time)} if heard.HasField("gw_time") else {})


def _status(message: Any) -> dict[str, Any]:
    value = {"margin": message.margin, "externalPowerSource": message.external_power_source}
    return value | ({} if message.battery_level_unavailable else {"batteryLevel": message.battery_level})


def _located(message: Any) -> dict[str, Any]:
    place = message.location
    found = {name: getattr(place, name) for name in ("latitude", "longitude", "altitude", "accuracy")}
    return {"location": found} if message.HasField("location") else {}


_FURTHER: dict[str, Callable[[Any], dict[str, Any]]] = {
    "up": _up,
    "status": _status,
    "location": _located,
    "ack": lambda message: {"queueItemId": message.queue_item_id, "acknowledged": message.acknowledged},
    "txack": lambda message: {"queueItemId": message.queue_item_id},
}


def _time(time: Any) -> str:
    if time.seconds not in _TIMES or not 0 <= time.nanos < clock.NS_PER_S:
        raise Refused("bad_time", "a time outside 64 bits of nanoseconds")
    return clock.format_ns(time.seconds * clock.NS_PER_S + time.nanos)


def _struct(struct: Any) -> dict[str, Any]:
    """Give an object; the parser takes none that is nested more than 50 deep."""
    return {_text(entry.key): _value(entry.value) for entry in struct.fields}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return _struct(value.struct_value)
    if kind == "list_value":
        return [_value(each) for each in value.list_value.values]
    if kind == "string_value":
        return _text(value.string_value)
    return None if kind in (None, "null_value") else getattr(value, kind)


def _text(text: str | bytes) -> str:
    """Give a text; one that is no UTF-8 is read as bytes."""
    if isinstance(text, bytes):
        raise Refused("bad_encoding", "a text that is not UTF-8")
    return text


def _fill(struct: Any, members: Mapping[str, Any]) -> None:
    for name, member in members.items():
        entry = struct.fields.add(key=name)
        _put(entry.value, member)


def _put(value: Any, member: Any) -> None:
    if isinstance(member, dict):
        value.struct_value.SetInParent()
        _fill(value.struct_value, member)
    elif isinstance(member, list):
        value.list_value.SetInParent()
        for each in member:
            _put(value.list_value.values.add(), each)
    elif isinstance(member, str):
        value.string_value = member
    elif isinstance(member, bool):
        value.bool_value = member
    elif member is None:
        value.null_value = 0
    else:
        value.number_value = float(member)
