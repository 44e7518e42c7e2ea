"""What devices tell of their fields: unit, name and class, as they cross process boundaries.

It is what was told, not a rule: what a device type says of a field goes before it.
"""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, Field

from wire.devices import DeviceId, FieldName, Model

MAX_UNIT: Final = 32
MAX_LABEL: Final = 128
MAX_KIND: Final = 64
MAX_OF_DEVICE: Final = 256  # fields that are described of one device
MAX_OF_SENDER: Final = 20_000  # of all devices that one speaks for
MAX_AT_ONCE: Final = 1_000  # of a report
_SAID = r"^[^\x00-\x1f\x7f]*$"
_Bound = Annotated[float, Field(allow_inf_nan=False)]


class FieldDescription(Model):
    """What was told of a field; what is empty or None was not told."""

    measurement: FieldName
    field: FieldName
    unit: str = Field(default="", max_length=MAX_UNIT, pattern=_SAID)
    label: str = Field(default="", max_length=MAX_LABEL, pattern=_SAID)  # its name for people
    kind: str = Field(default="", max_length=MAX_KIND, pattern=_SAID)  # what it measures: temperature, humidity, ...
    min: _Bound | None = None
    max: _Bound | None = None


class Told(Model):
    """What a sender told of the fields of a device: by its external name, or of itself without one."""

    device: DeviceId
    name: str = Field(default="", max_length=256, pattern=_SAID)
    fields: Annotated[list[FieldDescription], Field(max_length=MAX_AT_ONCE)]


class AllTold(Model):
    """What senders told since the last report (internal)."""

    told: Annotated[list[Told], Field(max_length=MAX_AT_ONCE)]


class Asked(Model):
    """Devices of a tenant of whose fields somebody wants to know (internal)."""

    tenant: str = Field(max_length=64)
    devices: Annotated[list[str], Field(max_length=10_000)]


class Answered(BaseModel):
    """By device what is known of its fields (internal).

    With an empty measurement it is what the device's type says, which goes first.
    """

    items: dict[str, list[dict[str, str | float | None]]]
