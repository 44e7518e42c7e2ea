"""The route by which a protocol's service follows what devices are wanted to be (docs/twin.md). HTTP, no rules."""

from __future__ import annotations

from typing import Annotated, Any, Protocol

from pydantic import Field

from chassis import parking
from chassis.web import Api, Call
from devices.control.news import ANY, Bell
from devices.twins.edit import Since, Twin
from wire.devices import DeviceId, Model, Text

MOST = 500


class Changes(Protocol):
    """Twins by when they changed; see `devices.twins.store.DesiredStore`."""

    def now(self) -> Since: ...
    def changed(self, since: Since, limit: int) -> list[tuple[Since, Twin]]: ...
    def of(self, devices: list[str]) -> list[Twin]: ...


class Following(Model):
    """Whose desired parts: those of these devices now, or those that change after a place."""

    devices: Annotated[list[DeviceId], Field(max_length=MOST)] = []
    since: tuple[Annotated[int, Field(ge=0, le=2**62)], Text] | None = None
    wait: Annotated[float, Field(ge=0, le=4)] = 0.0  # below the 5 s of a call between services


def add_routes(api: Api, changes: Changes, bell: Bell) -> None:
    """Declare the route."""

    @api.route("POST", "/internal/twins:desired", "service", callers=("ingest",), body=Following, is_on_loop=True)
    def follow(call: Call) -> dict[str, Any]:
        """Give desired parts: of the devices that are named, else of those whose twin changed since a place."""
        asked: Following = call.body
        if asked.devices:
            return {"twins": [_show(twin) for twin in parking.aside(changes.of, asked.devices)], "next": None}
        now = parking.aside(changes.now)
        if asked.since is None or asked.since[0] > now.revision:  # a registry from a backup counts from less
            return {"twins": [], "next": [*now]}
        since = Since(*asked.since)
        found = bell.wait(ANY, lambda: parking.aside(changes.changed, since, MOST) or None, asked.wait) or []
        return {"twins": [_show(twin) for _, twin in found], "next": [*(found[-1][0] if found else since)]}


def _show(twin: Twin) -> dict[str, Any]:
    return {"device": twin.device, "version": twin.desired_version, "desired": twin.desired}
