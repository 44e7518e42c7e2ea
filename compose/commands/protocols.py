"""`headwater protocol`: the protocols of an installation, and the cases of one that is being written."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from compose import tables
from compose.client import add_group, connect, finish, path
from compose.folder import StartError

COLUMNS = (
    "name",
    "service",
    "state",
    "rate_s",
    "accepted",
    "quarantined",
    "refused",
    "last_heard",
    "waiting",
    "taken_at",
)


def configure(commands: Any) -> None:
    """Add the command."""
    actions = add_group(commands, "protocol", "list protocols, check the cases of a decoder")
    finish(actions.add_parser("list", help="list protocols: state of the service, rate, errors by reason"), _list)
    check = actions.add_parser("check", help="check a folder of cases against the decoder they are for")
    check.add_argument("folder", type=Path, help="holds a folder for each case")
    check.set_defaults(run=_check)


def _list(given: argparse.Namespace) -> int:
    answer = connect(given).call("GET", path("protocols"))
    if given.json:
        tables.show_json(answer)
        return 0
    rows = [row | {"taken_at": [*row["topics"], *row["paths"], *row["media_types"]]} for row in answer["items"]]
    tables.show(rows, COLUMNS)
    for each in answer["refused"]:
        print(f"REFUSED: {each['entry']}: {each['reason']}")
    return 0


def _check(given: argparse.Namespace) -> int:
    from ingest.protocols import cases
    from wire.declared import REFUSED

    for entry, reason in REFUSED.items():
        print(f"refused: {entry}: {reason}", file=sys.stderr)
    folders = sorted(path.parent for path in given.folder.glob("*/request.json"))
    if not folders:
        raise StartError(f"{given.folder} holds no case: a folder with request.json, input.* and expected.json")
    failed = 0
    for folder in folders:
        try:
            differences = cases.check(folder)
        except (OSError, ValueError, KeyError, StopIteration) as error:
            differences = [f"it is no case: {type(error).__name__}: {error}"]
        failed += bool(differences)
        print(f"{'FAILED' if differences else 'ok':6} {folder.name}", *differences, sep="\n       ")
    print(f"{len(folders) - failed} of {len(folders)} cases are as expected")
    return 1 if failed else 0
