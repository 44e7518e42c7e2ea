"""Enrolment: how devices register themselves. Bodies of `/v1/enrolments` and `/v1/enrol`, and the derived key."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, model_validator

from wire.devices import DeviceId, Model, Name, Tags, Text, When
from wire.group_keys import read_key
from wire.points import TimeNs
from wire.registry import IssuedCredential
from wire.topics import is_device_id

Policy = Literal["auto", "hold"]
Kind = Literal["token", "group"]
WILD = "*"
MAX_ENROLLED = 10_000_000
HardwareValue = Annotated[str, Field(max_length=256, pattern=r"^[^\x00-\x1f\x7f]*$")] | int | float | bool
Hardware = Annotated[dict[Name, HardwareValue], Field(max_length=32)]


def fits(pattern: str, device_id: str) -> bool:
    """Tell whether a device id is one that a pattern allows."""
    head, wild, tail = pattern.partition(WILD)
    if not wild:
        return device_id == pattern
    return len(device_id) >= len(head) + len(tail) and device_id.startswith(head) and device_id.endswith(tail)


def _check_pattern(text: str) -> str:
    if text.count(WILD) > 1 or not is_device_id(text.replace(WILD, "x")):
        raise ValueError("ids is a device id in which one * may stand for any characters, such as pump-*")
    return text


def _check_key(text: str) -> str:
    read_key(text)
    return text


IdPattern = Annotated[str, Field(max_length=64), AfterValidator(_check_pattern)]
GroupKey = Annotated[str, Field(max_length=128), AfterValidator(_check_key)]


class Terms(Model):
    """What becomes of a device that comes this way."""

    ids: IdPattern = WILD
    type: Name | None = None
    tags: Tags = {}
    group: Name | None = None  # a group whose members are listed
    policy: Policy = "auto"  # auto: active at once; hold: its data waits until an operator accepts it


class EnrolmentCreate(Terms):
    """A way in for devices that are not registered yet."""

    name: Name
    kind: Kind = "token"
    max_devices: Annotated[int, Field(ge=1, le=MAX_ENROLLED)] | None = None  # None: one for a token, any for a group
    expires: When | None = None
    key: GroupKey | None = None  # of a group, base64; None: one is made

    @model_validator(mode="after")
    def _key_is_of_a_group(self) -> EnrolmentCreate:
        if self.key is not None and self.kind != "group":
            raise ValueError("only a group has a key")
        return self


class EnrolmentView(BaseModel):
    """A way in, without its secret."""

    id: str
    name: str
    kind: Kind
    ids: str
    type: str | None
    tags: dict[str, str]
    group: str | None = None
    policy: Policy
    max_devices: int | None
    enrolled: int
    created: TimeNs
    expires: TimeNs | None
    state: Literal["open", "used_up", "expired"]


class EnrolmentCreated(EnrolmentView):
    """A way in just made; its secret is answered once."""

    secret: str


class EnrolmentList(BaseModel):
    """All ways in."""

    items: list[EnrolmentView]


class EnrolRequest(Model):
    """What a device says of itself; without an id it is given one."""

    id: DeviceId | None = None
    # A random text of the device's own. Who comes again with the same within a quarter of an hour gets a fresh
    # credential in the place of the one whose answer was lost.
    nonce: Annotated[str, Field(min_length=16, max_length=128, pattern=r"^[\x21-\x7e]+$")] | None = None
    hardware: Hardware = {}


class EnrolAnswer(BaseModel):
    """A device that has enrolled; `credential` is answered once, and absent where the device's derived key is it."""

    id: str
    state: str
    type: str | None
    tags: dict[str, str]
    credential: IssuedCredential | None


class HoldView(BaseModel):
    """A device that proved who it is and waits to be accepted."""

    id: str
    source: str | None  # token:NAME, group:NAME, authority:NAME, gateway:ID
    since: TimeNs
    last_seen: TimeNs | None
    type: str | None
    tags: dict[str, str]
    hardware: dict[str, Any]


class HoldPage(BaseModel):
    """Held devices in order of their ids; `next` is the cursor of the following page."""

    items: list[HoldView]
    next: str | None


class HoldChoice(Model):
    """Held devices to decide about."""

    ids: Annotated[list[DeviceId], Field(min_length=1, max_length=1_000)]


class HoldsDecided(BaseModel):
    """Which of them were held, and are not any more."""

    decided: list[str]


class Admission(Model):
    """A device nobody knows, and the hash of what it presents (internal)."""

    id: DeviceId
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    remote_ip: Text = ""


class Admitted(BaseModel):
    """Whether the device is registered now (internal)."""

    admitted: bool
