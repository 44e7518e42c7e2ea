"""Bodies of the routes that find devices: groups, bulk actions, counts."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from wire.control import CommandCreate
from wire.devices import DeviceId, Model, Name, Text
from wire.points import TimeNs
from wire.registry import DevicePatch, DeviceView, QueryText

MAX_MEMBERS = 1_000  # of one request
Description = Annotated[str, Field(max_length=256, pattern=r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*$")]
MemberIds = Annotated[list[DeviceId], Field(min_length=1, max_length=MAX_MEMBERS)]


class GroupCreate(Model):
    """A group to make: with a query it holds whatever that finds, without one the devices that are put into it."""

    name: Name
    description: Description = ""
    query: QueryText | None = None


class GroupPatch(Model):
    """Members of a group to change; a group stays listed or found by a query, as it was made."""

    description: Description | None = None
    query: QueryText | None = None


class Members(Model):
    """Devices to put into a group, or to take out of it."""

    devices: MemberIds


class GroupView(BaseModel):
    """A group; `count` is what it holds now, at least that many when not `is_exact`."""

    name: str
    description: str
    query: str | None
    count: int
    is_exact: bool
    created: TimeNs
    updated: TimeNs


class GroupList(BaseModel):
    """All groups in order of their names."""

    items: list[GroupView]


class GroupNames(BaseModel):
    """The groups that hold a device."""

    items: list[str]


class MembersChanged(BaseModel):
    """How many devices came in or went out; those named and not there are absent from the count."""

    changed: int
    unknown: list[str]


class Count(BaseModel):
    """How many devices a query finds: at least that many when not `is_exact`."""

    count: int
    is_exact: bool


class Update(Model):
    """Change type, tags, attributes or gateway mark, as PATCH does."""

    do: Literal["update"]
    patch: DevicePatch


class Deed(Model):
    """A deed that needs no more than its name."""

    do: Literal["disable", "enable", "retire", "delete"]


class Membership(Model):
    """Put into a group with listed members, or take out of it."""

    do: Literal["add_to_group", "remove_from_group"]
    group: Name


class SendCommand(Model):
    """Send the same command to each; the job's id is the idempotency key, unless the command has one."""

    do: Literal["command"]
    command: CommandCreate


class Desire(Model):
    """Patch what each is wanted to be."""

    do: Literal["desire"]
    desired: dict[str, Any]


BulkAction = Annotated[Update | Deed | Membership | SendCommand | Desire, Field(discriminator="do")]


class BulkRequest(Model):
    """Do the same to all devices that a query finds now; `preview` only tells which."""

    query: Annotated[QueryText, Field(min_length=1)]
    action: BulkAction
    preview: bool = False


class BulkPreview(BaseModel):
    """What a bulk action would reach."""

    count: int
    examples: list[DeviceView]


class Select(Model):
    """Which devices another service wants to know."""

    tenant: str
    query: QueryText = ""
    scope: QueryText = ""  # of the token for which it is asked: only what both find
    id: Text | None = None  # whether this one is among them
    after: str = ""
    limit: Annotated[int, Field(ge=1, le=5_000)] = 5_000


class Selected(BaseModel):
    """Ids in their order; `next` is the `after` of what follows."""

    ids: list[str]
    next: str | None


def dump(action: Any) -> dict[str, Any]:
    """Give an action as it was asked for."""
    given: dict[str, Any] = action.model_dump(mode="json", exclude_unset=True)
    return given
