"""`headwater media`: snapshots of cameras and other blobs of devices."""

from __future__ import annotations

import argparse
import mimetypes
import sys
from contextlib import nullcontext
from itertools import chain
from pathlib import Path
from typing import Any

from compose import tables
from compose.client import add_group, at_least_one, connect, finish, pages, path, stream, upload
from compose.folder import StartError

COLUMNS = ("id", "time", "device", "channel", "type", "size", "width", "height")
FILTERS = ("device", "channel", "start", "end")


def configure(commands: Any) -> None:
    """Add the command."""
    actions = add_group(commands, "media", "list, get, put and delete snapshots and other blobs of devices")
    listing = actions.add_parser("list", help="list what is kept, newest first")
    listing.add_argument("--device", metavar="ID", help="only of this device")
    listing.add_argument("--channel", metavar="C", help="only of this channel")
    listing.add_argument("--start", metavar="TIME", help="only of this time or later (RFC 3339, or ns)")
    listing.add_argument("--end", metavar="TIME", help="only of before")
    listing.add_argument("--limit", type=at_least_one, default=100, metavar="N", help="at most so many (default 100)")
    finish(listing, _list)
    get = actions.add_parser("get", help="write one to a file, or to standard output")
    get.add_argument("id")
    get.add_argument("--output", type=Path, metavar="FILE", help="default: standard output")
    get.add_argument("--thumbnail", action="store_true", help="a small JPEG of it")
    finish(get, _get)
    put = actions.add_parser("put", help="keep a file as one of a device")
    put.add_argument("device")
    put.add_argument("file", type=Path)
    put.add_argument("--channel", metavar="C", help="default: `default`")
    put.add_argument("--time", metavar="TIME", help="when it was taken (RFC 3339, or ns; default: now)")
    finish(put, _put)
    delete = actions.add_parser("delete", help="remove some; their points stay")
    delete.add_argument("id", nargs="+")
    finish(delete, _delete)


def _list(given: argparse.Namespace) -> int:
    wanted = {name: value for name in FILTERS if (value := getattr(given, name))}
    tables.show(pages(connect(given), "media", limit=given.limit, **wanted), COLUMNS, as_json=given.json)
    return 0


def _get(given: argparse.Namespace) -> int:
    parts = stream(given, path("media", given.id, "thumbnail" if given.thumbnail else "content"))
    first = next(parts, b"")  # before the file is made: a refusal must not leave an empty one
    try:
        with given.output.open("wb") if given.output else nullcontext(sys.stdout.buffer) as target:
            for part in chain((first,), parts):
                target.write(part)
    except OSError as error:
        raise StartError(f"--output: {given.output} cannot be written: {error.strerror}") from None
    return 0


def _put(given: argparse.Namespace) -> int:
    query = path("devices", given.device, "media", channel=given.channel, time=given.time)
    kind = mimetypes.guess_type(given.file.name)[0] or "application/octet-stream"
    try:
        with given.file.open("rb") as file:
            made = upload(given, query, file, kind)
    except OSError as error:
        raise StartError(f"{given.file} cannot be read: {error.strerror}") from None
    if given.json:
        tables.show_json(made)
    else:
        print(f"{given.device} has it as {made['id']}: {made['type']}, {made['size']} bytes")
    return 0


def _delete(given: argparse.Namespace) -> int:
    peer = connect(given)
    for media_id in given.id:
        peer.call("DELETE", path("media", media_id))
    if given.json:
        tables.show_json({"deleted": given.id})
    else:
        print(f"{len(given.id)} removed")
    return 0
