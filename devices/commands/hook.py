"""Routes by which a protocol's service sends commands in its own form (docs/commands.md). HTTP in and out, no rules."""

from __future__ import annotations

import binascii
from base64 import b64decode
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from chassis.web import Api, Call
from devices.commands import state as life
from devices.commands.service import CommandVerbs, show_down
from devices.commands.state import Claimed, Form, HandedOver, Reply
from wire.control import CommandReply
from wire.devices import DeviceId, Model, Text
from wire.errors import HeadwaterError

MAX_CLAIM = 500
MAX_ROUTED = 5_000
MAX_RETRY_S = 30 * 86_400  # as deadlines
MAX_FORM = 128 * 1024  # of Base64
PLATFORMS = ("devices/", "headwater/", "$")  # topics that no service may have something published on
Protocol = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")]


def _check_base64(text: str) -> str:
    try:
        b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("not Base64") from error
    return text


def _check_topic(topic: str) -> str:
    if topic.startswith(PLATFORMS):
        raise ValueError("a topic of the platform's own")
    return topic


class Routing(Model):
    """Devices whose commands a protocol's service sends, or (`ends`) sends no longer."""

    protocol: Protocol
    ends: bool = False
    devices: Annotated[list[DeviceId], Field(max_length=MAX_ROUTED)]


class Claim(Model):
    """What a service can send now, and how long it waits for something."""

    protocol: Protocol
    limit: Annotated[int, Field(ge=1, le=MAX_CLAIM)] = 100
    wait: Annotated[float, Field(ge=0, le=4)] = 0.0  # below the 5 s of a call between services


class Publication(Model):
    """A command as the devices of a protocol read it, to be published by the registry."""

    topic: Annotated[str, Field(min_length=1, max_length=1_024, pattern=r"^[^+#\x00]+$"), AfterValidator(_check_topic)]
    payload: Annotated[str, Field(max_length=MAX_FORM), AfterValidator(_check_base64)]
    qos: Annotated[int, Field(ge=0, le=1)] = 0


class Report(CommandReply):
    """What became of a command; `is_sent` = it left towards the device, `publish` = it is to leave so."""

    id: Text
    device: DeviceId
    is_sent: bool = False
    publish: Publication | None = None
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
        """Note that a protocol's service sends the commands of these devices, or no longer."""
        return {"routed": commands.route(call.body.protocol, call.body.devices, ends=call.body.ends)}

    @api.route("POST", "/internal/commands:claim", "service", callers=("ingest",), body=Claim, is_on_loop=True)
    def claim(call: Call) -> dict[str, Any]:
        """Give a protocol's service what it has to send; it reports within 30 s, or it is given out again."""
        found = commands.claim(call.body.protocol, call.body.limit, call.body.wait)
        return {"commands": [_show(each) for each in found]}

    @api.route("POST", "/internal/commands:report", "service", callers=("ingest",), body=Reports)
    def report(call: Call) -> dict[str, Any]:
        """Note what became of commands; those that there are not are named."""
        given: list[Report] = call.body.reports
        via: str = call.body.protocol
        forms = {each.id: (each.device, each.attempt or 0, _form(each, via)) for each in given if each.publish}
        left = [HandedOver(each.id, each.device, each.attempt, each.retry_s) for each in given if each.is_sent]
        unknown = [*commands.publish(forms), *commands.note_handed_over(left, via)]
        told = [each for each in given if not each.is_sent and not each.publish]
        outcomes = commands.answer_all([(each.device, each.id, _reply(each)) for each in told])
        unknown += [each.id for each, got in zip(told, outcomes, strict=True) if isinstance(got, HeadwaterError)]
        return {"unknown": unknown}


def _show(claimed: Claimed) -> dict[str, Any]:
    command = claimed.command
    whose = {"device": command.device, "tenant": command.tenant, "gateway": claimed.gateway, "names": claimed.names}
    return show_down(command).model_dump() | whose


def _form(given: Report, via: str) -> Form:
    asked = given.publish or Publication(topic="-", payload="")
    return Form(asked.topic, asked.payload, via, asked.qos, given.retry_s)


def _reply(given: Report) -> Reply:
    return life.to_reply(given.model_dump(include={"state", "result", "error"}))
