"""`headwater audit`: who changed what, and whether the log of it is whole."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from compose import tables
from compose.client import add_group, at_least_one, connect, finish, folder_of, pages, path, stream
from compose.folder import StartError, write_private

COLUMNS = ("seq", "time", "actor", "action", "object", "remote_ip", "detail")
FILTERS = ("object", "actor", "action", "start", "end")


def configure(commands: Any) -> None:
    """Add the command."""
    actions = add_group(commands, "audit", "list and export who changed what; check that the log is whole")
    listing = actions.add_parser("list", help="list entries, newest first")
    listing.add_argument("--limit", type=at_least_one, default=100, metavar="N", help="at most so many (default 100)")
    export = actions.add_parser("export", help="print all entries as NDJSON, newest first")
    for parser, run in ((listing, _list), (export, _export)):
        parser.add_argument("--object", metavar="O", help="what was changed, such as a device id")
        parser.add_argument("--actor", metavar="A", help="who did it, such as operator:admin")
        parser.add_argument("--action", metavar="A", help="such as device.create; device. is all that begin so")
        parser.add_argument("--start", metavar="TIME", help="not before (RFC 3339)")
        parser.add_argument("--end", metavar="TIME", help="before (RFC 3339)")
        finish(parser, run)
    verify = actions.add_parser("verify", help="check the chain; ends with 1 when an entry was changed or removed")
    verify.add_argument("--anchor", type=Path, metavar="FILE", help="where the newest entry of each check is kept"
                        " (default DIR/audit.anchor; better on another machine)")  # fmt: skip
    finish(verify, _verify)


def _list(given: argparse.Namespace) -> int:
    tables.show(pages(connect(given), "audit", limit=given.limit, **_filters(given)), COLUMNS, as_json=given.json)
    return 0


def _export(given: argparse.Namespace) -> int:
    for chunk in stream(given, path("audit:export", **_filters(given))):
        sys.stdout.buffer.write(chunk)
    return 0


def _verify(given: argparse.Namespace) -> int:
    anchor: Path = given.anchor or folder_of(given).root / "audit.anchor"
    known = _read(anchor)
    verdict = connect(given).call("GET", path("audit:verify", **known))
    if verdict["ok"]:
        write_private(anchor, json.dumps({"seq": verdict["entries"], "hash": verdict["newest_hash"]}) + "\n")
    if given.json:
        tables.show_json(verdict)
    elif verdict["ok"]:
        since = f", entry {known['seq']} of the last check among them" if known else ""
        print(f"whole: {verdict['entries']} entries{since}")
    else:
        print(f"NOT whole: entry {verdict['broken_seq']} was changed, removed or put in", file=sys.stderr)
    return 0 if verdict["ok"] else 1


def _filters(given: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(given, name) for name in FILTERS}


def _read(anchor: Path) -> dict[str, Any]:
    try:
        known = json.loads(anchor.read_text())
        return {"seq": int(known["seq"]), "hash": str(known["hash"])}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StartError(f"{anchor} cannot be read as an anchor: {error}") from None
