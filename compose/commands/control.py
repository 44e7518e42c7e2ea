"""`headwater command` and `headwater twin`: state and control of devices from the shell."""

from __future__ import annotations

import argparse
import json
from typing import Any

from compose import tables
from compose.client import add_group, at_least_one, connect, finish, pages, path
from compose.folder import StartError

COMMAND_COLUMNS = ("id", "device", "name", "state", "created", "ended", "result", "error")
TWIN_COLUMNS = ("device", "desired_version", "desired", "reported_version", "reported", "delta")
TURN_S = 4.0  # a request that waits, below the client's own limit


def configure(commands: Any) -> None:
    """Add the commands."""
    command = add_group(commands, "command", "send commands to devices and follow them")
    _add_send(command)
    listing = command.add_parser("list", help="list commands, newest first")
    listing.add_argument("--device", metavar="ID")
    listing.add_argument("--state", metavar="STATE")
    listing.add_argument("--name", metavar="NAME")
    listing.add_argument("--limit", type=at_least_one, metavar="N", help="at most so many (default: all)")
    finish(listing, _list)
    one = command.add_parser("show", help="show a command")
    one.add_argument("id")
    finish(one, _show)
    cancel = command.add_parser("cancel", help="end a command, or all that a bulk action sent")
    which = cancel.add_mutually_exclusive_group(required=True)
    which.add_argument("id", nargs="?")
    which.add_argument("--job", metavar="ID", help="of the bulk action")
    finish(cancel, _cancel)
    wait = command.add_parser("wait", help="wait for the end of a command; exit code 0 only when it succeeded")
    wait.add_argument("id")
    wait.add_argument("--timeout", type=float, default=300.0, metavar="S", help="default 300")
    finish(wait, _wait)
    _add_twin(add_group(commands, "twin", "show and change what devices are wanted to be"))


def _add_send(command: Any) -> None:
    send = command.add_parser("send", help="send a command to a device")
    send.add_argument("device")
    send.add_argument("name")
    send.add_argument("--params", default="{}", metavar="JSON")
    send.add_argument("--deadline", type=float, default=300.0, metavar="S", help="seconds (default 300)")
    send.add_argument("--qos", type=int, choices=(0, 1), default=1)
    send.add_argument("--retries", type=int, default=5, metavar="N")
    send.add_argument("--key", metavar="KEY", help="idempotency key: a repetition is the same command")
    send.add_argument("--wait", type=float, default=0.0, metavar="S", help="for its end; exit code as of `wait`")
    finish(send, _send)


def _add_twin(twin: Any) -> None:
    show = twin.add_parser("show", help="show a device's twin")
    show.add_argument("id")
    finish(show, _show_twin)
    change = twin.add_parser("set", help="change what a device is wanted to be, by a merge patch")
    change.add_argument("id")
    change.add_argument("patch", metavar="JSON")
    change.add_argument("--replace", action="store_true", help="it is the whole document")
    finish(change, _set_twin)


def _send(given: argparse.Namespace) -> int:
    body = {"name": given.name, "params": _json(given.params), "deadline_s": given.deadline, "qos": given.qos}
    body |= {"retries": given.retries} | ({"idempotency_key": given.key} if given.key else {})
    sent = connect(given).call("POST", path("devices", given.device, "commands"), body)
    if given.wait:
        given.id, given.timeout = sent["id"], given.wait
        return _wait(given)
    return _tell(given, [sent])


def _list(given: argparse.Namespace) -> int:
    wanted = {"device": given.device, "state": given.state, "name": given.name}
    return _tell(given, pages(connect(given), "commands", limit=given.limit, **wanted))


def _show(given: argparse.Namespace) -> int:
    return _tell(given, [connect(given).call("GET", path("commands", given.id))])


def _cancel(given: argparse.Namespace) -> int:
    if given.job is None:
        return _tell(given, [connect(given).call("POST", path("commands", f"{given.id}:cancel"))])
    cancelled, is_open = 0, True
    while is_open:
        told = connect(given).call("POST", "/v1/commands:cancel", {"job": given.job})
        cancelled, is_open = cancelled + told["cancelled"], told["open"]
    tables.show([{"job": given.job, "cancelled": cancelled}], ("job", "cancelled"), as_json=given.json)
    return 0


def _wait(given: argparse.Namespace) -> int:
    peer, left_s = connect(given), given.timeout
    while True:
        found = peer.call("GET", f"{path('commands', given.id)}?wait={min(left_s, TURN_S)}")
        left_s -= TURN_S
        if found["ended"] is not None or left_s <= 0:
            break
    _tell(given, [found])
    return 0 if found["state"] == "succeeded" else 1


def _show_twin(given: argparse.Namespace) -> int:
    return _tell_twin(given, connect(given).call("GET", path("devices", given.id, "twin")))


def _set_twin(given: argparse.Namespace) -> int:
    body = {"desired": _json(given.patch)}
    method = "PUT" if given.replace else "PATCH"
    return _tell_twin(given, connect(given).call(method, path("devices", given.id, "twin"), body))


def _tell(given: argparse.Namespace, rows: Any) -> int:
    tables.show(rows, COMMAND_COLUMNS, as_json=given.json)
    return 0


def _tell_twin(given: argparse.Namespace, twin: Any) -> int:
    tables.show([twin], TWIN_COLUMNS, as_json=given.json)
    return 0


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise StartError(f"{text[:60]!r} is not JSON: {error}") from None
