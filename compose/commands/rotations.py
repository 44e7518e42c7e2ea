"""`headwater rotation`: new secrets for many devices at once."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from compose import tables
from compose.client import add_group, connect, finish, pages, path
from compose.commands.jobs import make_private, save_result, show_job

WEEK_S = 7 * 86_400.0
COLUMNS = ("device", "credential", "online", "last_seen")


def configure(commands: Any) -> None:
    """Add the command."""
    actions = add_group(
        commands, "rotation", "new secrets for many devices, beside the old ones until all have switched"
    )
    start = actions.add_parser("start", help="issue a new secret to every device that a query finds")
    start.add_argument("query", help="such as 'type=pump and tag.site=a' (docs/query.md)")
    start.add_argument("--overlap", type=float, default=WEEK_S, metavar="S", help="seconds the old ones work at most")
    finish(start, _start)
    secrets = actions.add_parser("secrets", help="write the new secrets to a file (mode 0600); they are deleted here")
    secrets.add_argument("id")
    secrets.add_argument("--result", type=Path, required=True, metavar="OUT.csv")
    finish(secrets, _secrets)
    waiting = actions.add_parser("waiting", help="list the devices that have not used their new secret yet")
    waiting.add_argument("id")
    finish(waiting, _waiting)
    end = actions.add_parser("finish", help="end the old secrets now, also of devices that have not switched")
    end.add_argument("id")
    finish(end, _finish)


def _start(given: argparse.Namespace) -> int:
    body = {"query": given.query, "overlap_s": given.overlap}
    return show_job(given, connect(given).call("POST", path("rotations"), body))


def _secrets(given: argparse.Namespace) -> int:
    make_private(given.result)
    peer = connect(given)
    job = peer.call("GET", path("jobs", given.id))
    if save_result(given, job, given.result):
        peer.call("DELETE", job["download"])
    return show_job(given, job)


def _waiting(given: argparse.Namespace) -> int:
    tables.show(pages(connect(given), "rotations", given.id, "waiting"), COLUMNS, as_json=given.json)
    return 0


def _finish(given: argparse.Namespace) -> int:
    return show_job(given, connect(given).call("POST", path("rotations", f"{given.id}:finish")))
