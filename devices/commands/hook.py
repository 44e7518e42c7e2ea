"""Routes by which a protocol's service sends commands in its own form (docs/commands.md). HTTP in and out, no rules."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from chassis.web import Api, Call
from devices.commands import state as life
from devices.commands.service import CommandVerbs, show_down
from devices.commands.state import HandedOver, Reply
from wire.control import CommandReply
from wire.devices import DeviceId, Model, Text
from wire.errors import HeadwaterError

MAX_CLAIM = 500
MAX_ROUTED = 5_000
MAX_RETRY_S = 30 * 86_400  # as deadlines
Protocol = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")]


class Routing(Model):
    """Devices whose commands a protocol's service sends."""

    protocol: Protocol
    devices: Annotated[list[DeviceId], Field(max_length=MAX_ROUTED)]


class Claim(Model):
    """What a service can send now, and how long it waits for something."""

    protocol: Protocol
    limit: Annotated[int, Field(ge=1, le=MAX_CLAIM)] = 100
    wait: Annotated[float, Field(ge=0, le=4)] = 0.0  # below the 5 s of a call between services


class Report(CommandReply):
    """What became of a command; `is_sent` = it left towards the device."""

    id: Text
    device: DeviceId
    is_sent: bool = False
    attempt: Annotated[int, Field(ge=1)] | None = None  # of what was sent, as it was claimed
    retry_s: Annotated[float, Field(ge=1, le=MAX_RETRY_S)] | None = None  # how long the answer may take


class Reports(Model):
    """What became of commands."""

    protocol: Protocol
    reports: Annotated[list[Report], Field(max_length=MAX_CLAIM)]


def add_routes(api: Api, commands: CommandVerbs) -> None:
    """Declare the routes."""

    @api.route("POST", "/internal/commands:route", "service", callers=("ingest",), body=Routing)
    def route(call: Call) -> dict[str, Any]:
        """Note that a protocol's service sends the commands of these devices."""
        return {"routed": commands.route(call.body.protocol, call.body.devices)}

    @api.route("POST", "/internal/commands:claim", "service", callers=("ingest",), body=Claim, is_on_loop=True)
    def claim(call: Call) -> dict[str, Any]:
        """Give a protocol's service what it has to send; it reports within 30 s, or it is given out again."""
        found = commands.claim(call.body.protocol, call.body.limit, call.body.wait)
        return {"commands": [show_down(each).model_dump() | {"device": each.device} for each in found]}

    @api.route("POST", "/internal/commands:report", "service", callers=("ingest",), body=Reports)
    def report(call: Call) -> dict[str, Any]:
        """Note what became of commands; those that there are not are named."""
        given: list[Report] = call.body.reports
        left = [HandedOver(each.id, each.device, each.attempt, each.retry_s) for each in given if each.is_sent]
        unknown = commands.note_handed_over(left, call.body.protocol)
        told = [each for each in given if not each.is_sent]
        outcomes = commands.answer_all([(each.device, each.id, _reply(each)) for each in told])
        unknown += [each.id for each, got in zip(told, outcomes, strict=True) if isinstance(got, HeadwaterError)]
        return {"unknown": unknown}


def _reply(given: Report) -> Reply:
    return life.to_reply(given.model_dump(include={"state", "result", "error"}))
