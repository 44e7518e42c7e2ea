"""Bodies of `/v1/tenants`: owners of devices, people and data."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from wire.devices import Model, Name, RateLimit
from wire.points import TimeNs
from wire.usage import Used

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


class TenantUsage(TenantView, Used):
    """A tenant with what it uses."""


class TenantList(BaseModel):
    """All tenants."""

    items: list[TenantUsage]


class DeviceMove(Model):
    """Where a device goes."""

    tenant: Name
