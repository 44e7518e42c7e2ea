"""`headwater enrol`: ways in for devices that register themselves."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from compose import tables
from compose.client import add_group, at_least_one, connect, finish, pages, path
from compose.commands.finding import to_tags
from compose.folder import StartError
from wire.group_keys import derive_key, read_key

HELD_COLUMNS = ("id", "source", "since", "last_seen", "type", "tags", "hardware")
COLUMNS = ("name", "kind", "state", "enrolled", "max_devices", "ids", "policy", "type", "tags", "expires")


def configure(commands: Any) -> None:
    """Add the command."""
    actions = add_group(commands, "enrol", "let devices register themselves: by token or by group key")
    for name, help_text in (
        ("token", "make a token that lets devices in; it is shown once"),
        ("group", "make a group; each device's key is derived from the group's, which is shown once"),
    ):
        parser = actions.add_parser(name, help=help_text)
        _add_terms(parser)
        if name == "group":
            parser.add_argument("--key-file", type=Path, metavar="FILE", help="its key, base64 (default: make one)")
        finish(parser, _create)
        parser.set_defaults(kind=name, key_file=None)
    finish(actions.add_parser("list", help="list the ways in"), _list)
    revoke = actions.add_parser("revoke", help="close a way in; the devices that came by it stay")
    revoke.add_argument("name", help="name or id")
    finish(revoke, _revoke)
    finish(actions.add_parser("held", help="list devices that wait to be accepted"), _list_held)
    for name, help_text in (
        ("accept", "accept held devices; their data that waits is replayed"),
        ("refuse", "keep held devices out; their data stays in the quarantine"),
    ):
        decide = actions.add_parser(name, help=help_text)
        decide.add_argument("ids", nargs="+", metavar="ID")
        finish(decide, _decide)
        decide.set_defaults(verb=name)
    derive = actions.add_parser("derive", help="print a device's key, derived from its group's; needs no installation")
    derive.add_argument("id")
    derive.add_argument("--key-file", type=Path, required=True, metavar="FILE", help="the group's key, base64")
    derive.set_defaults(run=_derive)


def _add_terms(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name")
    parser.add_argument("--ids", metavar="PATTERN", help="ids it lets in, such as 'pump-*' (default: any)")
    parser.add_argument("--type", metavar="T", help="device type of those that come")
    parser.add_argument("--tag", action="append", default=[], metavar="K=V", help="tag of those that come")
    parser.add_argument("--group", metavar="G", help="group they are put into")
    parser.add_argument("--hold", action="store_true", help="their data waits until they are accepted")
    parser.add_argument("--max-devices", type=at_least_one, metavar="N", help="default: 1 by token, any number by key")
    parser.add_argument("--expires", metavar="TIME", help="RFC 3339, e.g. 2027-01-01T00:00:00Z (default: never)")


def _create(given: argparse.Namespace) -> int:
    body: dict[str, Any] = {"name": given.name, "kind": given.kind, "tags": to_tags(given.tag)}
    members = {
        "ids": given.ids,
        "type": given.type,
        "group": given.group,
        "max_devices": given.max_devices,
        "expires": given.expires,
    }
    body |= {name: value for name, value in members.items() if value is not None}
    body |= {"policy": "hold"} if given.hold else {}
    body |= {"key": _read(given.key_file)} if given.key_file else {}
    made = connect(given).call("POST", path("enrolments"), body)
    if given.json:
        tables.show_json(made)
    else:
        print(made["secret"])
        what = "the group's key" if made["kind"] == "group" else "token"
        print(f"{what} of {made['name']}, shown only this once", file=sys.stderr)
    return 0


def _list(given: argparse.Namespace) -> int:
    tables.show(connect(given).call("GET", path("enrolments"))["items"], COLUMNS, as_json=given.json)
    return 0


def _revoke(given: argparse.Namespace) -> int:
    connect(given).call("DELETE", path("enrolments", given.name))
    tables.show([{"name": given.name, "done": "revoked"}], ("name", "done"), as_json=given.json)
    return 0


def _list_held(given: argparse.Namespace) -> int:
    tables.show(pages(connect(given), "holds"), HELD_COLUMNS, as_json=given.json)
    return 0


def _decide(given: argparse.Namespace) -> int:
    decided = connect(given).call("POST", path(f"holds:{given.verb}"), {"ids": given.ids})["decided"]
    done = {"accept": "accepted", "refuse": "refused"}[given.verb]
    rows = [{"id": device_id, "done": done if device_id in decided else "not held"} for device_id in given.ids]
    tables.show(rows, ("id", "done"), as_json=given.json)
    return 0 if len(decided) == len(set(given.ids)) else 1


def _derive(given: argparse.Namespace) -> int:
    try:
        key = read_key(_read(given.key_file))
    except ValueError as error:
        raise StartError(f"{given.key_file} holds no group key: {error}") from None
    print(derive_key(key, given.id))
    return 0


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError as error:
        raise StartError(f"{file} cannot be read: {error.strerror}") from None
