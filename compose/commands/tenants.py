"""`headwater tenant`: owners of devices, people and data, what they use and sent; the move of a device to another."""

from __future__ import annotations

import argparse
from typing import Any

from compose import tables
from compose.client import add_group, at_least_one, connect, finish, path

COLUMNS = ("id", "title", "state", "devices", "operators", "messages_today", "limits")
USED = ("used", "now", "today", "30_days", "limit")
SENT = ("messages", "points", "bytes")
SPENT = (*SENT, "feed_readers")
BY = ("type", "device")
LIMITS = {
    "devices": "devices",
    "points": "rate_limit",
    "feed_readers": "feed_readers",
    "connections": "connections",
}  # what is used -> its limit
NO_LIMIT = "none"


def configure(commands: Any) -> None:
    """Add the command."""
    actions = add_group(commands, "tenant", "make, list, change, suspend and delete tenants; move devices")
    finish(actions.add_parser("list", help="list tenants and how much is in each"), _list)
    for name, help_text, run in (("add", "make a tenant", _add), ("update", "change title or limits", _update)):
        parser = actions.add_parser(name, help=help_text)
        parser.add_argument("id")
        parser.add_argument("--title", metavar="TEXT", help="what people call it")
        parser.add_argument("--max-devices", type=_limit, metavar="N", help="at most so many devices, or none")
        rate_help = "readings of all its devices, such as 1000:1,30000:60; none; default: that of the installation"
        parser.add_argument("--rate-limit", metavar="LIMIT", help=rate_help)
        parser.add_argument("--max-feed-readers", type=_limit, metavar="N", help="at most so many open feeds, or none")
        most_help = "at most so many devices at the broker at one time, or none"
        parser.add_argument("--max-connections", type=_limit, metavar="N", help=most_help)
        finish(parser, run)
    for name, help_text in (
        ("suspend", "refuse its devices, people and tokens; nothing is deleted"),
        ("resume", "let a suspended tenant go on"),
        ("delete", "delete a tenant without devices, with its people and tokens"),
    ):
        deed = actions.add_parser(name, help=help_text)
        deed.add_argument("id")
        finish(deed, _deed)
        deed.set_defaults(deed=name)
    move = actions.add_parser("move", help="give a device to another tenant; what it sent so far stays")
    move.add_argument("device")
    move.add_argument("--to", required=True, metavar="TENANT")
    finish(move, _move)
    _add_usage(commands)
    ledger_help = "show what became of the own tenant's readings; in `default` of the installation's"
    ledger = commands.add_parser("ledger", help=ledger_help)
    ledger.add_argument("--own", action="store_true", help="in `default`, too, of its own readings only")
    finish(ledger, _ledger)


def _add_usage(commands: Any) -> None:
    usage = commands.add_parser("usage", help="show what the own tenant uses, and its limits")
    days_help = "day by day, today first (at most 400); with --by: of so many days together"
    usage.add_argument("--days", type=at_least_one, metavar="N", help=days_help)
    usage.add_argument("--by", choices=BY, help="which types, or which devices, sent most")
    usage.add_argument("--order", choices=SENT, help="with --by: by what (default: messages)")
    usage.add_argument("--top", type=at_least_one, metavar="N", help="with --by device: so many (default: 20)")
    usage.add_argument("--device", metavar="ID", help="what one device sent, day by day")
    finish(usage, _usage)


def _limit(text: str) -> int | str:
    """Read a limit; `none` takes it away."""
    return text if text == NO_LIMIT else at_least_one(text)


def _list(given: argparse.Namespace) -> int:
    items = connect(given).call("GET", path("tenants"))["items"]
    if given.json:
        tables.show_json(items)
    else:
        tables.show([_row(tenant) for tenant in items], COLUMNS)
    return 0


def _usage(given: argparse.Namespace) -> int:
    if given.by is not None or given.device is not None:
        return _usage_by(given)
    if given.days is not None:
        days = connect(given).call("GET", path("usage", "days", days=given.days))["items"]
        tables.show(days, ("day", *SPENT), as_json=given.json)
        return 0
    tenant = connect(given).call("GET", path("usage"))
    if given.json:
        tables.show_json(tenant)
        return 0
    rows = [{"used": name, "now": tenant[name]} for name in ("devices", "operators", "connections")]
    rows += [{"used": name, "today": tenant["today"][name], "30_days": tenant["month"][name]} for name in SPENT]
    tables.show([row | {"limit": tenant["limits"].get(LIMITS.get(row["used"]))} for row in rows], USED)
    return 0


def _usage_by(given: argparse.Namespace) -> int:
    if given.device is not None:
        items = connect(given).call("GET", path("devices", given.device, "usage"))["items"]
        tables.show(items[: given.days], ("day", *SENT), as_json=given.json)
        return 0
    asked = {"days": given.days, "order": given.order} | ({"limit": given.top} if given.by == "device" else {})
    items = connect(given).call("GET", path("usage", f"{given.by}s", **asked))["items"]
    tables.show(items, (given.by, *SENT), as_json=given.json)
    return 0


def _ledger(given: argparse.Namespace) -> int:
    ledger = connect(given).call("GET", path("ledger", own="true" if given.own else None))
    if given.json:
        tables.show_json(ledger)
    else:
        tables.show([{"ledger": name, "value": value} for name, value in ledger.items()], ("ledger", "value"))
    return 0


def _add(given: argparse.Namespace) -> int:
    return _show(given, connect(given).call("POST", path("tenants"), {"id": given.id} | _members(given)))


def _update(given: argparse.Namespace) -> int:
    return _show(given, connect(given).call("PATCH", path("tenants", given.id), _members(given)))


def _deed(given: argparse.Namespace) -> int:
    peer = connect(given)
    if given.deed == "delete":
        peer.call("DELETE", path("tenants", given.id))
    else:
        peer.call("POST", path("tenants", f"{given.id}:{given.deed}"))
    done = {"suspend": "suspended", "resume": "resumed", "delete": "deleted"}[given.deed]
    tables.show([{"id": given.id, "done": done}], ("id", "done"), as_json=given.json)
    return 0


def _move(given: argparse.Namespace) -> int:
    connect(given).call("POST", path("devices", f"{given.device}:move"), {"tenant": given.to})
    tables.show([{"id": given.device, "tenant": given.to}], ("id", "tenant"), as_json=given.json)
    return 0


def _members(given: argparse.Namespace) -> dict[str, Any]:
    members: dict[str, Any] = {"title": given.title} if given.title is not None else {}
    said = {"devices": given.max_devices, "feed_readers": given.max_feed_readers}
    said |= {"connections": given.max_connections}
    limits = {name: None if most == NO_LIMIT else most for name, most in said.items() if most is not None}
    if given.rate_limit is not None:
        limits["rate_limit"] = {"none": "", "default": None}.get(given.rate_limit, given.rate_limit)
    return members | ({"limits": limits} if limits else {})


def _show(given: argparse.Namespace, tenant: dict[str, Any]) -> int:
    if given.json:
        tables.show_json(tenant)
    else:
        tables.show([_row(tenant)], COLUMNS)
    return 0


def _row(tenant: dict[str, Any]) -> dict[str, Any]:
    return tenant | {"messages_today": tenant.get("today", {}).get("messages")}
