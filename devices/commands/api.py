"""Routes of commands: for operators, for devices without MQTT, for services that speak for devices. No rules."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, NamedTuple

from flask import Response, request
from pydantic import Field

from chassis import parking
from chassis.bodies import read_body
from chassis.gathering import Gathering
from chassis.reach import Reaches
from chassis.web import Api, Call, answer
from devices.api import DEVICE, MAX_LIST, who
from devices.commands import state as life
from devices.commands.service import CommandVerbs, show, show_down, to_wanted
from devices.commands.state import Command, CommandFilter, Reply
from devices.control.door import Claim, DeviceDoor
from devices.query.reach import narrowed
from devices.query.tree import EVERY_DEVICE
from devices.twins.api import OwnQuery, Wait
from wire.control import CommandCreate, CommandPage, CommandsDown, CommandState, CommandView, Withdraw, Withdrawn
from wire.devices import Model, Text
from wire.errors import BadRequest, HeadwaterError

COMMAND = "/v1/commands/<command_id>"
WAITS = 4  # operators' waiting requests a process: each holds a thread; the others are answered at once
TOGETHER = 500  # devices answered by one transaction: others wait for it
KEY_CHARACTERS = 128
REPLY = {"type": "object", "description": "state (accepted, succeeded, failed), result, error: as over MQTT"}


class CommandQuery(Model):
    """Which commands to list."""

    device: Text | None = None
    state: CommandState | None = None
    name: Text | None = None
    job: Text | None = None
    limit: Annotated[int, Field(ge=1, le=MAX_LIST)] = 100
    cursor: Annotated[int, Field(ge=1, le=2**62)] | None = None


class OwnCommandQuery(Model):
    """Which commands of one device to list."""

    state: CommandState | None = None
    name: Text | None = None
    limit: Annotated[int, Field(ge=1, le=MAX_LIST)] = 100
    cursor: Annotated[int, Field(ge=1, le=2**62)] | None = None


class _Said(NamedTuple):
    claim: Claim
    command_id: str
    reply: Reply


class CommandWait(Model):
    """How long to wait, in seconds."""

    wait: Wait = 0.0


class OwnCommandWait(OwnQuery, CommandWait):
    """For whom, and how long to wait."""


def add_routes(api: Api, commands: CommandVerbs, door: DeviceDoor, reaches: Reaches) -> None:
    """Declare the public routes."""
    _add_sending(api, commands)
    _add_listing(api, commands)
    _add_one(api, commands, reaches)
    _add_devices_own(api, commands, door)


def _add_sending(api: Api, commands: CommandVerbs) -> None:
    @api.route("POST", DEVICE + "/commands", "operator", body=CommandCreate, answers={201: CommandView}, reach="path")
    def send_command(call: Call) -> CommandView:
        """Send a command; with an idempotency key, a repetition gives the same command."""
        wanted = to_wanted(call.path["device_id"], call.body, _key())
        return show(commands.send(call.actor.tenant, wanted, who(call)))


def _add_listing(api: Api, commands: CommandVerbs) -> None:
    def page(wanted: CommandFilter) -> CommandPage:
        found = commands.search(wanted)
        return CommandPage(
            items=list(map(show, found)), next=str(found[-1].seq) if len(found) == wanted.limit else None
        )

    @api.route("GET", DEVICE + "/commands", "viewer", query=OwnCommandQuery, answers={200: CommandPage})
    def list_device_commands(call: Call) -> CommandPage:
        """List the commands of a device, newest first."""
        given: OwnCommandQuery = call.query
        device = call.path["device_id"].replace("\0", "")
        tenant = call.actor.tenant
        return page(CommandFilter(tenant, device, given.state, given.name, None, given.cursor, given.limit))

    @api.route("GET", "/v1/commands", "viewer", query=CommandQuery, answers={200: CommandPage}, reach="narrowed")
    def list_commands(call: Call) -> CommandPage:
        """List commands, newest first."""
        given: CommandQuery = call.query
        wanted = CommandFilter(
            call.actor.tenant, given.device, given.state, given.name, given.job, given.cursor, given.limit
        )
        return page(replace(wanted, among=narrowed(call.actor, wanted.among)))


def _add_one(api: Api, commands: CommandVerbs, reaches: Reaches) -> None:
    places = threading.BoundedSemaphore(WAITS)  # of this process

    def find(call: Call) -> Command:
        found = commands.find(call.actor.tenant, call.path["command_id"])
        if call.actor.devices and not reaches.holds(call.actor, found.device):
            raise life.unknown(found.id)
        return found

    @api.route(
        "GET",
        COMMAND,
        "viewer",
        query=CommandWait,
        answers={200: CommandView},
        reach="narrowed",
        is_on_loop=True,
    )
    def get_command(call: Call) -> CommandView:
        """Show a command; with `wait`, when it has ended or the time is over."""
        found = parking.aside(find, call)
        if not call.query.wait or not places.acquire(blocking=False):
            return show(found)
        try:
            return show(commands.await_end(call.actor.tenant, found.id, call.query.wait))
        finally:
            places.release()

    @api.route("POST", "/v1/commands:cancel", "operator", body=Withdraw, answers={200: Withdrawn}, reach="narrowed")
    def cancel_commands(call: Call) -> Withdrawn:
        """End the commands of a bulk action that have not ended, 1,000 at once."""
        among = narrowed(call.actor, EVERY_DEVICE)
        return commands.cancel_of_job(call.actor.tenant, call.body.job.replace("\0", ""), who(call), among)

    @api.route("POST", COMMAND + ":cancel", "operator", answers={200: CommandView}, reach="narrowed")
    def cancel_command(call: Call) -> CommandView:
        """End a command; one that has ended stays as it is."""
        return show(commands.cancel(call.actor.tenant, find(call).id, who(call)))


def _add_devices_own(api: Api, commands: CommandVerbs, door: DeviceDoor) -> None:
    handing_out = Gathering(partial(_hand_out, commands, door), TOGETHER)
    keeping = Gathering(partial(_keep, commands, door), TOGETHER)

    @api.route(
        "GET",
        "/v1/device/commands",
        "own",
        query=OwnCommandWait,
        answers={200: CommandsDown, 204: None},
        is_on_loop=True,
    )
    def get_own_commands(call: Call) -> Response:
        """Give a device what it has to do; with `wait`, as soon as there is something."""
        query = call.query
        claim = door.read_claim(call.remote_ip, query.device)
        # For its children a gateway does not wait: they are many, and the places of those who wait are few.
        wait_s = 0 if query.device else query.wait
        found = commands.await_work(claim.subject, partial(handing_out.ask, claim), wait_s)
        shown = CommandsDown(commands=[show_down(command) for command in found])
        return answer(shown) if found else Response(status=204)

    @api.route(
        "POST",
        "/v1/device/commands/<command_id>/reply",
        "own",
        body=REPLY,
        query=OwnQuery,
        answers={200: CommandView},
        is_on_loop=True,
    )
    def reply_to_command(call: Call) -> CommandView:
        """Take a device's reply to a command."""
        claim = door.read_claim(call.remote_ip, call.query.device)
        return show(keeping.ask(_Said(claim, call.path["command_id"], life.read_reply(read_body(life.MAX_BYTES)))))


