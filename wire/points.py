"""Points: what a reading becomes. Knows no protocol, transport or store."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Protocol

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer

from wire import clock

FieldValue = float | int | bool | str
INT64_MIN, INT64_MAX, UINT64_MAX = -(2**63), 2**63 - 1, 2**64 - 1

# Flags of a reading; a bit each, so that a spool frame carries one small int.
UNCERTAIN = 1  # the time was guessed or clamped
RETAINED = 2  # delivered from the broker's retained store
HISTORICAL = 4  # never moves the latest value
SIMULATED = 8
SERVER_TIME = 16  # the device sent no time: time of arrival, fixed at first acceptance
REDELIVERED = 32  # the broker marked it DUP: it may have been accepted before
FUTURE = 64  # later than arrival + 10 min under an exact policy: stored, never the latest
ALERTING = 128  # history that alerts are told of all the same


@dataclass(slots=True, frozen=True)
class Point:
    """A measurement of one device at one time. Fields keep their exact type: float, int (to 2^64-1), bool, str."""

    device: str
    measurement: str
    time_ns: int
    fields: dict[str, FieldValue]
    tags: dict[str, str] = field(default_factory=dict)
    tenant: str = "default"
    moves_latest: bool = True  # False for historical, simulated, retained and future points
    judged_by: int = 0  # `version_id` of the device type's version that it passed; 0: the device had no type


class PointLike(Protocol):
    """What stores and viewers read of a point: a Point, or an object of the hot path that need not become one."""

    @property
    def device(self) -> str: ...
    @property
    def measurement(self) -> str: ...
    @property
    def time_ns(self) -> int: ...
    @property
    def fields(self) -> dict[str, FieldValue]: ...
    @property
    def tags(self) -> dict[str, str]: ...
    @property
    def tenant(self) -> str: ...
    @property
    def moves_latest(self) -> bool: ...
    @property
    def judged_by(self) -> int: ...


def _to_ns(value: Any) -> Any:
    return clock.parse_time(value) if isinstance(value, str) else value


TimeNs = Annotated[int, BeforeValidator(_to_ns), PlainSerializer(clock.format_ns, return_type=str)]


class JudgedBy(BaseModel):
    """The version of a device type that a point passed; type and version are null while the registry is away."""

    id: int
    type: str | None = None
    version: int | None = None


class PointModel(BaseModel):
    """A point in JSON, everywhere (docs/http.md); `judged_by` and `described` only where they are asked for."""

    model_config = ConfigDict(extra="forbid")

    device: str
    measurement: str
    time: TimeNs
    tags: dict[str, str] = {}
    fields: dict[str, FieldValue]
    judged_by: JudgedBy | None = None
    described: dict[str, dict[str, str | float]] | None = None  # by field: unit, label, kind, min, max, description


def point_to_json(point: PointLike) -> dict[str, Any]:
    """Render a point in its public JSON shape, ready for an encoder."""
    return {
        "device": point.device,
        "measurement": point.measurement,
        "time": clock.format_ns(point.time_ns),
        "tags": point.tags,
        "fields": point.fields,
    }
