"""Readings: points on their way from acceptance to the store, as the spool keeps them. Knows no protocol, no file."""

from __future__ import annotations

import msgspec

from wire.points import ALERTING, FUTURE, HISTORICAL, RETAINED, SIMULATED, FieldValue

_NOT_LATEST = RETAINED | HISTORICAL | SIMULATED | FUTURE


class Reading(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One reading. The order of its members is that in the spool: new ones join at the end, with a default.

    It has all that `wire.points.Point` has, so the store takes it as it is: no second object is made on the way.
    """

    device: str
    measurement: str
    time_ns: int
    received_ns: int
    fields: dict[str, FieldValue]
    tags: dict[str, str] = {}
    flags: int = 0  # bits of wire.points
    boot_id: str | None = None
    seq: int | None = None
    protocol: str = "json"
    tenant: str = "default"
    delivery: int | None = None  # over MQTT the broker's message id, 0 at QoS 0; else None
    content: int = 0  # 64-bit hash of topic and payload, with `delivery`, when it has neither a time nor a seq
    judged_by: int = 0  # `version_id` of the device type's version that it passed; 0: none
    born_ns: int = 0  # when its device was registered: another one may have had this id before; 0: not known

    @property
    def kind(self) -> str:
        """Give the class of the message it came in, as metrics of delays tell them apart: `protocol/transport`."""
        return f"{self.protocol}/{'http' if self.delivery is None else 'mqtt'}"

    @property
    def moves_latest(self) -> bool:
        """Tell whether it may become the newest value of its series: not when it is known to be history or a test."""
        return not self.flags & _NOT_LATEST

    @property
    def is_late_news(self) -> bool:
        """Tell whether it is history of which alerts are told all the same."""
        return bool(self.flags & ALERTING) and not self.flags & (RETAINED | SIMULATED)
