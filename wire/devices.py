"""Devices, device types, credentials and operators as they cross process boundaries."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
)

from wire import topics
from wire.clock import MAX_NS
from wire.points import TimeNs

FieldType = Literal["float", "int", "bool", "string"]
# registered: admitted, but never seen; held: it proved who it is and waits to be accepted
DeviceState = Literal["registered", "active", "held", "disabled", "retired"]
Role = Literal["viewer", "operator", "admin", "platform"]
# Each may do all that those before it may. The first three hold within a tenant, `platform` in all of them.
ROLES: tuple[Role, ...] = ("viewer", "operator", "admin", "platform")
TENANT = "default"
MAX_CODEC_CHARS = 64 * 1024
MAX_WHOLE = 2**53  # beyond it, doubles miss whole numbers
MAX_BANDS = 4  # of one unit of a rate limit
Attribs = TypeVar("Attribs", bound=Mapping[str, Any])
UNITS = ("readings", "messages", "bytes")  # what rate limits count; a reading becomes a point
_UNIT = {None: UNITS[0], "points": UNITS[0]}
_BAND = re.compile(r"(?:(readings|points|messages|bytes) )?([1-9]\d{0,11}):([1-9]\d{0,6})", re.ASCII)


def _check_device_id(text: str) -> str:
    if not topics.is_device_id(text):
        raise ValueError("a device id is 1 to 64 of A-Z a-z 0-9 _ . - and starts with a letter or digit")
    return text


class Band(NamedTuple):
    """So many units within so many seconds."""

    most: int
    seconds: int
    unit: str


def read_rate_limit(notation: str) -> tuple[Band, ...]:
    """Read a rate limit such as `20:1,600:60,messages 5:1,bytes 100000:60`; empty: no limit.

    20 readings in a second and 600 in a minute; 5 messages in a second; 100,000 bytes in a minute. A reading becomes a
    point: `points 20:1` says the same as `20:1`.

    Raises:
        ValueError: it is not of that form.
    """
    parts = [part.strip() for part in notation.split(",")] if notation.strip() else []
    found = [match for part in parts if (match := _BAND.fullmatch(part))]
    bands = tuple(Band(int(match[2]), int(match[3]), _UNIT.get(match[1], match[1])) for match in found)
    most = max(Counter(band.unit for band in bands).values(), default=0)
    if len(bands) != len(parts) or most > MAX_BANDS:
        raise ValueError(
            f"a rate limit is COUNT:SECONDS, up to {MAX_BANDS} of them with commas, such as 20:1,600:60; "
            "messages 5:1 and bytes 100000:60 count these"
        )
    return bands


def _check_rate_limit(notation: str) -> str:
    parts = (
        (f"{unit} " if unit != UNITS[0] else "", count, seconds) for count, seconds, unit in read_rate_limit(notation)
    )
    return ",".join(f"{prefix}{count}:{seconds}" for prefix, count, seconds in parts)


def _check_fraction(number: object) -> object:
    if isinstance(number, int):
        raise ValueError(f"a whole number lies between -{MAX_WHOLE} and {MAX_WHOLE}")  # noqa: TRY004 - pydantic's way
    return number


RateLimit = Annotated[str, AfterValidator(_check_rate_limit)]
When = Annotated[TimeNs, Field(ge=0, le=MAX_NS)]
Text = Annotated[str, Field(max_length=256, pattern=r"^[^\x00-\x1f\x7f]*$")]
DeviceId = Annotated[str, AfterValidator(_check_device_id)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
TagKey = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
TagValue = Annotated[str, Field(max_length=256, pattern=r"^[^\x00-\x1f\x7f]*$")]
Tags = Annotated[dict[TagKey, TagValue], Field(max_length=32)]
Whole = Annotated[int, Field(strict=True, ge=-MAX_WHOLE, le=MAX_WHOLE)]
Fraction = Annotated[float, BeforeValidator(_check_fraction), Field(strict=True, allow_inf_nan=False)]
AttributeValue = StrictBool | Whole | Fraction | TagValue
OWN_LIMIT = "rate_limit"  # the attribute that limits one device


def check_attributes(attributes: Attribs) -> Attribs:
    """Refuse a rate limit of a device that cannot be read. Raises ValueError."""
    limit = attributes.get(OWN_LIMIT)
    if limit is not None and not isinstance(limit, str):
        raise ValueError(f"the attribute {OWN_LIMIT} is a text such as 20:1,600:60, or empty")
    read_rate_limit(limit or "")
    return attributes


def own_limit(attributes: Mapping[str, object]) -> str | None:
    """Give the rate limit that a device has of its own; None: none, or one from before it had a meaning."""
    limit = attributes.get(OWN_LIMIT)
    try:
        return _check_rate_limit(limit) if isinstance(limit, str) else None
    except ValueError:
        return None


Attributes = Annotated[dict[TagKey, AttributeValue], Field(max_length=64), AfterValidator(check_attributes)]


class Model(BaseModel):
    """Base of request and response bodies: unknown members are an error, not silence."""

    model_config = ConfigDict(extra="forbid")


def _check_choice(value: object) -> object:
    is_text = isinstance(value, str) and len(value) <= MAX_CHOICE
    is_whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_WHOLE
    if is_text or is_whole or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise ValueError(f"a choice is a text of at most {MAX_CHOICE} characters, or a number")


MAX_CHOICE = 256  # characters
Choice = Annotated[StrictStr | StrictInt | StrictFloat, BeforeValidator(_check_choice)]
MAX_CHOICES = 64


class FieldSpec(Model):
    """One named field of a device type."""

    type: FieldType = "float"
    unit: str = Field(default="", max_length=32)
    min: float | None = Field(default=None, allow_inf_nan=False)
    max: float | None = Field(default=None, allow_inf_nan=False)
    required: bool = False
    nullable: bool = False  # devices send null where there is no value; it is none whatever this says
    choices: Annotated[list[Choice], Field(max_length=MAX_CHOICES)] | None = None  # these and no others
    max_length: int | None = Field(default=None, ge=1, le=65_536)  # of a string, in characters
    description: str = Field(default="", max_length=256)


FieldName = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+$")]


Span = Annotated[float, Field(ge=0, le=1_000 * 365 * 86_400, allow_inf_nan=False)]  # seconds


class AlertDefault(Model):
    """A rule that alerts about devices of this type begin with.

    `above`, `below` and `equals` compare the field's newest value with `value`; `silent` means that nothing has come.
    """

    name: Name
    when: Literal["above", "below", "equals", "silent"]
    field: FieldName | None = None
    value: float | int | bool | str | None = None
    for_s: Span = 0  # it must have held for so long
    severity: Literal["info", "warning", "critical"] = "warning"
    description: str = Field(default="", max_length=256)


class Codec(Model):
    """How the bytes that a device sends become fields, where its protocol only carries them (LoRaWAN)."""

    language: Literal["javascript", "cayenne_lpp"]
    text: str = Field(default="", max_length=MAX_CODEC_CHARS)  # of the script
    ports: Annotated[list[Annotated[int, Field(ge=0, le=255)]], Field(min_length=1, max_length=256)] | None = None
    time_limit_ms: int = Field(default=50, ge=1, le=1_000)  # of CPU, for one message
    memory_limit_kib: int = Field(default=8 * 1024, ge=256, le=64 * 1024)

    def takes(self, port: int) -> bool:
        """Tell whether bytes that came on a port (FPort) are for it."""
        return self.ports is None or port in self.ports


class DeviceTypeSpec(Model):
    """What a device type says about the messages of its devices."""

    fields: Annotated[dict[FieldName, FieldSpec], Field(max_length=256)] = {}
    unknown_fields: Literal["accept", "drop", "quarantine"] = "accept"
    time_unit: Literal["auto", "s", "ms", "us", "ns"] = "auto"
    time_key: str | None = Field(default=None, max_length=64)
    time_policy: Literal["guarded", "exact"] = "guarded"
    time_skew_s: Span = 600  # a clock ahead by no more is taken at its word; beyond, `time_policy` says
    time_ahead_s: Span | None = None  # a reading further ahead of its arrival is quarantined as `too_new`
    time_back_s: Span | None = None  # an older one as `too_old`
    time_late_s: Span | None = None  # an older one is history: stored, never the latest value
    time_late_alerts: bool = False  # alerts are told of history all the same
    time_skew_field: FieldName | None = None  # gets the seconds by which a clock was off whose time was not taken
    expected_interval_s: float | None = Field(default=None, gt=0, le=31_536_000)
    rate_limit: RateLimit | None = None  # readings of each device; None: that of the installation, "": none
    type_rate_limit: RateLimit | None = None  # of all devices of the type together; None or "": none
    retention_days: int | None = Field(default=None, ge=1, le=36_500)
    media_limit_bytes: int | None = Field(default=None, ge=0, le=MAX_WHOLE)  # of one snapshot or other blob; 0: none
    media_device_bytes: int | None = Field(default=None, ge=0, le=MAX_WHOLE)  # kept of each device: more is refused
    media_keep_bytes: int | None = Field(default=None, ge=0, le=MAX_WHOLE)  # of each device: the oldest beyond it go
    media_keep_days: int | None = Field(default=None, ge=1, le=36_500)
    alerts: Annotated[list[AlertDefault], Field(max_length=32)] = []
    codec: Codec | None = None
    description: str = Field(default="", max_length=1024)


class DeviceType(DeviceTypeSpec):
    """A device type as the registry holds it: the version in force."""

    name: Name
    version: int = 1
    version_id: int = 0  # of this version in the whole installation, whatever its type: what points are marked with


class CredentialRecord(Model):
    """What a service needs to check a presented secret; the secret itself is nowhere."""

    id: str
    sha256: str
    not_before_ns: int | None = None
    not_after_ns: int | None = None
    kind: Literal["secret", "x509"] = "secret"  # x509: `sha256` is the fingerprint of a certificate


class DeviceIdentity(Model):
    """A device as the gate of an ingest service knows it."""

    id: DeviceId
    tenant: str = TENANT
    state: Literal["active", "held", "disabled", "retired"] = "active"
    type: str | None = None
    gateway: bool = False
    tags: dict[str, str] = {}
    credentials: list[CredentialRecord] = []
    parent: str | None = None  # the gateway it is seen through
    prefixes: list[str] = []  # of a gateway: how the ids begin that it speaks for; none: any
    created_ns: int = 0  # tells it from one that had this id before and was deleted
    rate_limit: str | None = None  # of its own; None: that of its type, "": none
    names: list[str] = []  # external ones


class LookupResult(Model):
    """Answer of the registry to a lookup by ids: unknown ids are absent. The types are by `type_key`.

    `rate_limits` holds each tenant of the devices: what all of it may send; None: as the installation says.
    """

    devices: list[DeviceIdentity]
    types: dict[str, DeviceType]
    revision: int
    rate_limits: dict[str, str | None] = {}


class Changes(Model):
    """What changed in the registry since a revision. `reset` = too long ago: forget everything.

    `types` are named by `type_key`; ids of devices are unique in the whole installation.
    """

    revision: int
    reset: bool = False
    devices: list[str] = []
    types: list[str] = []
    tenants: list[str] = []
    tokens: bool = False
    topics: bool = False  # claims of topics


class Principal(Model):
    """Who is asking: an operator or a service, after its token was checked."""

    id: str
    name: str
    role: Role
    tenant: str = TENANT  # in which they act
    home: str | None = None  # the own tenant of somebody of the platform who acts in another
    scope: list[str] = []  # permissions such as devices:read; empty: all of the role
    devices: str = ""  # a query: only the devices that it finds; empty: all of the tenant
    must_change: bool = False  # the password, before anything else
    feed_readers: int | None = None  # how many of the tenant may read the feed at once; None: no limit of its own
    expires: TimeNs | None = None

    @property
    def signature(self) -> str:
        """How the audit log names them: `token:<name>` or `operator:<name>`, with `@<tenant>` from outside."""
        kind = self.id.partition(":")[0]
        return f"{kind}:{self.name}" + (f"@{self.home}" if self.home else "")


def type_key(tenant: str, name: str) -> str:
    """Name a device type beyond its tenant; neither part holds a slash."""
    return f"{tenant}/{name}"


def parse_bearer(text: str) -> tuple[str, str] | None:
    """Split `{device_id}.{secret}`; ids may hold dots, secrets never do. None when it is not of that form."""
    device_id, dot, secret = text.rpartition(".")
    if not dot or not secret or not topics.is_device_id(device_id):
        return None
    return device_id, secret


def allows(role: Role, needed: Role) -> bool:
    """Tell whether a role includes another."""
    return ROLES.index(role) >= ROLES.index(needed)
