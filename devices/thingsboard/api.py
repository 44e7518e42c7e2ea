"""ThingsBoard's HTTP device API for attributes and RPC (docs: ingest/protocols/thingsboard/README.md). No rules.

Shared attributes are the desired part of the twin, client attributes the reported one, server-side RPC is a command.
Read in thingsboard/thingsboard, DeviceApiController and JsonConverter. Telemetry of the same API is not here.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import orjson
from flask import Response, request

from chassis import parking
from chassis.bodies import read_body
from chassis.web import Api, Call
from devices.commands import state as life
from devices.commands.service import CommandVerbs
from devices.commands.state import Command, CommandFilter, Reply, unknown
from devices.control.door import Claim, DeviceDoor
from devices.twins import merge
from devices.twins.api import MAX_WAIT_S
from devices.twins.service import TwinVerbs
from wire.devices import parse_bearer
from wire.errors import BadRequest, HeadwaterError
from wire.thingsboard import answer_to

BASE = "/api/v1/<token>"
BODY = {"type": "object", "description": "as ThingsBoard's clients send it"}
TIMED_OUT = 408  # what ThingsBoard says when there was nothing


def add_routes(api: Api, twins: TwinVerbs, commands: CommandVerbs, door: DeviceDoor) -> None:
    """Declare the routes."""
    _add_attributes(api, twins, door)
    _add_rpc(api, commands, door)
    _add_asking(api, door)


def _add_attributes(api: Api, twins: TwinVerbs, door: DeviceDoor) -> None:
    @api.route("GET", BASE + "/attributes", "own", answers={200: None}, is_on_loop=True)
    def get_thingsboard_attributes(call: Call) -> Response:
        """Give client and shared attributes: those of `clientKeys` and `sharedKeys` (commas between), or all."""
        device = parking.aside(door.authenticate, _claim(call, door))
        twin = parking.aside(twins.find, device.tenant, device.id)
        wanted = {"client": _keys("clientKeys"), "shared": _keys("sharedKeys")}
        is_all = not any(wanted.values())
        held = {"client": twin.reported, "shared": twin.desired}
        chosen = {name: dict(held[name]) if is_all else _pick(held[name], wanted[name]) for name in held}
        return _json({name: values for name, values in chosen.items() if values})

    @api.route("POST", BASE + "/attributes", "own", body=BODY, answers={200: None})
    def post_thingsboard_attributes(call: Call) -> Response:
        """Take client attributes: a merge patch of the reported part."""
        device = door.authenticate(_claim(call, door))
        twins.report(device, merge.read(read_body(merge.MAX_PATCH_BYTES)))
        return Response(status=200)

    @api.route("GET", BASE + "/attributes/updates", "own", answers={200: None, TIMED_OUT: None}, is_on_loop=True)
    def get_thingsboard_updates(call: Call) -> Response:
        """Wait at most `timeout` ms for a change of shared attributes; give those that are new, and `deleted` ones."""
        claim = _claim(call, door)
        device = parking.aside(door.authenticate, claim)
        before = parking.aside(twins.find, device.tenant, device.id)
        let_in = partial(door.authenticate, claim)
        found = twins.await_desired(device.id, let_in, before.desired_version, _wait_s())
        if found is None:
            return Response(status=TIMED_OUT)
        gone = sorted(before.desired.keys() - found.desired.keys())
        news = {key: value for key, value in found.desired.items() if _is_new(before.desired, key, value)}
        return _json(news | ({"deleted": gone} if gone else {}))


def _add_rpc(api: Api, commands: CommandVerbs, door: DeviceDoor) -> None:
    @api.route("GET", BASE + "/rpc", "own", answers={200: None, TIMED_OUT: None}, is_on_loop=True)
    def get_thingsboard_rpc(call: Call) -> Response:
        """Wait at most `timeout` ms for a command; give it as `id`, `method` and `params`."""
        claim = _claim(call, door)

        def take() -> list[Command]:
            return commands.hand_out([door.authenticate(claim)], "thingsboard", at_most=1)[0]

        found = commands.await_work(claim.device_id, partial(parking.aside, take), _wait_s())
        if not found:
            return Response(status=TIMED_OUT)
        command = found[0]
        return _json({"id": command.seq, "method": command.name, "params": orjson.loads(command.params)})

    @api.route("POST", BASE + "/rpc/<rpc_id>", "own", body=BODY, answers={200: None})
    def post_thingsboard_rpc(call: Call) -> Response:
        """Take the answer to a command: any JSON; `{"error": text}` says that it failed."""
        device = door.authenticate(_claim(call, door))
        reply, number = _read_reply(read_body(life.MAX_BYTES)), _number(call.path["rpc_id"])
        found = commands.search(CommandFilter(device.tenant, device.id, before_seq=number + 1, limit=1))
        if not found or found[0].seq != number:
            raise unknown(call.path["rpc_id"])
        outcome = commands.answer_all([(device.id, found[0].id, reply)])[0]
        if isinstance(outcome, HeadwaterError):
            raise outcome
        return Response(status=200)


def _add_asking(api: Api, door: DeviceDoor) -> None:
    @api.route("POST", BASE + "/rpc", "own", body=BODY, answers={200: None})
    def post_thingsboard_request(call: Call) -> Response:
        """Answer what a device asks of the server: `getCurrentTime` and `getSessionLimits`."""
        door.authenticate(_claim(call, door))
        return Response(orjson.dumps(answer_to(read_body(life.MAX_BYTES))), mimetype="application/json")

    @api.route("POST", BASE + "/claim", "own", body=BODY, answers={400: None})
    def post_thingsboard_claim(call: Call) -> Response:
        """Refuse: a device belongs to the tenant that it was registered in, nobody claims it."""
        door.authenticate(_claim(call, door))
        raise BadRequest("devices are not claimed here: an operator registers them, or they enrol", code="unsupported")


def _claim(call: Call, door: DeviceDoor) -> Claim:
    return door.to_claim(parse_bearer(call.path["token"]), call.remote_ip)


def _keys(name: str) -> list[str]:
    """Give the keys of a parameter: with commas between, or given several times."""
    return [key for given in request.args.getlist(name) for key in given.split(",") if key]


def _pick(held: Mapping[str, Any], keys: list[str]) -> dict[str, Any]:
    return {key: held[key] for key in keys if key in held}


def _is_new(before: Mapping[str, Any], key: str, value: Any) -> bool:
    return key not in before or before[key] != value


def _wait_s() -> float:
    """Read `timeout`, in ms; 0, absent or longer than may be: as long as may be."""
    given = request.args.get("timeout", "0")
    if not (given.isascii() and given.isdecimal() and len(given) < 12):  # noqa: PLR2004
        raise BadRequest("timeout: a number of milliseconds", fields=["timeout"])
    return min(int(given) / 1_000 or MAX_WAIT_S, MAX_WAIT_S)


def _number(rpc_id: str) -> int:
    if not (rpc_id.isascii() and rpc_id.isdecimal() and len(rpc_id) < 19):  # noqa: PLR2004
        raise unknown(rpc_id)
    return int(rpc_id)


def _read_reply(content: bytes) -> Reply:
    try:
        said = orjson.loads(content or b"null")
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the answer is not JSON: {error}", code="bad_syntax") from None
    if isinstance(said, dict) and said.keys() == {"error"}:
        return life.to_reply(said if isinstance(said["error"], str) else {"state": "failed", "result": said})
    return life.to_reply({"state": "succeeded", "result": said})


def _json(content: Mapping[str, Any]) -> Response:
    return Response(orjson.dumps(content), mimetype="application/json")
