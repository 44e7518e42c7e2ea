"""The verbs of twins: read, edit on condition, history. Knows no HTTP and no SQL."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from chassis import parking
from chassis.metrics import Counter
from devices.control.news import Bell
from devices.rows import Who
from devices.twins import edit as rules
from devices.twins import merge
from devices.twins.edit import Edit, Twin
from wire.control import Part, TwinChange, TwinView
from wire.devices import DeviceIdentity
from wire.errors import BadRequest, HeadwaterError, NotFound
from wire.topics import is_device_id

EDITS = Counter("headwater_twin_edits", "Edits of twins by the part and what became of them", ["part", "end"])
Place = tuple[int, int, str]


class Twins(Protocol):
    """Where twins are kept; see `devices.twins.store.TwinStore`."""

    def find(self, tenant: str, device: str) -> Twin: ...
    def edit(
        self,
        edits: Sequence[Edit],
        judge: Callable[[Twin, Edit, int], Twin],
        *,
        tenant: str | None = None,
        who: Who | None = None,
    ) -> list[Twin | HeadwaterError]: ...
    def history(
        self, tenant: str, device: str, part: Part | None, before: Place | None, limit: int
    ) -> list[TwinChange]: ...


class TwinVerbs:
    """Twins as operators and devices use them; thread-safe."""

    def __init__(self, store: Twins, bell: Bell) -> None:
        self._store = store
        self._bell = bell

    def find(self, tenant: str, device: str) -> Twin:
        """Give a device's twin.

        Raises:
            NotFound: no such device.
        """
        return self._store.find(tenant, _legal(device))

    def desire(self, tenant: str, edit: Edit, who: Who) -> Twin:
        """Change what a device is wanted to be.

        Raises:
            NotFound: no such device.
            Conflict: the desired part has another version than expected.
            TooLarge: it would be too large.
        """
        _legal(edit.device)
        return self._one(self._store.edit([edit], rules.apply, tenant=tenant, who=who), edit)

    def desire_all(self, tenant: str, edits: Sequence[Edit], who: Who) -> list[Twin | HeadwaterError]:
        """Change what many devices are wanted to be, in one transaction; each edit has its own outcome."""
        outcomes = self._store.edit(edits, rules.apply, tenant=tenant, who=who)
        self._count(edits, outcomes)
        self._bell.ring()
        return outcomes

    def report(self, device: DeviceIdentity, patch: Mapping[str, Any], expected: int | None = None) -> Twin:
        """Take what a device says of itself. Raises as `desire`."""
        edit = Edit(device.id, "reported", patch, f"device:{device.id}", expected=expected)
        return self._one(self._store.edit([edit], rules.apply, tenant=device.tenant), edit)

    def report_all(self, edits: Sequence[Edit]) -> list[Twin | HeadwaterError]:
        """Take what many devices say of themselves, in their order; each edit has its own outcome."""
        outcomes = self._store.edit(edits, rules.apply)
        self._count(edits, outcomes)
        self._bell.ring()
        return outcomes

    def await_desired(
        self, device_id: str, let_in: Callable[[], DeviceIdentity], since: int, wait_s: float
    ) -> Twin | None:
        """Give a device's twin as soon as its desired version is another than `since`; None when the time is over.

        Any other one: a version that is lower than the device's belongs to a registry from a backup.

        Args:
            device_id: who says to wait.
            let_in: checks the device's credential; a device that is disabled meanwhile is sent away at once.
            since: the version it knows.
            wait_s: how long, in seconds.
        """

        def look() -> Twin | None:
            device = let_in()
            twin = self._store.find(device.tenant, device.id)
            return twin if twin.desired_version != since else None

        return self._bell.wait(device_id, lambda: parking.aside(look), wait_s, is_own=True)

    def history(self, tenant: str, device: str, part: Part | None, cursor: str, limit: int) -> list[TwinChange]:
        """Give changes of a twin, newest first, after the place that a cursor names.

        Raises:
            NotFound: no such device.
            BadRequest: the cursor is not one of ours.
        """
        self.find(tenant, device)
        return self._store.history(tenant, device, part, _place(cursor), limit)

    def _one(self, outcomes: Sequence[Twin | HeadwaterError], edit: Edit) -> Twin:
        self._count([edit], outcomes)
        self._bell.ring()
        if isinstance(outcomes[0], HeadwaterError):
            raise outcomes[0]
        return outcomes[0]

    def _count(self, edits: Sequence[Edit], outcomes: Sequence[Twin | HeadwaterError]) -> None:
        for edit, outcome in zip(edits, outcomes, strict=True):
            EDITS.labels(edit.part, outcome.code if isinstance(outcome, HeadwaterError) else "taken").inc()


def show(twin: Twin) -> TwinView:
    """Render a twin."""
    return TwinView(
        device=twin.device,
        desired=twin.desired,
        desired_version=twin.desired_version,
        desired_time=twin.desired_ns or None,
        reported=twin.reported,
        reported_version=twin.reported_version,
        reported_time=twin.reported_ns or None,
        delta=merge.delta(twin.desired, twin.reported),
    )


def cursor_of(change: TwinChange) -> str:
    """Name the place of a change."""
    return f"{change.time}.{change.version}.{change.part}"


def _place(cursor: str) -> Place | None:
    if not cursor:
        return None
    parts = cursor.split(".")
    if len(parts) != 3 or not all(part.isdecimal() and len(part) < 20 for part in parts[:2]):  # noqa: PLR2004
        raise BadRequest("not a cursor of this list", fields=["cursor"])
    return int(parts[0]), int(parts[1]), parts[2]


def _legal(device: str) -> str:
    if not is_device_id(device):
        raise NotFound(f"no device {device[:80]!r}", code="device_not_found")
    return device
