"""What an edit makes of a twin. Pure: versions, conditions, limits; no store and no HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from devices.twins import merge
from devices.twins.merge import State
from wire.control import Part
from wire.errors import Conflict


@dataclass(slots=True, frozen=True)
class Twin:
    """A device's twin as stored; version 0 = never written."""

    tenant: str
    device: str
    desired: State = field(default_factory=dict)
    desired_version: int = 0
    desired_ns: int = 0
    reported: State = field(default_factory=dict)
    reported_version: int = 0
    reported_ns: int = 0

    def version(self, part: Part) -> int:
        """Version of one part."""
        return self.desired_version if part == "desired" else self.reported_version

    def state(self, part: Part) -> State:
        """Document of one part."""
        return self.desired if part == "desired" else self.reported


@dataclass(slots=True, frozen=True)
class Edit:
    """A change of one part of a twin, wanted by somebody."""

    device: str
    part: Part
    patch: Mapping[str, Any]
    actor: str
    is_whole: bool = False  # the patch is the new document
    expected: int | None = None  # the version that the part must have

    def with_device(self, device: str) -> Edit:
        """Give the same edit of another device."""
        return replace(self, device=device)


class Since(NamedTuple):
    """How far somebody has followed twins: a number of the counter `control`, and the device after which to go on."""

    revision: int
    device: str


def apply(twin: Twin, edit: Edit, now_ns: int) -> Twin:
    """Give the twin after an edit; one that changes nothing gives the same twin with the same version.

    Raises:
        Conflict: the part has another version than the edit expects (`twin_conflict`, with `version`).
        TooLarge: the document would be too large.
    """
    version = twin.version(edit.part)
    if edit.expected is not None and edit.expected != version:
        raise Conflict(
            f"{edit.part} of {edit.device} has version {version}, not {edit.expected}: read it again",
            code="twin_conflict",
            version=version,
        )
    old = twin.state(edit.part)
    new = merge.apply({} if edit.is_whole else old, edit.patch)
    merge.dump(new, edit.part)
    if version and merge.is_same(old, new):
        return twin
    if edit.part == "desired":
        return replace(twin, desired=new, desired_version=version + 1, desired_ns=now_ns)
    return replace(twin, reported=new, reported_version=version + 1, reported_ns=now_ns)
