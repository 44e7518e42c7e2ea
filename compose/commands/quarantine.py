"""`headwater quarantine`: what was refused, why, handing it in again or giving it up."""

from __future__ import annotations

import argparse
import base64
import sys
from contextlib import nullcontext
from itertools import chain
from pathlib import Path
from typing import Any

from compose import tables
from compose.client import add_group, at_least_one, connect, finish, pages, path, stream
from compose.folder import StartError

COLUMNS = ("id", "time", "device", "protocol", "code", "detail")
FILTERS = ("device", "code", "protocol", "type", "type_version", "start", "end")


def configure(commands: Any) -> None:
    """Add the command."""
    actions = add_group(commands, "quarantine", "list, show, export, replay and discard refused data")
    listing = actions.add_parser("list", help="list entries, newest first")
    _add_filter(listing)
    _add_state(listing)
    listing.add_argument("--limit", type=at_least_one, default=100, metavar="N", help="at most so many (default 100)")
    finish(listing, _list)
    show = actions.add_parser("show", help="show one entry with the message as it came")
    show.add_argument("id")
    show.add_argument("--raw", action="store_true", help="write only the message's bytes")
    finish(show, _show)
    export = actions.add_parser("export", help="write entries with their whole messages, for other programs")
    _add_filter(export)
    _add_state(export)
    export.add_argument("--format", choices=("ndjson", "csv"), default="ndjson")
    export.add_argument("--output", type=Path, metavar="FILE", help="default: standard output")
    finish(export, _export)
    replay = actions.add_parser("replay", help="hand entries in again, for example after a device type was mended")
    _add_choice(replay, _replay)
    discard = actions.add_parser("discard", help="give entries up for good; the ledger counts them as refused")
    _add_choice(discard, _discard)


def _add_choice(parser: argparse.ArgumentParser, run: Any) -> None:
    parser.add_argument("id", nargs="*")
    _add_filter(parser)
    parser.add_argument("--all", action="store_true", help="all entries")
    finish(parser, run)


def _add_filter(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", metavar="ID", help="only of this device")
    parser.add_argument("--code", metavar="CODE", help="only with this reason, e.g. type_conflict")
    parser.add_argument("--protocol", metavar="P", help="only of this protocol")
    parser.add_argument("--type", metavar="T", help="only of devices that had this type")
    parser.add_argument("--type-version", metavar="N", help="only what this version of the type refused")
    parser.add_argument("--start", metavar="TIME", help="only what came at or after (RFC 3339, or ns)")
    parser.add_argument("--end", metavar="TIME", help="only what came before")


def _add_state(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--state", choices=("waiting", "replayed", "all"), default="waiting")


def _filter_of(given: argparse.Namespace) -> dict[str, Any]:
    return {name: value for name in FILTERS if (value := getattr(given, name))}


def _list(given: argparse.Namespace) -> int:
    found = pages(connect(given), "quarantine", limit=given.limit, state=given.state, **_filter_of(given))
    tables.show(found, COLUMNS, as_json=given.json)
    return 0


def _show(given: argparse.Namespace) -> int:
    entry = connect(given).call("GET", path("quarantine", given.id))
    raw = base64.b64decode(entry.get("raw_base64") or "")
    if given.raw:
        sys.stdout.buffer.write(raw)
    elif given.json:
        tables.show_json(entry)
    else:
        for name, value in entry.items():
            if name != "raw_base64":
                print(f"{name:<14} {tables.cell(value)}")
        print(f"{'message':<14} {tables.clean(raw.decode(errors='replace'))}")
    return 0


def _export(given: argparse.Namespace) -> int:
    query = path("quarantine:export", format=given.format, state=given.state, **_filter_of(given))
    parts = stream(given, query)
    first = next(parts, b"")  # before the file is made: a refusal must not leave an empty one
    try:
        with given.output.open("wb") if given.output else nullcontext(sys.stdout.buffer) as target:
            for part in chain((first,), parts):
                target.write(part)
    except OSError as error:
        raise StartError(f"--output: {given.output} cannot be written: {error.strerror}") from None
    return 0


def _chosen(given: argparse.Namespace) -> dict[str, Any]:
    matching = _filter_of(given)
    if not given.id and not matching and not given.all:
        raise StartError("say which entries: ids, a filter such as --device or --code, or --all")
    return {"ids": given.id} if given.id else {"filter": matching}


def _discard(given: argparse.Namespace) -> int:
    client, total, more = connect(given), 0, True
    while more:  # one call takes a bounded number
        result = client.call("POST", path("quarantine:discard"), _chosen(given))
        total, more = total + result["discarded"], result["more"]
    if given.json:
        tables.show_json({"discarded": total})
    else:
        print(f"{total} discarded")
    return 0


def _replay(given: argparse.Namespace) -> int:
    body = _chosen(given)
    result = connect(given).call("POST", path("quarantine:replay"), body)
    if given.json:
        tables.show_json(result)
    else:
        before = f", {result['duplicates']} replayed before" if result["duplicates"] else ""
        print(f"{result['replayed']} replayed, {len(result['failed'])} refused again{before}")
        if result["failed"]:
            tables.show(result["failed"], ("id", "code", "detail"))
        if result["more"]:
            print("more wait: run this again")
    return 1 if result["failed"] else 0
