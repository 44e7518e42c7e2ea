"""`headwater type`: device types and their versions from the shell."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from compose import tables
from compose.client import add_group, connect, finish, path
from compose.commands import type_codecs, type_exchange, type_trials

TYPES = "device-types"
COLUMNS = ("name", "version", "fields", "devices", "drafts", "scheduled", "description")
VERSION_COLUMNS = ("version", "state", "created", "activated", "due", "by", "origin", "note")


def configure(commands: Any) -> None:
    """Add the commands."""
    actions = add_group(commands, "type", "device types: their fields, versions, checks and activation")
    _add_reading(actions)
    _add_writing(actions)
    _add_deeds(actions)
    type_trials.configure(actions)
    type_exchange.configure(actions)
    type_codecs.configure(actions)


def _add_reading(actions: Any) -> None:
    finish(actions.add_parser("list", help="list device types"), _list)
    show = actions.add_parser("show", help="show a device type as JSON")
    show.add_argument("name")
    show.add_argument("--version", type=int, metavar="N", help="default: the one in force")
    finish(show, _show)
    versions = actions.add_parser("versions", help="list all versions of a device type")
    versions.add_argument("name")
    finish(versions, _versions)
    diff = actions.add_parser("diff", help="compare two versions, and say what each change means for data")
    diff.add_argument("name")
    diff.add_argument("version", type=int)
    diff.add_argument("--against", type=int, metavar="N", help="default: the one in force")
    finish(diff, _diff)


def _add_writing(actions: Any) -> None:
    put = actions.add_parser("put", help="create a device type, or put a new version of it in force")
    put.add_argument("file", type=Path, metavar="FILE.json", help="the type as JSON; - is standard input")
    put.add_argument("--name", help="default: the member `name` of the file, else the file's name")
    put.add_argument("--draft", action="store_true", help="write it down without putting it in force")
    put.add_argument("--note", default="", metavar="TEXT", help="why, for the list of versions")
    finish(put, _put)


def _add_deeds(actions: Any) -> None:
    activate = actions.add_parser("activate", help="put a draft in force, at once or at a time")
    activate.add_argument("name")
    activate.add_argument("version", type=int)
    activate.add_argument("--at", metavar="TIME", help="RFC 3339 time, such as 2026-12-01T06:00:00Z")
    finish(activate, _activate)
    unschedule = actions.add_parser("unschedule", help="let a scheduled version stay a draft")
    unschedule.add_argument("name")
    unschedule.add_argument("version", type=int)
    finish(unschedule, _unschedule)
    rollback = actions.add_parser("rollback", help="put the content of an earlier version in force again")
    rollback.add_argument("name")
    rollback.add_argument("--version", type=int, metavar="N", help="default: the one before the present one")
    finish(rollback, _roll_back)
    delete = actions.add_parser("delete", help="delete a device type that no device has")
    delete.add_argument("name")
    finish(delete, _delete)


def _list(given: argparse.Namespace) -> int:
    found = connect(given).call("GET", path(f"{TYPES}:summary"))["items"]
    tables.show(found, COLUMNS, as_json=given.json)
    return 0


def _show(given: argparse.Namespace) -> int:
    where = (TYPES, given.name) if given.version is None else (TYPES, given.name, "versions", str(given.version))
    tables.show_json(connect(given).call("GET", path(*where)))
    return 0


def _versions(given: argparse.Namespace) -> int:
    found = connect(given).call("GET", path(TYPES, given.name, "versions"))["items"]
    tables.show(found, VERSION_COLUMNS, as_json=given.json)
    return 0


def _diff(given: argparse.Namespace) -> int:
    where = path(TYPES, given.name, "versions", str(given.version), "diff", against=given.against)
    found = connect(given).call("GET", where)
    if given.json:
        tables.show_json(found)
        return 0
    type_trials.show_changes(found)
    return 0


def _put(given: argparse.Namespace) -> int:
    name, spec = type_trials.read_spec(given)
    peer = connect(given)
    if given.draft or given.note:
        made = peer.call("POST", path(TYPES, name, "versions"), {"spec": spec, "note": given.note})
        if not given.draft:
            made = peer.call("POST", path(TYPES, f"{name}:activate"), {"version": made["version"]})
        return _show_version(given, made)
    made = peer.call("PUT", path(TYPES, name), spec)
    if given.json:
        tables.show_json(made)
    else:
        print(f"{made['name']} version {made['version']}: {', '.join(made['fields']) or 'no fields'}")
    return 0


def _activate(given: argparse.Namespace) -> int:
    body = {"version": given.version} | ({"at": given.at} if given.at else {})
    return _show_version(given, connect(given).call("POST", path(TYPES, f"{given.name}:activate"), body))


def _unschedule(given: argparse.Namespace) -> int:
    body = {"version": given.version}
    return _show_version(given, connect(given).call("POST", path(TYPES, f"{given.name}:unschedule"), body))


def _roll_back(given: argparse.Namespace) -> int:
    body = {} if given.version is None else {"version": given.version}
    made = connect(given).call("POST", path(TYPES, f"{given.name}:rollback"), body)
    if given.json:
        tables.show_json(made)
    else:
        print(f"{made['name']} version {made['version']} is in force")
    return 0


def _delete(given: argparse.Namespace) -> int:
    connect(given).call("DELETE", path(TYPES, given.name))
    tables.show([{"name": given.name, "done": "deleted"}], ("name", "done"), as_json=given.json)
    return 0


def _show_version(given: argparse.Namespace, made: dict[str, Any]) -> int:
    if given.json:
        tables.show_json(made)
    else:
        when = f" for {tables.cell(made['due'])}" if made.get("due") else ""
        print(f"{made['name']} version {made['version']}: {made['state']}{when}")
    return 0
