"""Bodies about state and control: twins and commands, for operators and for devices."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from wire.devices import Model, Name
from wire.points import TimeNs

Part = Literal["desired", "reported"]
CommandState = Literal["queued", "sent", "delivered", "succeeded", "failed", "expired", "cancelled"]


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


class CommandCreate(Model):
    """A command to send; `params` is any JSON, `deadline_s` counts from now."""

    name: Name
    params: Any = {}
    deadline_s: Annotated[float, Field(gt=0, le=30 * 86_400, allow_inf_nan=False)] = 300.0
    qos: Annotated[int, Field(ge=0, le=1)] = 1
    retries: Annotated[int, Field(ge=0, le=100)] = 5
    idempotency_key: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[\x20-\x7e]+$")] | None = None


class CommandView(BaseModel):
    """A command and what became of it; `tries` counts how often it was handed out."""

    id: str
    device: str
    name: str
    params: Any
    state: CommandState
    created: TimeNs
    deadline: TimeNs
    sent: TimeNs | None
    delivered: TimeNs | None
    ended: TimeNs | None
    tries: int
    qos: int
    via: str | None
    result: Any
    error: str | None
    actor: str
    job: str | None
    idempotency_key: str | None


class CommandPage(BaseModel):
    """Commands, newest first."""

    items: list[CommandView]
    next: str | None


class Withdraw(Model):
    """Which commands nobody wants any more: those of a bulk action, by its job."""

    job: Annotated[str, Field(min_length=1, max_length=32)]


class Withdrawn(BaseModel):
    """How many commands were cancelled; `open` = there are more, ask again."""

    cancelled: int
    open: bool


class CommandDown(BaseModel):
    """A command as its device gets it, on every way."""

    id: str
    name: str
    params: Any
    deadline: str
    attempt: int


class CommandsDown(BaseModel):
    """What a device has to do now."""

    commands: list[CommandDown]


class CommandReply(Model):
    """What a device says of a command; without `state`: failed when there is an `error`, else succeeded."""

    state: Literal["accepted", "succeeded", "failed"] | None = None
    result: Any = None
    error: str | None = None
