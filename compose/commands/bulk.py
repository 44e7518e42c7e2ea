"""`headwater device bulk`, `command`, `desire`, and `rotate --where`: the same for all devices that a query finds."""

from __future__ import annotations

import argparse
import json
from typing import Any

from compose import tables
from compose.client import connect, finish, path
from compose.commands.finding import add_patch, pointing_at, to_patch
from compose.commands.jobs import follow, show_job
from compose.folder import StartError

EXAMPLE_COLUMNS = ("id", "type", "state", "presence", "fw", "tags")
EXAMPLES = 10
SIMPLE = ("disable", "enable", "retire", "delete")


def add_bulk(actions: Any) -> None:
    """Add the commands below `headwater device`."""
    bulk = actions.add_parser("bulk", help="do the same to all devices that a query finds")
    bulk.add_argument("where", metavar="QUERY", help="see docs/query.md; 'id~*' is every device")
    add_patch(bulk)
    for name in SIMPLE:
        bulk.add_argument(f"--{name}", dest="do", action="store_const", const=name, help=f"{name} them")
    bulk.add_argument("--put-in", metavar="GROUP", help="put them into a group")
    bulk.add_argument("--take-out", metavar="GROUP", help="take them out of a group")
    _add_ways(bulk)
    finish(bulk, _bulk)
    _add_command(actions)
    desire = actions.add_parser("desire", help="change what all devices that a query finds are wanted to be")
    desire.add_argument("patch", metavar="JSON", help="a merge patch of the twin's desired part")
    add_where(desire, is_required=True)
    _add_ways(desire)
    finish(desire, _desire)


def add_where(parser: argparse.ArgumentParser, *, is_required: bool = False) -> None:
    """Add `--where`."""
    help_text = "all devices that it finds (docs/query.md); 'id~*' is every device"
    parser.add_argument("--where", metavar="QUERY", required=is_required, help=help_text)


def show_found(given: argparse.Namespace) -> int:
    """Tell how many devices a query finds, and the first of them; for what has no preview of its own."""
    peer = connect(given)
    with pointing_at(given.where):
        count = peer.call("GET", path("devices:count", q=given.where, exact="true"))["count"]
        examples = peer.call("GET", path("devices", q=given.where, limit=str(EXAMPLES)))["items"]
    return _show_preview(given, {"count": count, "examples": examples})


def _add_command(actions: Any) -> None:
    command = actions.add_parser("command", help="send a command to all devices that a query finds")
    command.add_argument("name")
    add_where(command, is_required=True)
    command.add_argument("--params", default="{}", metavar="JSON")
    command.add_argument("--deadline", type=float, default=300.0, metavar="S", help="seconds (default 300)")
    command.add_argument("--qos", type=int, choices=(0, 1), default=1)
    command.add_argument("--retries", type=int, default=5, metavar="N")
    _add_ways(command)
    finish(command, _command)


def _add_ways(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preview", action="store_true", help="only tell how many and which")
    parser.add_argument("--no-wait", action="store_true", help="do not wait until it is done")


def _bulk(given: argparse.Namespace) -> int:
    return _do(given, _action(given))


def _command(given: argparse.Namespace) -> int:
    params = to_object(given.params, "--params")
    wanted = {"name": given.name, "params": params, "deadline_s": given.deadline, "qos": given.qos}
    return _do(given, {"do": "command", "command": wanted | {"retries": given.retries}})


def _desire(given: argparse.Namespace) -> int:
    return _do(given, {"do": "desire", "desired": to_object(given.patch, "the patch")})


def to_object(text: str, what: str) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        StartError: it is none.
    """
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise StartError(f"{what} {text[:60]!r} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise StartError(f"{what} {text[:60]!r} is no JSON object")
    return found


def _do(given: argparse.Namespace, action: dict[str, Any]) -> int:
    body = {"query": given.where, "action": action, "preview": given.preview}
    peer = connect(given)
    with pointing_at(given.where):
        answer = peer.call("POST", path("devices:bulk"), body)
    if given.preview:
        return _show_preview(given, answer)
    if given.no_wait:
        return show_job(given, answer)
    job = follow(peer, answer["id"], is_quiet=given.json)
    show_job(given, job)
    return 0 if job["state"] == "done" and not job["failed"] else 1


def _action(given: argparse.Namespace) -> dict[str, Any]:
    patch = to_patch(given)
    wanted: list[dict[str, Any]] = [{"do": "update", "patch": patch}] if patch else []
    wanted += [{"do": given.do}] if given.do else []
    for do, group in (("add_to_group", given.put_in), ("remove_from_group", given.take_out)):
        wanted += [{"do": do, "group": group}] if group else []
    if len(wanted) != 1:
        raise StartError("say one thing to do: --tag, --attr, --type, --disable, --delete, --put-in, ... (see --help)")
    return wanted[0]


def _show_preview(given: argparse.Namespace, answer: dict[str, Any]) -> int:
    if given.json:
        tables.show_json(answer)
        return 0
    print(f"{answer['count']} devices, among them:")
    tables.show(answer["examples"], EXAMPLE_COLUMNS)
    return 0