def _hand_out(
    commands: CommandVerbs, door: DeviceDoor, claims: Sequence[Claim]
) -> Sequence[list[Command] | HeadwaterError]:
    """Give those that are let in what they have to do."""
    let_in = door.authenticate_all(claims)
    found = iter(commands.hand_out([each for each in let_in if not isinstance(each, HeadwaterError)]))
    return [each if isinstance(each, HeadwaterError) else next(found) for each in let_in]


def _keep(commands: CommandVerbs, door: DeviceDoor, said: Sequence[_Said]) -> Sequence[Command | HeadwaterError]:
    """Take the replies of those that are let in."""
    let_in = door.authenticate_all([each.claim for each in said])
    pairs = zip(let_in, said, strict=True)
    replies = [(who.id, each.command_id, each.reply) for who, each in pairs if not isinstance(who, HeadwaterError)]
    kept = iter(commands.answer_all(replies))
    return [each if isinstance(each, HeadwaterError) else next(kept) for each in let_in]


def _key() -> str | None:
    key = request.headers.get("Idempotency-Key")
    if key is not None and not (0 < len(key) <= KEY_CHARACTERS and key.isascii() and key.isprintable()):
        raise BadRequest(f"Idempotency-Key: 1 to {KEY_CHARACTERS} printable characters", fields=["Idempotency-Key"])
    return key
