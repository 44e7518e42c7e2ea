"""Bodies about state and control: `/v1/devices/{id}/twin`, `/v1/device/twin`, and what goes over MQTT."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from wire.points import TimeNs

Part = Literal["desired", "reported"]


class TwinView(BaseModel):
    """A device's twin; `delta` is what of `desired` is not reported yet."""

    device: str
    desired: dict[str, Any]
    desired_version: int
    desired_time: TimeNs | None
    reported: dict[str, Any]
    reported_version: int
    reported_time: TimeNs | None
    delta: dict[str, Any]


class DesiredView(BaseModel):
    """The desired part, as the retained MQTT message holds it too (without `device`)."""

    device: str
    version: int
    time: TimeNs | None
    desired: dict[str, Any]


class ReportedView(BaseModel):
    """The reported part."""

    device: str
    version: int
    time: TimeNs | None
    reported: dict[str, Any]


class TwinAnswer(BaseModel):
    """What a device is told of its own patch."""

    version: int
    time: TimeNs | None


class TwinChange(BaseModel):
    """One change of a twin: who, when, which patch; `replaced` marks a PUT, whose patch is the whole document."""

    part: Part
    version: int
    time: TimeNs
    actor: str
    replaced: bool
    patch: dict[str, Any]


class TwinHistory(BaseModel):
    """Changes of a twin, newest first."""

    items: list[TwinChange]
    next: str | None
