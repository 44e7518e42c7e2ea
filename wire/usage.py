"""Bodies of the routes about usage: what tenants, their device types and their devices sent."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from wire.devices import DeviceId, Model, Name

Count = Annotated[int, Field(ge=0, le=2**53)]
Sums = tuple[Count, Count, Count]  # messages, points, bytes
TypeName = Name | Literal[""]  # "": devices without a type
UsageOrder = Literal["messages", "points", "bytes"]


class Sent(Model):
    """Messages, and the points and bytes in them."""

    messages: Count = 0
    points: Count = 0
    bytes: Count = 0


class Spent(Sent):
    """What a tenant used: what it sent, and the most readers of the feed at one time."""

    feed_readers: Count = 0


class UsageReport(Model):
    """What a service saw since it told the last time. What is told by type counts for the tenant, too."""

    tenants: Annotated[dict[Name, Spent], Field(max_length=1_000)] = {}
    types: Annotated[dict[Name, dict[TypeName, Sums]], Field(max_length=1_000)] = {}
    devices: Annotated[dict[Name, dict[DeviceId, Sums]], Field(max_length=2_000)] = {}


class Used(BaseModel):
    """What a tenant uses; days are those of UTC."""

    connections: int = 0  # devices connected to the broker now
    today: Spent = Spent()
    month: Spent = Spent()  # 30 days, today among them


class UsageDay(Spent):
    """What a tenant used on one day, of UTC."""

    day: date


class UsageDays(BaseModel):
    """What a tenant used day by day, today first; days without use are there too."""

    items: list[UsageDay]


class TypeUsage(Sent):
    """What the devices of a type sent; null: those without one."""

    type: str | None


class TypeUsages(BaseModel):
    """Types in the order that was asked for, most first."""

    items: list[TypeUsage]


class DeviceUsage(Sent):
    """What a device sent."""

    device: str


class DeviceUsages(BaseModel):
    """The devices that sent most, most first."""

    items: list[DeviceUsage]


class DeviceDay(Sent):
    """What a device sent on one day, of UTC."""

    day: date


class DeviceDays(BaseModel):
    """What a device sent day by day, today first; days without a message are there too."""

    items: list[DeviceDay]
