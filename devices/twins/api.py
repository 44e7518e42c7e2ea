"""Routes of twins, for operators and for the devices themselves: HTTP in and out, no rules."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from flask import Response
from pydantic import Field

from chassis import parking
from chassis.bodies import read_body
from chassis.web import Api, Call, answer
from devices.api import DEVICE, MAX_LIST, who
from devices.control.conditions import expected_version
from devices.control.door import DeviceDoor
from devices.twins import merge
from devices.twins.edit import Edit, Twin
from devices.twins.service import TwinVerbs, cursor_of, show
from wire.control import DesiredView, Part, ReportedView, TwinAnswer, TwinHistory, TwinView
from wire.devices import DeviceIdentity, Model, Text

MAX_WAIT_S = 50.0  # below the gateway's 60 s
TWIN = DEVICE + "/twin"
PATCH = {"type": "object", "description": "a JSON merge patch (RFC 7396), 64 KiB at most"}
DOCUMENT = {"type": "object", "description": "the whole document, 32 KiB at most"}
Wait = Annotated[float, Field(ge=0, le=MAX_WAIT_S)]


class HistoryQuery(Model):
    """Which changes to list."""

    part: Part | None = None
    limit: Annotated[int, Field(ge=1, le=MAX_LIST)] = 100
    cursor: Text = ""


class OwnQuery(Model):
    """For whom a gateway speaks."""

    device: Text | None = None  # its child; absent: itself


class TwinWait(OwnQuery):
    """What the device has, and how long it waits for something else."""

    since: Annotated[int, Field(ge=0, le=2**62)] | None = None
    wait: Wait = 0.0


def add_routes(api: Api, twins: TwinVerbs, door: DeviceDoor) -> None:
    """Declare the routes."""
    _add_reading(api, twins)
    _add_writing(api, twins)
    _add_devices_own(api, twins, door)


def _add_reading(api: Api, twins: TwinVerbs) -> None:
    @api.route("GET", TWIN, "viewer", answers={200: TwinView})
    def get_twin(call: Call) -> Response:
        """Show a device's twin: desired, reported, and what is not reported yet."""
        return _show(twins.find(call.actor.tenant, call.path["device_id"]))

    @api.route("GET", TWIN + "/desired", "viewer", answers={200: DesiredView})
    def get_desired(call: Call) -> Response:
        """Show the desired part."""
        return _show_desired(twins.find(call.actor.tenant, call.path["device_id"]))

    @api.route("GET", TWIN + "/reported", "viewer", answers={200: ReportedView})
    def get_reported(call: Call) -> Response:
        """Show the reported part."""
        twin = twins.find(call.actor.tenant, call.path["device_id"])
        shown = ReportedView(
            device=twin.device, version=twin.reported_version, time=twin.reported_ns or None, reported=twin.reported
        )
        return answer(shown, headers={"ETag": f'"{twin.reported_version}"'})

    @api.route("GET", TWIN + "/history", "viewer", query=HistoryQuery, answers={200: TwinHistory})
    def get_history(call: Call) -> TwinHistory:
        """List who changed what of a twin, newest first."""
        query: HistoryQuery = call.query
        found = twins.history(call.actor.tenant, call.path["device_id"], query.part, query.cursor, query.limit)
        return TwinHistory(items=found, next=cursor_of(found[-1]) if len(found) == query.limit else None)


def _add_writing(api: Api, twins: TwinVerbs) -> None:
    def desire(call: Call, patch: dict[str, Any], *, is_whole: bool) -> Twin:
        by = who(call)
        edit = Edit(call.path["device_id"], "desired", patch, by.actor, is_whole, expected_version())
        return twins.desire(call.actor.tenant, edit, by)

    @api.route("PATCH", TWIN, "operator", body=PATCH, answers={200: TwinView}, reach="path")
    def patch_twin(call: Call) -> Response:
        """Change what a device is wanted to be: a merge patch below `desired`."""
        return _show(desire(call, _desired_member(), is_whole=False))

    @api.route("PUT", TWIN, "operator", body=DOCUMENT, answers={200: TwinView}, reach="path")
    def put_twin(call: Call) -> Response:
        """Replace what a device is wanted to be: the document below `desired`."""
        return _show(desire(call, _desired_member(), is_whole=True))

    @api.route("PATCH", TWIN + "/desired", "operator", body=PATCH, answers={200: DesiredView}, reach="path")
    def patch_desired(call: Call) -> Response:
        """Change the desired part by a merge patch."""
        return _show_desired(desire(call, _document(), is_whole=False))

    @api.route("PUT", TWIN + "/desired", "operator", body=DOCUMENT, answers={200: DesiredView}, reach="path")
    def put_desired(call: Call) -> Response:
        """Replace the desired part."""
        return _show_desired(desire(call, _document(), is_whole=True))


def _add_devices_own(api: Api, twins: TwinVerbs, door: DeviceDoor) -> None:
    def let_in(call: Call) -> DeviceIdentity:
        return parking.aside(door.authenticate, door.read_claim(call.remote_ip, call.query.device))

    @api.route("GET", "/v1/device/twin", "own", query=TwinWait, answers={200: TwinView, 204: None}, is_on_loop=True)
    def get_own_twin(call: Call) -> Response:
        """Give a device its own twin; with `since` and `wait`, as soon as its desired version is another one."""
        query = call.query
        if query.since is None:
            device = let_in(call)
            return _show(parking.aside(twins.find, device.tenant, device.id))
        claim = door.read_claim(call.remote_ip, query.device)
        let_in_again = partial(door.authenticate, claim)
        found = twins.await_desired(claim.subject, let_in_again, query.since, 0 if query.device else query.wait)
        return Response(status=204) if found is None else _show(found)

    @api.route("PATCH", "/v1/device/twin/reported", "own", body=PATCH, query=OwnQuery, answers={200: TwinAnswer})
    def patch_own_reported(call: Call) -> Response:
        """Take what a device says of itself: a merge patch."""
        twin = twins.report(let_in(call), _document(), expected_version())
        taken = TwinAnswer(version=twin.reported_version, time=twin.reported_ns or None)
        return answer(taken, headers={"ETag": f'"{twin.reported_version}"'})


def _document() -> dict[str, Any]:
    return merge.read(read_body(merge.MAX_PATCH_BYTES))


def _desired_member() -> dict[str, Any]:
    given = _document()
    if set(given) != {"desired"}:
        raise merge.not_desired(given)
    return merge.check(given["desired"])


def _show(twin: Twin) -> Response:
    return answer(show(twin), headers={"ETag": f'"{twin.desired_version}.{twin.reported_version}"'})


def _show_desired(twin: Twin) -> Response:
    shown = DesiredView(
        device=twin.device, version=twin.desired_version, time=twin.desired_ns or None, desired=twin.desired
    )
    return answer(shown, headers={"ETag": f'"{twin.desired_version}"'})
