"""`headwater gateway`: what a gateway may bring, and the devices that are seen through it."""

from __future__ import annotations

import argparse
import sys
from typing import Any, get_args
from urllib.parse import urlencode

from compose import tables
from compose.client import add_group, connect, finish, pages, path
from compose.commands.finding import to_tags
from wire.gateways import GatewayRules

COLUMNS = ("id", "type", "state", "online", "last_seen", "since", "outside", "tags", "names")
POLICIES = get_args(GatewayRules.model_fields["children"].annotation)


def configure(commands: Any) -> None:
    """Add the command."""
    actions = add_group(commands, "gateway", "rules of gateways, and their children")
    show = actions.add_parser("show", help="show a gateway's rules")
    show.add_argument("id")
    finish(show, _show)
    change = actions.add_parser("set", help="change a gateway's rules; what is not given stays")
    change.add_argument("id")
    change.add_argument("--children", choices=POLICIES, help="what becomes of a child nobody knows")
    change.add_argument("--type", metavar="T", help="device type of children that are registered")
    change.add_argument("--tag", action="append", metavar="K=V", help="tag of these; may be repeated")
    change.add_argument(
        "--prefix", action="append", metavar="P", help="how ids begin that it speaks for; may be repeated; '' = any"
    )
    change.add_argument("--max-children", type=int, metavar="N")
    finish(change, _set)
    children = actions.add_parser("children", help="list the devices that are seen through a gateway")
    children.add_argument("id")
    finish(children, _list)
    move = actions.add_parser("move", help="move a device to a gateway")
    move.add_argument("id")
    move.add_argument("--to", required=True, metavar="GATEWAY")
    finish(move, _move)
    name = actions.add_parser("name", help="let a device be known by a name that a protocol has for it")
    name.add_argument("id")
    name.add_argument("name", help="with its scheme, such as 'spb:Plant A/Line 1/Pump 7'")
    name.add_argument("--remove", action="store_true", help="take the name away")
    finish(name, _name)
    release = actions.add_parser("release", help="take a device away from its gateway; it stays registered")
    release.add_argument("id")
    finish(release, _release)


def _show(given: argparse.Namespace) -> int:
    return _print(given, connect(given).call("GET", path("devices", given.id, "gateway")))


def _set(given: argparse.Namespace) -> int:
    peer = connect(given)
    rules = peer.call("GET", path("devices", given.id, "gateway"))
    wanted = {
        "children": given.children,
        "child_type": given.type,
        "child_tags": None if given.tag is None else to_tags(given.tag),
        "prefixes": None if given.prefix is None else [prefix for prefix in given.prefix if prefix],
        "max_children": given.max_children,
    }
    rules |= {name: value for name, value in wanted.items() if value is not None}
    changed = peer.call("PUT", path("devices", given.id, "gateway"), rules)
    if changed["left_out"]:
        named = changed["left_out_children"]
        more = ", ..." if changed["left_out"] > len(named) else ""
        told = f"{given.id} does not speak for {changed['left_out']} of its children any more"
        print(f"headwater: {told}: {', '.join(named)}{more}", file=sys.stderr)
    return _print(given, changed)


def _list(given: argparse.Namespace) -> int:
    tables.show(pages(connect(given), "devices", given.id, "children"), COLUMNS, as_json=given.json)
    return 0


def _move(given: argparse.Namespace) -> int:
    return _print(given, connect(given).call("PUT", path("devices", given.id, "parent"), {"gateway": given.to}))


def _name(given: argparse.Namespace) -> int:
    peer, where = connect(given), path("devices", given.id, "names")
    if given.remove:
        peer.call("DELETE", f"{where}?{urlencode({'name': given.name})}")
        return _print(given, {"names": peer.call("GET", path("devices", given.id))["names"]})
    return _print(given, peer.call("POST", where, {"name": given.name}))


def _release(given: argparse.Namespace) -> int:
    connect(given).call("DELETE", path("devices", given.id, "parent"))
    return _print(given, {"gateway": None})


def _print(given: argparse.Namespace, content: dict[str, Any]) -> int:
    if given.json:
        tables.show_json(content)
    else:
        for name, value in content.items():
            print(f"{name:<12} {tables.cell(value)}")
    return 0
