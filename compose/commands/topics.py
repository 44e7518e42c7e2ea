"""`headwater topic`: topics of other systems that belong to single devices."""

from __future__ import annotations

import argparse
from typing import Any

from compose import tables
from compose.client import add_group, connect, finish, pages, path
from wire.claims import FAMILIES

COLUMNS = ("filter", "protocol", "device", "since")


def configure(commands: Any) -> None:
    """Add the command."""
    actions = add_group(commands, "topic", "topics of other systems that belong to single devices")
    listing = actions.add_parser("list", help="list claimed topics")
    listing.add_argument("--device", metavar="ID", help="of one device only")
    finish(listing, _list)
    claim = actions.add_parser("claim", help="let a device have topics to itself")
    claim.add_argument("id")
    claim.add_argument("filter", help="a topic filter, such as 'tele/kitchen/#'")
    claim.add_argument("--protocol", required=True, choices=sorted(FAMILIES), help="what is spoken there")
    finish(claim, _claim)
    release = actions.add_parser("release", help="take claimed topics away from a device again")
    release.add_argument("id")
    release.add_argument("filter")
    finish(release, _release)


def _list(given: argparse.Namespace) -> int:
    peer = connect(given)
    if given.device is None:
        rows = list(pages(peer, "topics"))
    else:
        rows = peer.call("GET", path("devices", given.device, "topics"))["items"]
    tables.show(rows, COLUMNS, as_json=given.json)
    return 0


def _claim(given: argparse.Namespace) -> int:
    body = {"filter": given.filter, "protocol": given.protocol}
    made = connect(given).call("POST", path("devices", given.id, "topics"), body)
    if given.json:
        tables.show_json(made)
    else:
        print(f"{given.id} has {made['filter']} to itself, as {made['protocol']}")
    return 0


def _release(given: argparse.Namespace) -> int:
    connect(given).call("DELETE", path("devices", given.id, "topics", filter=given.filter))
    if given.json:
        tables.show_json({"filter": None})
    else:
        print(f"{given.filter} belongs to nobody now")
    return 0
