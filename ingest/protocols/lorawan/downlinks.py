"""Commands as LoRaWAN network servers read them over MQTT, and what their events say of them. Pure.

The server gives back an id of ours with each event about a downlink, so nothing has to be remembered here: ChirpStack
the id of the queue's item (a UUID), The Things Stack correlation ids.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from binascii import Error as NoBase64
from collections.abc import Mapping
from typing import Any, NamedTuple
from uuid import UUID

from ingest.protocols.flatten import Refused
from ingest.protocols.lorawan import binary

COMMAND = "downlink"
MAX_BYTES = 242  # of a frame at the highest data rate (LoRaWAN Regional Parameters); a slower one takes fewer
PORTS = range(1, 224)  # for applications (LoRaWAN 1.0.4 s. 4.3.2)
MEMBERS = {"f_port", "confirmed", "data", "object"}
OURS = "headwater:"
BINARY = "#binary"  # ends the place of a device whose server reads Protocol Buffers; no topic holds a #
_ID = re.compile(r"c([0-9a-f]{24})")
_ITEM = re.compile(r"([0-9a-f]{24})0000000([01])")
_CORRELATION = re.compile(rf"{OURS}(c[0-9a-f]{{24}}):([01])")


class Downlink(NamedTuple):
    """What a command asks for: bytes, or an object that is yet to be encoded."""

    port: int
    is_confirmed: bool
    content: bytes | None
    members: dict[str, Any]


class Mark(NamedTuple):
    """A command of ours, as a server names it."""

    id: str
    is_confirmed: bool


def read(name: str, params: Any) -> Downlink:
    """Read a command.

    Raises:
        Refused: it is none that a device can be sent.
    """
    if name != COMMAND:
        raise Refused("unsupported", f"the command of LoRaWAN devices is {COMMAND}")
    if not isinstance(params, dict) or params.keys() - MEMBERS:
        raise Refused("bad_structure", f"params are an object of {', '.join(sorted(MEMBERS))}")
    port, is_confirmed, members = params.get("f_port", 1), params.get("confirmed", False), params.get("object")
    if type(port) is not int or port not in PORTS:
        raise Refused("bad_value", f"f_port is a whole number from {PORTS[0]} to {PORTS[-1]}")
    if type(is_confirmed) is not bool:
        raise Refused("bad_value", "confirmed is true or false")
    if ("data" in params) == ("object" in params) or not isinstance(members, dict | None):
        raise Refused("bad_structure", "give either data, Base64, or object")
    content = _bytes(params["data"]) if "data" in params else None
    return Downlink(port, is_confirmed, content, members or {})


def _bytes(text: Any) -> bytes:
    try:
        content = b64decode(text, validate=True)
    except (NoBase64, TypeError, ValueError):
        raise Refused("bad_value", "data is no Base64") from None
    return check_size(content)


def check_size(content: bytes) -> bytes:
    """Give bytes that a frame can hold. Raises Refused."""
    if len(content) > MAX_BYTES:
        raise Refused("too_large", f"{len(content)} bytes, a frame holds {MAX_BYTES} at most")
    return content


def place_of(topic: str) -> str | None:
    """Give how the topics of a device begin, from one of a server; None: it is of none."""
    levels = topic.split("/")
    is_chirpstack = levels[0] == "application" and len(levels) == 6 and levels[2] == "device"  # noqa: PLR2004
    is_tts = levels[0] == "v3" and len(levels) >= 5 and levels[2] == "devices"  # noqa: PLR2004
    return "/".join(levels[:4]) if is_chirpstack or is_tts else None


def word(place: str, order_id: str, wanted: Downlink) -> tuple[str, bytes]:
    """Give topic and payload by which the server of a device is told.

    Raises:
        Refused: the command has no id of ours.
    """
    found = _ID.fullmatch(order_id)
    if found is None:
        raise Refused("bad_name", "the command has an id that no server could give back")
    mark = str(int(wanted.is_confirmed))
    told: dict[str, Any] = {"confirmed": wanted.is_confirmed}
    if place.startswith("v3/"):
        told |= {"f_port": wanted.port, "priority": "NORMAL", "correlation_ids": [f"{OURS}{order_id}:{mark}"]}
        told |= _carried(wanted, "frm_payload", "decoded_payload")
        return f"{place}/down/push", json.dumps({"downlinks": [told]}).encode()
    item = UUID(f"{found[1]}0000000{mark}")
    topic = place.removesuffix(BINARY)
    told |= {"devEui": topic.rpartition("/")[2], "id": str(item), "fPort": wanted.port}
    told |= _carried(wanted, "data", "object")
    payload = binary.dump_command(told) if place.endswith(BINARY) else json.dumps(told).encode()
    return f"{topic}/command/down", payload


def _carried(wanted: Downlink, raw: str, members: str) -> dict[str, Any]:
    """Give bytes, or what the server's own codec is to encode."""
    if wanted.content is None:
        return {members: wanted.members}
    return {raw: b64encode(wanted.content).decode()}


def read_item(item: Any) -> Mark | None:
    """Give the command that an item of ChirpStack's queue is; None: it is not of ours."""
    found = _ITEM.fullmatch(item.replace("-", "").lower()) if isinstance(item, str) else None
    return Mark(f"c{found[1]}", found[2] == "1") if found else None


def read_correlations(*holders: Mapping[str, Any]) -> Mark | None:
    """Give the command that the correlation ids of The Things Stack name; None: it is not of ours."""
    for holder in holders:
        ids = holder.get("correlation_ids")
        for each in ids if isinstance(ids, list) else ():
            found = _CORRELATION.fullmatch(each) if isinstance(each, str) else None
            if found:
                return Mark(found[1], found[2] == "1")
    return None
