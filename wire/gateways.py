"""Gateways: their rules for the devices seen through them, as the registry's routes show and take them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from wire.devices import DeviceId, DeviceState, Model, Name, Tags
from wire.points import TimeNs

MAX_PREFIXES = 16
MAX_CHILDREN = 100_000
MAX_ADMITTED = 5_000  # unknown children asked for at once
Prefix = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]


class GatewayRules(Model):
    """What a gateway may bring: `prefixes` begin the ids it speaks for, none allow any."""

    children: Literal["auto", "hold", "refuse"] = "auto"  # what becomes of a child nobody knows
    child_type: Name | None = None
    child_tags: Tags = {}
    prefixes: Annotated[list[Prefix], Field(max_length=MAX_PREFIXES)] = []
    max_children: Annotated[int, Field(ge=0, le=MAX_CHILDREN)] = 1_000


class ChildView(BaseModel):
    """A device that is seen through a gateway."""

    id: str
    type: str | None
    state: DeviceState
    tags: dict[str, str]
    online: bool
    last_seen: TimeNs | None
    since: TimeNs


class ChildPage(BaseModel):
    """Children in order of their ids; `next` is the cursor of the following page."""

    items: list[ChildView]
    next: str | None


class Parent(Model):
    """The gateway a device is seen through."""

    gateway: DeviceId


class ParentView(BaseModel):
    """The gateway a device is seen through, or null."""

    gateway: str | None


class ChildAdmission(Model):
    """Children nobody knows, as a gateway named them (internal)."""

    gateway: DeviceId
    children: Annotated[list[DeviceId], Field(max_length=MAX_ADMITTED)]


class ChildrenAdmitted(BaseModel):
    """Those that were not registered, with the code that says why (internal)."""

    refused: dict[str, str]
