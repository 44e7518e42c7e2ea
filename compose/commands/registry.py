"""`headwater device`: the registry from the shell."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, get_args

from compose import tables
from compose.client import add_group, at_least_one, connect, finish, pages, path
from compose.commands.bulk import add_bulk, add_where, show_found
from compose.commands.finding import add_patch, pointing_at, to_attributes, to_patch, to_tags
from compose.commands.importing import add_import
from compose.commands.jobs import follow, show_job
from compose.folder import StartError
from wire.devices import DeviceState

DEVICE_COLUMNS = ("id", "type", "state", "online", "last_seen", "tags")
COLUMNS = (*DEVICE_COLUMNS, "presence", "fw", "attributes", "gateway", "created", "updated")
KEYED = {"tag": "tags", "attr": "attributes"}


def configure(commands: Any) -> None:
    """Add the commands."""
    device = add_group(commands, "device", "add, list, change and delete devices")
    _add_writing(device)
    _add_reading(device)
    _add_deeds(device)
    add_bulk(device)
    add_import(device)


def _add_writing(actions: Any) -> None:
    add = actions.add_parser("add", help="register a device; its secret is shown once")
    add.add_argument("id")
    add.add_argument("--type", metavar="T", help="device type")
    add.add_argument("--tag", action="append", default=[], metavar="K=V", help="may be repeated")
    add.add_argument("--attr", action="append", default=[], metavar="K=V", help="an attribute; may be repeated")
    add.add_argument("--gateway", action="store_true", help="it speaks for other devices")
    finish(add, _add)
    update = actions.add_parser("update", help="change type, tags, attributes or gateway mark")
    update.add_argument("id")
    add_patch(update)
    update.add_argument("--gateway", action=argparse.BooleanOptionalAction, default=None)
    finish(update, _update)


def _add_reading(actions: Any) -> None:
    listing = actions.add_parser("list", help="list devices")
    listing.add_argument("query", nargs="?", metavar="QUERY", help="such as 'type=pump and not online' (docs/query.md)")
    listing.add_argument("--q", metavar="QUERY", help="the same")
    listing.add_argument("--tag", action="append", default=[], metavar="K=V")
    listing.add_argument("--type", metavar="T")
    listing.add_argument("--state", choices=get_args(DeviceState))
    listing.add_argument("--limit", type=at_least_one, metavar="N", help="at most so many (default: all)")
    listing.add_argument(
        "--columns", metavar="A,B", help="id, type, presence, fw, tag.KEY, attr.KEY, ... in this order"
    )
    finish(listing, _list)
    show = actions.add_parser("show", help="show a device and its credentials, without secrets")
    show.add_argument("id")
    finish(show, _show)


def _add_deeds(actions: Any) -> None:
    for name, help_text in (
        ("disable", "refuse a device from now on"),
        ("enable", "take a disabled device again"),
        ("retire", "take a device out of service for good: its credentials go, its id and data stay"),
        ("delete", "delete a device and its credentials"),
    ):
        deed = actions.add_parser(name, help=help_text)
        deed.add_argument("id")
        if name == "delete":
            deed.add_argument("--with-data", action="store_true", help="its readings too: wait until they are gone")
        finish(deed, _deed)
        deed.set_defaults(deed=name)
    rotate = actions.add_parser("rotate", help="issue new secrets; the old ones work on for a while")
    rotate.add_argument("id", nargs="?")
    add_where(rotate)
    rotate.add_argument(
        "--overlap", type=float, metavar="S", help="seconds they do (default 3600; with --where a week)"
    )
    rotate.add_argument("--preview", action="store_true", help="with --where: only tell how many and which")
    finish(rotate, _rotate)


def _add(given: argparse.Namespace) -> int:
    body: dict[str, Any] = {"id": given.id, "tags": to_tags(given.tag), "gateway": given.gateway}
    body |= {"attributes": to_attributes(given.attr)} if given.attr else {}
    made = connect(given).call("POST", path("devices"), body | ({"type": given.type} if given.type else {}))
    return _show_secret(given, made, made["credential"])


def _update(given: argparse.Namespace) -> int:
    body = to_patch(given)
    if given.gateway is not None:
        body["gateway"] = given.gateway
    return _show_device(given, connect(given).call("PATCH", path("devices", given.id), body))


def _list(given: argparse.Namespace) -> int:
    tags = [f"{key}:{value}" for key, value in to_tags(given.tag).items()] or None
    asked = {"q": given.query or given.q, "tag": tags, "type": given.type, "state": given.state}
    columns = tuple(given.columns.split(",")) if given.columns else DEVICE_COLUMNS
    with pointing_at(asked["q"]):
        _demand_columns(columns)
        found = pages(connect(given), "devices", limit=given.limit, **asked)
        rows = found if given.json else [_row(device, columns) for device in found]
        tables.show(rows, columns, as_json=given.json)
    return 0


def _demand_columns(columns: Sequence[str]) -> None:
    for name in columns:
        kind, _, key = name.partition(".")
        if name not in COLUMNS and not (kind in KEYED and key):
            raise StartError(f"no column {name!r}; there are {', '.join(COLUMNS)}, tag.KEY and attr.KEY")


def _row(device: dict[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    row = {}
    for name in columns:
        kind, dot, key = name.partition(".")
        row[name] = device[KEYED[kind]].get(key) if dot else device.get(name)
    return row


def _show(given: argparse.Namespace) -> int:
    return _show_device(given, connect(given).call("GET", path("devices", given.id)))


def _deed(given: argparse.Namespace) -> int:
    peer = connect(given)
    if given.deed == "delete" and given.with_data:
        job = follow(peer, peer.call("DELETE", path("devices", given.id, data="true"))["id"], is_quiet=True)
        if job["state"] != "done":
            raise StartError(f"{given.id} was not deleted: {job['error'] or job['state']}")
    elif given.deed == "delete":
        peer.call("DELETE", path("devices", given.id))
    else:
        peer.call("POST", path("devices", f"{given.id}:{given.deed}"))
    result = {"id": given.id, "done": f"{given.deed.removesuffix('e')}ed"}
    tables.show([result], ("id", "done"), as_json=given.json)
    return 0


def _rotate(given: argparse.Namespace) -> int:
    if (given.id is None) == (given.where is None):
        raise StartError("name a device, or say which with --where")
    if given.where is not None:
        return _rotate_found(given)
    body = {"overlap_s": 3600.0 if given.overlap is None else given.overlap}
    made = connect(given).call("POST", path("devices", given.id, "credentials:rotate"), body)
    return _show_secret(given, made, made["credential"])


def _rotate_found(given: argparse.Namespace) -> int:
    if given.preview:
        return show_found(given)
    body = {"query": given.where} | ({"overlap_s": given.overlap} if given.overlap is not None else {})
    with pointing_at(given.where):
        job = connect(given).call("POST", path("rotations"), body)
    show_job(given, job)
    if not given.json:
        print(f"The secrets: headwater rotation secrets {job['id']} --result OUT.csv")
        print(f"Who has not switched: headwater rotation waiting {job['id']}")
    return 0


def _show_device(given: argparse.Namespace, device: dict[str, Any]) -> int:
    if given.json:
        tables.show_json(device)
        return 0
    first = {"id": device["id"]} | ({"parent": device["parent"]} if device.get("parent") else {})
    for name, value in (first | device).items():
        if name in first or name not in ("credentials", "parent"):
            print(f"{name:<10} {tables.cell(value)}")
    if device.get("credentials"):
        print()
        tables.show(device["credentials"], ("id", "created", "not_before", "not_after", "last_used"))
    return 0


def _show_secret(given: argparse.Namespace, made: dict[str, Any], credential: dict[str, Any]) -> int:
    if given.json:
        tables.show_json(made)
        return 0
    print(f"Secret  {credential['secret']}  (shown only this once)")
    print(f"MQTT    user name {credential['username']}, the secret as password")
    print(f"HTTP    Authorization: Bearer {credential['bearer']}")
    return 0
