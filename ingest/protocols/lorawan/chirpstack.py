"""ChirpStack v4's events, by HTTP integration (`?event=up`) or MQTT (`application/+/device/+/event/+`)."""

from __future__ import annotations

from typing import Any

from ingest.protocols.base import Record
from ingest.protocols.flatten import Refused
from ingest.protocols.lorawan.downlinks import read_item
from ingest.protocols.lorawan.uplinks import SCHEME, Events, best_heard, eui_of, member, number, place_of, whole
from wire.points import FieldValue

WITHOUT_READINGS = ("join", "ack", "txack", "log", "integration")
MAX_PERCENT = 100.0


class ChirpStack:
    """Reads its events; to be given to `Events`."""

    def __init__(self, events: Events, topic: str) -> None:
        self._events = events
        levels = topic.split("/")
        self.kind = "up" if levels[0] in ("", "devices") else levels[-1]
        self._said = levels[3].lower() if levels[0] == "application" and len(levels) == 6 else ""  # noqa: PLR2004

    def read(self, value: dict[str, Any], is_exact: bool) -> Record | None:
        """Give the record of an event, None where it rightly has none. Raises Refused."""
        eui = eui_of(member(value, "deviceInfo").get("devEui"))
        if self._said and self._said != eui:
            raise Refused("identity_mismatch", f"the topic names device {self._said[:64]}, the event {eui}")
        self._events.link(SCHEME + eui)
        if self.kind in WITHOUT_READINGS:
            self._heed(SCHEME + eui, value)
            return None
        heard = value.get("rxInfo")
        gateways = heard if isinstance(heard, list) else []
        gateway_times = [gateway.get("gwTime") for gateway in gateways if isinstance(gateway, dict)]
        record = self._events.record(SCHEME + eui, [value.get("time"), *gateway_times])
        if self.kind == "up":
            radio: dict[str, FieldValue] = {"dr": whole(value, "dr"), "f_cnt": whole(value, "fCnt")}
            radio |= {"f_port": whole(value, "fPort")} | best_heard(heard)
            return self._events.add(record, value.get("object"), value.get("data"), radio, is_exact=is_exact)
        if self.kind == "status":
            return self._events.add(record, None, None, _status(value), is_exact=is_exact)
        if self.kind == "location":
            return self._events.add(record, {"location": place_of(value)}, None, {}, is_exact=is_exact)
        raise Refused("unsupported", f"event {self.kind[:32]!r}")

    def _heed(self, device: str, value: dict[str, Any]) -> None:
        """Note a join, and how a downlink ended: by the device's word if asked for, else when a gateway had it."""
        if self.kind == "join":
            self._events.join(device)
        mark = read_item(value.get("queueItemId"))
        if self.kind == "ack":
            error = None if value.get("acknowledged") is True else "the device did not acknowledge it"
            self._events.end(device, mark, error)
        if self.kind == "txack" and mark is not None and not mark.is_confirmed:
            self._events.end(device, mark)


def _status(value: dict[str, Any]) -> dict[str, FieldValue]:
    """Give margin (dB) and battery (percent; absent when it is not known or there is none)."""
    margin, battery = value.get("margin", 0), number(value.get("batteryLevel"))
    status: dict[str, FieldValue] = {"margin": margin} if type(margin) is int else {}
    if value.get("externalPowerSource") is True:
        status["external_power"] = True
    elif battery is not None and 0 <= battery <= MAX_PERCENT:
        status["battery"] = battery
    if not status:
        raise Refused("no_values", "a status without margin and battery")
    return status
