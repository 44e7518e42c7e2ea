"""What the events of LoRaWAN network servers have in common: one record an uplink, its radio below `lora.`. Pure."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ingest.protocols import times
from ingest.protocols.base import Answer, Context, Decoded, Fault, Payload, Record
from ingest.protocols.flatten import FieldFault, Refused, flatten
from ingest.protocols.json.decoder import place, read_value, unreadable
from ingest.protocols.lorawan import downlinks
from ingest.protocols.lorawan.downlinks import Mark
from ingest.protocols.parse import Unreadable, trim
from wire.codecs import MAX_PAYLOAD_BYTES
from wire.points import UNCERTAIN, FieldValue

MEASUREMENT = "lorawan"
RADIO = "lora."
DATA = "lora.data"  # bytes that nobody decoded, base64
SCHEME = "lora:"
PLACE = ("latitude", "longitude", "altitude", "accuracy")
MAX_PORT = 255
EUI = re.compile(r"[0-9a-f]{16}")

Members = Mapping[str, Any]
Read = Callable[[dict[str, Any], bool], Record | None]


class Events:
    """Reads what one message holds, by what reads an event: it gives its record, or None where it rightly has none."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._decoded = Decoded()
        self._index = 0
        self._is_binary = False

    def decode(self, content: bytes, read: Read) -> Decoded:
        """Decode one event, a JSON object, or an array of them."""
        try:
            read_value(trim(content), self._decoded, partial(self._take, read))
        except Unreadable as error:
            return unreadable(error)
        return self._decoded

    def _take(self, read: Read, value: Any, index: int, is_exact: bool) -> None:
        self._index = index
        if type(value) is not dict:
            self._decoded.faults.append(Fault(index, "bad_structure", "an event is a JSON object"))
            return
        try:
            record = read(value, is_exact)
        except Refused as error:
            self._decoded.faults.append(Fault(index, error.code, error.detail))
            return
        if record is None:
            self._decoded.is_event = True
        else:
            self._decoded.records.append(record)

    def decode_one(self, value: dict[str, Any], read: Read) -> Decoded:
        """Decode one event that was no JSON, given as the object that it would have been."""
        self._is_binary = True
        self._take(read, value, 0, True)
        return self._decoded

    def link(self, device: str) -> None:
        """Note where the server takes downlinks for a device that it speaks of, and in which form."""
        place = downlinks.place_of(self._context.topic) if self._context.transport == "mqtt" else None
        if place is not None:
            self._decoded.places[device] = place + (downlinks.BINARY if self._is_binary else "")

    def join(self, device: str) -> None:
        """Note that a device joined the network: it is there, whatever it will measure."""
        self._decoded.presence[device] = True

    def end(self, device: str, mark: Mark | None, error: str | None = None) -> None:
        """Note how a command of ours ended; that of somebody else is passed over."""
        if mark is not None:
            result = {"confirmed": mark.is_confirmed} if error is None else None
            self._decoded.answers.append(Answer(mark.id, device, result, error))

    def fault(self, faults: list[FieldFault]) -> None:
        """Note fields that cannot be taken."""
        self._decoded.faults += [Fault(self._index, fault.code, fault.detail, fault.name) for fault in faults]

    def record(self, device: str, tokens: list[Any]) -> Record:
        """Begin the record of a device; its time is the first of the tokens that is there.

        Raises:
            Refused: the time is none, or the device type does not take it.
        """
        record = Record(self._index, {}, measurement=MEASUREMENT, device=device)
        token = next((token for token in tokens if token), None)
        if token is None:
            return record
        try:
            time_ns, is_certain = times.read(token)
        except ValueError as error:
            raise Refused("bad_time", str(error)) from None
        place(record, time_ns, self._context.received_ns, times.policy_of(self._context.type))
        record.flags |= 0 if is_certain else UNCERTAIN
        return record

    def add(self, record: Record, decoded: Any, raw: Any, radio: dict[str, FieldValue], *, is_exact: bool) -> Record:
        """Add what the device measured, decoded or else its bytes as they came, and how it was heard.

        Raises:
            Refused: nothing of it can be taken.
        """
        if isinstance(decoded, dict) and decoded:
            record.fields, faults = flatten(decoded, is_exact=is_exact)
            self.fault(faults)
        elif isinstance(raw, str) and raw:
            record.fields[DATA] = raw
            record.payload = _payload(raw, radio.get("f_port"))
        record.fields |= {RADIO + name: value for name, value in radio.items()}
        return record


def _payload(raw: str, port: FieldValue | None) -> Payload | None:
    """Give bytes for a codec; None: they are none, or came on no port that a device has."""
    try:
        content = b64decode(raw, validate=True)
    except ValueError:
        return None
    if not isinstance(port, int) or not 0 <= port <= MAX_PORT or len(content) > MAX_PAYLOAD_BYTES:
        return None
    return Payload(content, port, DATA)


def eui_of(text: Any) -> str:
    """Give a DevEUI in lower case, as it is compared. Raises Refused."""
    eui = text.lower() if isinstance(text, str) else ""
    if not EUI.fullmatch(eui):
        raise Refused("bad_structure", "the event names no DevEUI of 16 hexadecimal digits")
    return eui


def member(value: Members, name: str) -> dict[str, Any]:
    """Give a member that is an object; an empty one where there is none."""
    found = value.get(name)
    return found if isinstance(found, dict) else {}


def whole(value: Members, name: str) -> int:
    """Give a whole number; absent is zero (protobuf's JSON leaves zeros out). Raises Refused."""
    found = value.get(name, 0)
    if type(found) is not int or not 0 <= found < 2**32:
        raise Refused("bad_value", f"{name} is not a counter of 32 bits")
    return found


def place_of(value: Members) -> dict[str, Any]:
    """Give the fields of a member `location`. Raises Refused."""
    place = member(value, "location")
    found: dict[str, Any] = {name: place[name] for name in PLACE if name in place}
    if not {"latitude", "longitude"} <= found.keys():
        raise Refused("no_values", "a location without latitude and longitude")
    return found


def best_heard(heard: Any) -> dict[str, FieldValue]:
    """Give rssi and snr of the gateway that heard it best, by snr; of none nothing."""
    entries = [entry for entry in heard if isinstance(entry, dict)] if isinstance(heard, list) else []
    if not entries:
        return {}
    best = max(entries, key=lambda entry: number(entry.get("snr", 0.0)) or 0.0)
    rssi, snr = best.get("rssi"), number(best.get("snr", 0.0))
    radio: dict[str, FieldValue] = {"rssi": rssi} if type(rssi) is int else {}
    return radio if snr is None else radio | {"snr": snr}


def number(value: Any) -> float | None:
    """Give a number as float; None when it is none."""
    return float(value) if type(value) in (int, float) else None
