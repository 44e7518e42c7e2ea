"""`headwater type check` and `learn`: whether a version may come into force, and a first one from what was sent."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from chassis.peers import Peer
from compose import tables
from compose.client import connect, finish, path
from compose.commands.jobs import follow, save_result
from compose.folder import StartError
from wire.errors import Forbidden, HeadwaterError

TYPES = "device-types"
CHANGE_COLUMNS = ("path", "level", "before", "after", "detail")
EXAMPLE_COLUMNS = ("device", "time", "field", "code", "detail")
COUNTED = ("name", "version", "version_id")  # `type show` prints them; the registry counts them
REFUSED = 3  # exit code of a check that something fails: not that of a fault


def configure(actions: Any) -> None:
    """Add the actions."""
    check = actions.add_parser("check", help="tell what a new version would refuse of what is sent; nothing is changed")
    check.add_argument("file", type=Path, metavar="FILE.json", help="the type as JSON; - is standard input")
    check.add_argument("--name", help="default: the member `name` of the file, else the file's name")
    check.add_argument("--against", type=int, metavar="VERSION", help="default: the version in force")
    _add_span(check, "0: no dry run on what is stored")
    amount = check.add_mutually_exclusive_group()
    amount.add_argument("--quick", action="store_true", help="only what can be judged at once: the newest readings")
    amount.add_argument("--sample", type=_share, metavar="SHARE", help="judge a share of all minutes, such as 0.1")
    check.add_argument("--result", type=Path, metavar="FILE", help="write a line of JSON for each device concerned")
    finish(check, _check)
    learn = actions.add_parser("learn", help="propose a version from what devices sent, as a draft")
    learn.add_argument("name")
    learn.add_argument("--note", default="", metavar="TEXT", help="why, for the list of versions")
    _add_span(learn, "at most 744")
    finish(learn, _learn)


def _add_span(parser: argparse.ArgumentParser, more: str) -> None:
    parser.add_argument("--hours", type=float, default=24.0, help=f"how far to look back (default 24; {more})")
    parser.add_argument("--device", action="append", default=[], metavar="ID", help="only these (default: of the type)")


def _check(given: argparse.Namespace) -> int:
    name, spec = read_spec(given)
    peer, body = connect(given), {"spec": spec, "hours": given.hours} | _devices(given)
    at_once = body | ({"hours": 0} if given.sample else {})
    if given.against is not None:
        at_once["against"] = given.against
    found = peer.call("POST", path(TYPES, f"{name}:check"), at_once)
    job = _try_all(given, peer, name, body) if _is_long(given, found) else None
    if given.json:
        tables.show_json(found | {"dry_run": job})
    else:
        _show_check(found if job is None else found | {"traffic": None, "quarantine": None})
        show_dry_run(job)
    if job is not None and job["state"] != "done":
        return 1
    judged = job["result"] if job is not None else found["traffic"]
    return REFUSED if (judged and judged["refused_readings"]) or not found["compatible"] else 0


def _is_long(given: argparse.Namespace, found: dict[str, Any]) -> bool:
    """Tell whether it takes a job to judge what was asked for, and one is wanted."""
    if given.sample is not None or given.result is not None:
        return True
    return not given.quick and found["traffic"] is not None and not found["traffic"]["complete"]


def _try_all(given: argparse.Namespace, peer: Peer, name: str, body: dict[str, Any]) -> dict[str, Any] | None:
    """Judge all that is stored, or a sample of it, as a job; a viewer may not, and is told so."""
    if given.sample is not None:
        body |= {"sample": given.sample}
    try:
        job = peer.call("POST", path(TYPES, f"{name}:dry-run"), body)
    except HeadwaterError as error:
        if error.status != Forbidden.status:
            raise
        print("an operator may have all of them judged; a viewer sees the newest", file=sys.stderr)
        return None
    if not given.json:
        print(f"judging in job {job['id']}; `headwater job cancel {job['id']}` ends it", file=sys.stderr)
    job = follow(peer, job["id"], is_quiet=given.json)
    if given.result is not None and not save_result(given, job, given.result):
        given.result.write_bytes(b"")  # nothing to tell of any device
    return job


def show_dry_run(job: dict[str, Any] | None) -> None:
    """Print what a dry run found."""
    if job is None:
        return
    found = job["result"]
    if job["state"] != "done":
        print(f"\nThe dry run is {job['state']}{': ' + job['error'] if job['error'] else ''}; so far:")
    if not found:
        return
    share = f" (a sample of {found['sample']:g})" if found["sample"] < 1 else ""
    print(f"\n{found['readings']} of {found['stored']} stored readings were judged{share}, "
          f"of {found['devices']} devices; {found['refused_readings']} of {found['refused_devices']} devices "
          f"would be refused; {found['lost_fields']} fields would be dropped")  # fmt: skip
    if found["codes"]:
        tables.show([{"code": code, "faults": count, "devices": found["code_devices"].get(code)}
                     for code, count in found["codes"].items()], ("code", "faults", "devices"))  # fmt: skip
    if found["worst"]:
        print("\nMost refused:")
        tables.show(found["worst"], ("device", "readings", "refused", "waiting", "would_pass"))
    if found["examples"]:
        print("\nExamples:")
        tables.show(found["examples"], EXAMPLE_COLUMNS)
    if found["waiting"]:
        print(f"\nOf {found['waiting']} entries in the quarantine, {found['would_pass']} would pass")


def _show_check(found: dict[str, Any]) -> None:
    show_changes(found)
    if found["note"]:
        print(found["note"])
    traffic, waiting = found["traffic"], found["quarantine"]
    if traffic is not None:
        cut = "" if traffic["complete"] else f" (the newest, since {tables.cell(traffic['since'])})"
        print(f"\nOf {traffic['readings']} stored readings of {traffic['devices']} devices{cut}, "
              f"{traffic['refused_readings']} of {traffic['refused_devices']} devices would be refused; "
              f"{traffic['lost_fields']} fields would be dropped")  # fmt: skip
        if traffic["examples"]:
            tables.show(traffic["examples"], EXAMPLE_COLUMNS)
    if waiting is not None and waiting["entries"]:
        print(f"\nOf {waiting['entries']} entries in the quarantine, {waiting['would_pass']} would pass")


def _learn(given: argparse.Namespace) -> int:
    body = {"hours": given.hours, "note": given.note} | _devices(given)
    found = connect(given).call("POST", path(TYPES, f"{given.name}:learn"), body)
    if given.json:
        tables.show_json(found)
        return 0
    made = found["draft"]
    rests_on = f"{found['readings']} readings of {found['devices']} devices"
    print(f"{made['name']} version {made['version']} is a draft, from {rests_on}")
    tables.show([{"field": name} | field for name, field in made["spec"]["fields"].items()],
                ("field", "type", "min", "max", "required", "description"))  # fmt: skip
    return 0


def show_changes(found: dict[str, Any]) -> None:
    """Print a comparison of two versions."""
    if not found["changes"]:
        print("no difference")
        return
    tables.show(found["changes"], CHANGE_COLUMNS)
    print("compatible: nothing is refused that was taken" if found["compatible"] else "not compatible")


def read_spec(given: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Read a spec as `type show` prints it, of a type or of one version; give the type's name too.

    Raises:
        StartError: the file cannot be read, or is no JSON object.
    """
    content = read_json(given.file)
    name = given.name or content.get("name") or given.file.stem
    if isinstance(content.get("spec"), dict):
        content = content["spec"]
    return name, {key: value for key, value in content.items() if key not in COUNTED}


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object from a file, or from standard input.

    Raises:
        StartError: it cannot be read, or is none.
    """
    try:
        content = json.loads(sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8"))
    except OSError as error:
        raise StartError(f"{file} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise StartError(f"{file} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise StartError(f"{file} holds no JSON object")
    return content


def _share(text: str) -> float:
    """Read the share of a sample."""
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise argparse.ArgumentTypeError(f"not a share between 0 and 1: {text!r}")
    return share


def _devices(given: argparse.Namespace) -> dict[str, Any]:
    return {"devices": given.device} if given.device else {}
