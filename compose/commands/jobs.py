"""`headwater job`: long work of the registry, from the shell."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO

from chassis.peers import Peer
from compose import tables
from compose.client import add_group, at_least_one, connect, finish, pages, path, stream
from compose.folder import StartError
from wire.errors import PeerUnavailable

COLUMNS = ("id", "kind", "state", "done", "failed", "total", "created", "by")
STATES = ("queued", "running", "done", "failed", "cancelled")
LIVE = ("queued", "running")
LOOK_S = 0.5
PATIENCE_S = 60.0  # with a platform that does not answer: it goes on with the job when it is back
SAY_S = 2.0  # between two lines of progress


def configure(commands: Any) -> None:
    """Add the command."""
    actions = add_group(commands, "job", "list, follow and cancel long work: imports, rotations, deletes")
    listing = actions.add_parser("list", help="list jobs, newest first")
    listing.add_argument("--state", choices=STATES)
    listing.add_argument("--kind", metavar="K", help="such as device.import")
    listing.add_argument("--limit", type=at_least_one, default=100, metavar="N", help="at most so many (default 100)")
    finish(listing, _list)
    for name, help_text, run in (
        ("show", "show a job and how far it is", _show),
        ("cancel", "ask a job to end", _cancel),
    ):
        parser = actions.add_parser(name, help=help_text)
        parser.add_argument("id")
        finish(parser, run)
    wait = actions.add_parser("wait", help="wait until a job is over; ends with 1 unless all of it was done")
    wait.add_argument("id")
    wait.add_argument("--result", type=Path, metavar="FILE", help="write what it made there (mode 0600)")
    finish(wait, _wait)


def follow(peer: Peer, job_id: str, *, is_quiet: bool = False) -> dict[str, Any]:
    """Wait until a job is over, with a line of progress now and then on standard error; give the job."""
    said_s, said = 0.0, -1
    while True:
        job = _look(peer, job_id)
        if job["state"] not in LIVE:
            return job
        if not is_quiet and job["done"] + job["failed"] != said and time.monotonic() - said_s > SAY_S:
            said_s, said = time.monotonic(), job["done"] + job["failed"]
            print(f"{job['kind']}: {said} of {job['total'] or '?'}", file=sys.stderr)
        time.sleep(LOOK_S)


def _look(peer: Peer, job_id: str) -> dict[str, Any]:
    """Ask how far a job is; a platform that is just being restarted is asked again."""
    until_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            job: dict[str, Any] = peer.call("GET", path("jobs", job_id))
        except PeerUnavailable:
            if time.monotonic() > until_s:
                raise
            time.sleep(LOOK_S)
        else:
            return job


def save_result(given: argparse.Namespace, job: dict[str, Any], file: Path) -> bool:
    """Write a job's result to a private file, whole and durably; tell whether there was one.

    Raises:
        StartError: it cannot be written; the result can be fetched again.
    """
    if job["download"] is None:
        return False
    part = file.with_name(file.name + ".part")
    try:
        with _open_private(part) as out:
            for chunk in stream(given, job["download"]):
                out.write(chunk)
            out.flush()
            os.fsync(out.fileno())
        part.replace(file)
    except OSError as error:
        part.unlink(missing_ok=True)
        again = f"headwater job wait {job['id']} --result FILE"
        raise StartError(f"{file} cannot be written: {error.strerror}; fetch it again: {again}") from None
    return True


def make_private(file: Path) -> None:
    """Make an empty file that only its owner may read.

    Raises:
        StartError: it cannot be written, or holds something: perhaps secrets that are nowhere else.
    """
    if file.is_file() and file.stat().st_size:
        raise StartError(f"{file} is not empty; name another file")
    _open_private(file).close()


def _open_private(file: Path) -> BinaryIO:
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.fchmod(descriptor, 0o600)
    except OSError as error:
        raise StartError(f"{file} cannot be written: {error.strerror}") from None
    return os.fdopen(descriptor, "wb")


def show_job(given: argparse.Namespace, job: dict[str, Any]) -> int:
    """Print a job."""
    if given.json:
        tables.show_json(job)
        return 0
    for name, value in job.items():
        print(f"{name:<10} {tables.cell(value)}")
    return 0


def _list(given: argparse.Namespace) -> int:
    found = pages(connect(given), "jobs", limit=given.limit, kind=given.kind, state=given.state)
    tables.show(found, COLUMNS, as_json=given.json)
    return 0


def _show(given: argparse.Namespace) -> int:
    return show_job(given, connect(given).call("GET", path("jobs", given.id)))


def _cancel(given: argparse.Namespace) -> int:
    return show_job(given, connect(given).call("POST", path("jobs", f"{given.id}:cancel")))


def _wait(given: argparse.Namespace) -> int:
    if given.result is not None:
        make_private(given.result)
    job = follow(connect(given), given.id, is_quiet=given.json)
    if given.result is not None and not save_result(given, job, given.result):
        print("headwater: this job made no result to download", file=sys.stderr)
    show_job(given, job)
    return 0 if job["state"] == "done" and not job["failed"] else 1
