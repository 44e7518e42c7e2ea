"""`headwater device import`: a file of devices as a job, its secrets written to a private file."""

from __future__ import annotations

import argparse
import csv
import io
import sys
from itertools import islice
from pathlib import Path
from typing import Any

from compose import tables
from compose.client import connect, finish, path, stream
from compose.commands.jobs import LIVE, follow, make_private, save_result
from compose.folder import StartError

COLUMNS = ("line", "id", "code", "detail")
SHOWN = 20  # lines that registered nothing


def add_import(actions: Any) -> None:
    """Add the action."""
    imported = actions.add_parser(
        "import", help="register the devices of a file: CSV (id,type,gateway,parent,tag.KEY...) or NDJSON"
    )
    imported.add_argument("file", type=Path, metavar="FILE", help="- is standard input")
    imported.add_argument("--dry-run", action="store_true", help="only check")
    imported.add_argument(
        "--result", type=Path, metavar="OUT.csv", help="write each line's outcome and secret there (mode 0600)"
    )
    imported.add_argument(
        "--resume", action="store_true", help="go on with this file's import after a break; pass over ids that exist"
    )
    finish(imported, _import)


def _import(given: argparse.Namespace) -> int:
    content = _read(given.file)
    if given.result is not None:
        make_private(given.result)  # before anything is registered: a secret is shown only once
    query = {"job": "true"} | {name: "true" for name in ("dry_run", "resume") if getattr(given, name)}
    peer = connect(given)
    job = peer.call("POST", path("devices:import", **query), content)
    job = follow(peer, job["id"], is_quiet=given.json)
    if given.result is not None and save_result(given, job, given.result):
        peer.call("DELETE", job["download"])  # the file holds the secrets now, nothing else does
    if given.json:
        tables.show_json(job)
    else:
        _show(given, job)
    return 0 if job["state"] == "done" and not job["failed"] else 1


def _show(given: argparse.Namespace, job: dict[str, Any]) -> None:
    counts, verb = job["result"], "would be registered" if given.dry_run else "registered"
    existed = f", {counts['existed']} existed already" if counts.get("existed") else ""
    print(f"{counts.get('created', 0)} of {job['total']} {verb}{existed}, {job['failed']} refused")
    if job["state"] != "done":
        print(f"the import {job['state']}: {job['error'] or 'cancelled'}")
    if job["failed"]:
        tables.show(_failures(given, job), COLUMNS)
    if job["download"] and given.result is None and not given.dry_run and job["state"] not in LIVE:
        print(f"The secrets wait for a day: headwater job wait {job['id']} --result OUT.csv")


def _failures(given: argparse.Namespace, job: dict[str, Any]) -> list[dict[str, str]]:
    if given.result is not None:
        text: Any = given.result.open(newline="", encoding="utf-8")
    else:
        text = io.StringIO(b"".join(stream(given, job["download"])).decode())
    with text:
        return list(islice((row for row in csv.DictReader(text) if row["outcome"] == "failed"), SHOWN))


def _read(file: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise StartError(f"{file} cannot be read: {error.strerror}") from None
