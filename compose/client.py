"""How the command line reaches an installation: through its gateway, with the operator's token, like anybody else."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from chassis.peers import HttpPeer, Peer
from compose import state
from compose.folder import Folder, StartError

TIMEOUT_S = 120.0  # an import of 10,000 devices answers when it is done
PAGE = 500


def add_options(parser: argparse.ArgumentParser, *, has_json: bool = False) -> None:
    """Add the options that say which installation is meant."""
    add_data_option(parser)
    parser.add_argument("--url", help="gateway of another installation (default: the one that runs on the data folder)")
    parser.add_argument("--token", help="operator token (default: DIR/secrets/operator.token, or $HEADWATER_TOKEN)")
    if has_json:
        parser.add_argument("--json", action="store_true", help="print JSON")


def add_data_option(parser: argparse.ArgumentParser) -> None:
    """Add `--data`."""
    default = Path(os.environ.get("HEADWATER_DATA", "./data"))
    parser.add_argument("--data", type=Path, default=default, metavar="DIR", help="data folder (default ./data)")


def connect(given: argparse.Namespace) -> Peer:
    """Open the way to the installation that the options name.

    Raises:
        StartError: none runs there, or there is no token.
    """
    folder = Folder(given.data)
    return HttpPeer(_url(given, folder), _token(given, folder), timeout_s=TIMEOUT_S)


def path(*parts: str, **query: Any) -> str:
    """Build a path from parts that may hold anything, with the query members that are not None."""
    given = {name: value for name, value in query.items() if value is not None}
    text = "/v1/" + "/".join(quote(part, safe=":") for part in parts)
    return f"{text}?{urlencode(given, doseq=True)}" if given else text


def pages(peer: Peer, *parts: str, limit: int | None = None, **query: Any) -> Iterator[Any]:
    """Walk through a paged listing."""
    cursor, left = None, limit
    while left is None or left > 0:
        size = PAGE if left is None else min(left, PAGE)
        page = peer.call("GET", path(*parts, **query, limit=size, cursor=cursor))
        items = page["items"]
        yield from items
        left = None if left is None else left - len(items)
        cursor = page.get("next")
        if not cursor or not items:
            return


def _url(given: argparse.Namespace, folder: Folder) -> str:
    if given.url:
        return str(given.url)
    running = state.read(folder) if folder.is_held() else None
    if running is None:
        raise StartError(f"nothing runs on the data folder {folder.root}; start it, or name it with --data or --url")
    return running.near_url


def _token(given: argparse.Namespace, folder: Folder) -> str:
    if given.token or os.environ.get("HEADWATER_TOKEN"):
        return str(given.token or os.environ["HEADWATER_TOKEN"])
    try:
        return (folder.secrets / "operator.token").read_text().strip()
    except OSError as error:
        raise StartError(f"no operator token: {error.filename}: {error.strerror}; give one with --token") from None
