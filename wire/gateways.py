"""Gateways: their rules for the devices seen through them, as the registry's routes show and take them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field

from wire.devices import DeviceId, DeviceState, Model, Name, Tags
from wire.external import MAX_NAME_BYTES, is_external_name
from wire.points import TimeNs

MAX_PREFIXES = 16
MAX_CHILDREN = 100_000
MAX_ADMITTED = 5_000  # unknown children asked for at once
MAX_NAMES = 16  # external names of one device
NAMES_PAGE = 5_000  # names told at once


def _check_name(text: str) -> str:
    if not is_external_name(text):
        raise ValueError(f"is scheme:name, of {MAX_NAME_BYTES} bytes at most, without control characters")
    return text


ExternalName = Annotated[str, AfterValidator(_check_name)]
Prefix = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]


class GatewayRules(Model):
    """What a gateway may bring: `prefixes` begin the ids it speaks for, none allow any."""

    children: Literal["auto", "hold", "refuse"] = "auto"  # what becomes of a child nobody knows
    child_type: Name | None = None
    child_tags: Tags = {}
    prefixes: Annotated[list[Prefix], Field(max_length=MAX_PREFIXES)] = []
    max_children: Annotated[int, Field(ge=0, le=MAX_CHILDREN)] = 1_000


class RulesChanged(GatewayRules):
    """A gateway's rules as they are now, and which of its children they leave out: it does not speak for those."""

    left_out: int  # how many
    left_out_children: list[str]  # the first of them


class ChildView(BaseModel):
    """A device that is seen through a gateway."""

    id: str
    type: str | None
    state: DeviceState
    tags: dict[str, str]
    online: bool
    last_seen: TimeNs | None
    since: TimeNs
    outside: bool  # of the gateway's prefixes: it does not speak for it
    names: list[str] = []  # external ones


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


class NameGiven(Model):
    """An external name for a device."""

    name: ExternalName


class NameList(BaseModel):
    """A device's external names."""

    names: list[str]


class ChildAdmission(Model):
    """Children nobody knows, as a gateway named them: by id or by an external name (internal)."""

    gateway: DeviceId
    children: Annotated[list[DeviceId], Field(max_length=MAX_ADMITTED)] = []
    names: Annotated[list[ExternalName], Field(max_length=MAX_ADMITTED)] = []


class ChildrenAdmitted(BaseModel):
    """Ids and names that were not registered, with the code that says why; the id of each other name (internal)."""

    refused: dict[str, str]
    named: dict[str, str] = {}


class NamesWanted(Model):
    """Whose names to tell, from where on (internal)."""

    device: DeviceId
    after: str = ""


class NamesTold(BaseModel):
    """What a sender may call devices: name -> id; `next` is `after` of the following page (internal)."""

    names: dict[str, str]
    revision: int
    next: str | None = None
