"""Bodies about dry runs as jobs: all readings of some hours against a version of a device type, slice by slice."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from wire.devices import DeviceId, DeviceType, DeviceTypeSpec, Model, Text
from wire.points import TimeNs
from wire.schemas import Devices, Example, Hours, VersionNumber

MAX_DEVICES = 500  # of one slice: what is known of each travels with the job's progress
Chunk = Annotated[list[DeviceId], Field(min_length=1, max_length=MAX_DEVICES)]


class DryRunRequest(Model):
    """What to try: a spec, or a version that there is already, on all readings of the last hours, or on a sample.

    Of a sample whole minutes are judged, chosen at random over the span: `sample` is their share.
    """

    spec: DeviceTypeSpec | None = None
    version: VersionNumber | None = None
    hours: Hours = 24
    devices: Devices | None = None
    sample: Annotated[float, Field(gt=0, le=1)] = 1


class Place(Model):
    """What some devices sent in a span of time."""

    devices: Chunk
    tenant: Text
    start: TimeNs
    end: TimeNs


class Counted(BaseModel):
    """How many readings of a place are stored."""

    readings: int


class SliceRequest(Place):
    """What the registry asks ingestion: to judge what some devices sent, from a cursor on, for a moment."""

    spec: DeviceType
    sample: float = 1
    cursor: Annotated[str, Field(max_length=2_000)] = ""


class DeviceVerdict(BaseModel):
    """What would become of a device's readings; `codes` counts faults by reason."""

    readings: int = 0
    refused: int = 0
    codes: dict[str, int] = {}


class Slice(BaseModel):
    """What was judged in that moment; `next` is where to go on, null at the end."""

    devices: dict[str, DeviceVerdict]
    lost_fields: int
    examples: list[Example]
    since: TimeNs | None
    next: str | None


class WaitingRequest(Model):
    """What the registry asks ingestion: to judge what waits of some devices, below an entry's number."""

    spec: DeviceType
    devices: Chunk
    tenant: Text
    before: Annotated[int, Field(ge=1)] | None = None


class WaitingSlice(BaseModel):
    """What was judged of the quarantine in a moment; by device the verdict on its entries."""

    devices: dict[str, DeviceVerdict]
    examples: list[Example]
    next: int | None


class Worst(BaseModel):
    """A device of which readings would be refused, or of which entries wait."""

    device: str
    readings: int
    refused: int
    codes: dict[str, int]
    waiting: int
    would_pass: int


class DryRunReport(BaseModel):
    """What a dry run has found so far: the `result` of its job. Its download has a line for each device, as `Worst`.

    `stored`: readings that the span holds; `codes` counts faults and `code_devices` devices, by reason.
    """

    stored: int = 0
    sample: float = 1
    start: TimeNs
    end: TimeNs
    readings: int = 0
    devices: int = 0
    refused_readings: int = 0
    refused_devices: int = 0
    lost_fields: int = 0
    codes: dict[str, int] = {}
    code_devices: dict[str, int] = {}
    waiting: int = 0
    would_pass: int = 0
    examples: list[Example] = []
    worst: list[Worst] = []
