"""Bodies of the routes about versions of device types: drafts, activation, checks, what was observed."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from wire.devices import DeviceId, DeviceType, DeviceTypeSpec, Model, Text, When
from wire.points import TimeNs

VersionState = Literal["draft", "scheduled", "active", "retired"]
VersionNumber = Annotated[int, Field(ge=1, le=2**53)]
Hours = Annotated[float, Field(gt=0, le=31 * 24)]
Devices = Annotated[list[DeviceId], Field(min_length=1, max_length=1_000)]
MAX_EXAMPLES = 20


class TypeVersion(BaseModel):
    """One version of a device type; `id` names it in the whole installation, whatever its type."""

    name: str
    version: int
    id: int
    state: VersionState
    note: str
    origin: str
    by: str
    created: TimeNs
    due: TimeNs | None = None  # when a scheduled one comes into force
    activated: TimeNs | None = None
    retired: TimeNs | None = None


class TypeVersionDetail(TypeVersion):
    """A version with what it says."""

    spec: DeviceTypeSpec


class TypeVersionList(BaseModel):
    """All versions of a type, newest first."""

    items: list[TypeVersion]


class TypeSummary(BaseModel):
    """A device type in a list; `version` is null while there are only drafts of it."""

    name: str
    version: int | None
    description: str
    fields: int
    devices: int
    versions: int
    drafts: list[int]
    scheduled: int | None


class TypeSummaryList(BaseModel):
    """All device types in order of their names."""

    items: list[TypeSummary]


class TypeDraft(Model):
    """A version to write down without putting it in force."""

    spec: DeviceTypeSpec
    note: Text = ""


class TypeActivate(Model):
    """Which version is to be in force, at once or at a time."""

    version: VersionNumber
    at: When | None = None


class TypeRollback(Model):
    """Which version's content is to be in force again; absent: that of the version before the present one."""

    version: VersionNumber | None = None


class TypeUnschedule(Model):
    """Which scheduled version is to stay a draft."""

    version: VersionNumber


class TypeChange(BaseModel):
    """What differs between two versions, and what that means for data that the first one took.

    `refuses`: some of it would now be refused, with `code`; `loses`: it would be taken, but not all of it kept;
    `changes`: it would be read in another way; `widens`: all of it is taken.
    """

    path: str
    level: Literal["refuses", "loses", "changes", "widens"]
    detail: str
    code: str | None = None
    before: Any = None
    after: Any = None


class TypeDiff(BaseModel):
    """Two versions compared; `compatible`: nothing that the first one takes is refused by the second."""

    name: str
    before: int | None
    after: int | None
    compatible: bool
    changes: list[TypeChange]


class CheckRequest(Model):
    """What to check: a spec, or a version that there is already; against the version in force unless another is named.

    The dry run takes the traffic of the last `hours`, of all devices of the type unless some are named; 0 leaves it
    out.
    """

    spec: DeviceTypeSpec | None = None
    version: VersionNumber | None = None
    against: VersionNumber | None = None
    hours: Annotated[float, Field(ge=0, le=31 * 24)] = 24
    devices: Devices | None = None


class Example(BaseModel):
    """A reading, or an entry of the quarantine, with what would become of it."""

    device: str
    time: TimeNs
    field: str | None
    code: str
    detail: str
    entry: str | None = None  # of the quarantine


class TrafficReport(BaseModel):
    """What would have become of stored readings; they passed once, so whatever is refused is new.

    `complete`: all that is stored of the span was looked at; else the newest of it, from `since` on.
    """

    readings: int
    devices: int
    refused_readings: int  # of which at least a field would be refused
    refused_devices: int
    lost_fields: int  # that would be dropped, or kept under another type
    codes: dict[str, int]
    examples: list[Example]
    since: TimeNs | None
    complete: bool


class QuarantineReport(BaseModel):
    """What would become of entries that wait; `codes` counts those that would go on waiting."""

    entries: int
    devices: int
    would_pass: int
    codes: dict[str, int]
    examples: list[Example]
    complete: bool


class DryRun(BaseModel):
    """What a spec would have done to real data; null: it was not asked for, or nothing could be read."""

    traffic: TrafficReport | None = None
    quarantine: QuarantineReport | None = None


class CheckReport(TypeDiff, DryRun):
    """Compatibility, and the dry run; `note` says why there is none."""

    note: str = ""


class LearnRequest(Model):
    """From what to propose a type: named devices, or all of the type, over the last hours."""

    devices: Devices | None = None
    hours: Hours = 24
    note: Text = ""


class ObservedField(BaseModel):
    """A field as it was seen."""

    types: dict[str, int]  # type -> readings
    count: int
    low: float | None = None
    high: float | None = None


class Observation(BaseModel):
    """What was seen of some devices."""

    readings: int
    devices: int
    gap_s: float | None  # median time between two readings of a device
    fields: dict[str, ObservedField]
    complete: bool


class Learned(BaseModel):
    """A draft made from traffic, and what it rests on."""

    draft: TypeVersionDetail
    readings: int
    devices: int
    complete: bool


class TryRequest(Model):
    """What the registry asks ingestion: how a spec would have judged these devices' data."""

    spec: DeviceType
    devices: Annotated[list[DeviceId], Field(max_length=10_000)]
    tenant: Text
    hours: Annotated[float, Field(ge=0, le=31 * 24)]


class ObserveRequest(Model):
    """What the registry asks ingestion: what these devices sent."""

    devices: Annotated[list[DeviceId], Field(max_length=10_000)]
    tenant: Text
    hours: Hours


class Imported(BaseModel):
    """A version made from a JSON Schema; `ignored` lists what of it means nothing here."""

    version: TypeVersionDetail
    ignored: list[str]


class ReadyType(BaseModel):
    """A type that comes with the platform."""

    name: str
    description: str
    fields: list[str]
    installed: bool


class ReadyTypeList(BaseModel):
    """The types that come with the platform."""

    items: list[ReadyType]


class Install(Model):
    """Which of the shipped types to install; those that exist are left alone."""

    names: Annotated[list[Text], Field(min_length=1, max_length=100)]


class Installed(BaseModel):
    """What became of it."""

    installed: list[str]
    present: list[str]
