"""Bodies of `/v1/tenants`: owners of devices, people and data."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from wire.devices import Model, Name, RateLimit
from wire.points import TimeNs

Title = Annotated[str, Field(max_length=128, pattern=r"^[^\x00-\x1f\x7f]*$")]
TenantState = Literal["active", "suspended"]


class Limits(Model):
    """What a tenant may hold at most; None: no limit of its own."""

    devices: Annotated[int, Field(ge=0, le=10_000_000)] | None = None
    rate_limit: RateLimit | None = None  # readings of all its devices together; None: the installation's, "": none
    feed_readers: Annotated[int, Field(ge=0, le=10_000)] | None = None  # open connections of `/v1/feed`
    connections: Annotated[int, Field(ge=0, le=10_000_000)] | None = None  # devices at the broker at one time


class TenantCreate(Model):
    """A tenant to make."""

    id: Name
    title: Title = ""
    limits: Limits = Limits()


class TenantPatch(Model):
    """Members to change; those not given stay."""

    title: Title | None = None
    limits: Limits | None = None  # each by itself: what is not given stays, null takes it away


class TenantView(BaseModel):
    """A tenant, and how much is in it."""

    id: str
    title: str
    state: TenantState
    limits: Limits
    created: TimeNs
    devices: int
    operators: int


class Spent(Model):
    """What a tenant used: messages, the points and bytes in them, and the most readers of the feed at one time."""

    messages: Annotated[int, Field(ge=0)] = 0
    points: Annotated[int, Field(ge=0)] = 0
    bytes: Annotated[int, Field(ge=0)] = 0
    feed_readers: Annotated[int, Field(ge=0)] = 0


class UsageReport(Model):
    """What a service saw tenants use since it told the last time."""

    tenants: Annotated[dict[Name, Spent], Field(max_length=1_000)]


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


class TenantUsage(TenantView, Used):
    """A tenant with what it uses."""


class TenantList(BaseModel):
    """All tenants."""

    items: list[TenantUsage]


class DeviceMove(Model):
    """Where a device goes."""

    tenant: Name
