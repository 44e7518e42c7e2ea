"""How the command line reaches an installation: through its gateway, with the operator's token, like anybody else."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, urlencode

import urllib3
from pydantic import BaseModel, ConfigDict

from chassis import settings
from chassis.peers import HttpPeer, Peer
from compose import state
from compose.folder import Folder, StartError
from wire.errors import HeadwaterError, PeerUnavailable

TIMEOUT_S = 120.0  # an import of 10,000 devices answers when it is done
PAGE = 500
FIRST_ERROR = 300
CHUNK_BYTES = 64 * 1024


class ClientConfig(BaseModel):
    """Which installation a command means when no option says so."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    data: Path = Path("./data")
    token: str = ""  # of an operator; empty: that of the data folder


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which installation is meant and how to print."""
    add_data_option(parser)
    parser.add_argument("--url", help="gateway of another installation (default: the one that runs on the data folder)")
    parser.add_argument("--token", help="operator token (default: DIR/secrets/operator.token, or $HEADWATER_TOKEN)")
    parser.add_argument("--tenant", metavar="T", help="act in this tenant (for those of the platform)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def at_least_one(text: str) -> int:
    """Read the number of a `--limit`."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"not a number of 1 or more: {text!r}")
    return int(text)


def add_group(commands: Any, name: str, help_text: str) -> Any:
    """Add a command that has actions of its own; give what collects them."""
    parser = commands.add_parser(name, help=help_text)
    return parser.add_subparsers(title="actions", metavar="ACTION", required=True)


def finish(parser: argparse.ArgumentParser, run: Any) -> None:
    """Complete an action: the options that every one has, and what it runs."""
    add_options(parser)
    parser.set_defaults(run=run)


def add_data_option(parser: argparse.ArgumentParser) -> None:
    """Add `--data`."""
    parser.add_argument("--data", type=Path, metavar="DIR", help="data folder (default ./data)")


def folder_of(given: argparse.Namespace) -> Folder:
    """Give the data folder that is meant: by `--data`, else by the settings that `up` reads too."""
    return Folder(settings.load(ClientConfig, {"data": given.data}).data)


def connect(given: argparse.Namespace) -> Peer:
    """Open the way to the installation that the options name.

    Raises:
        StartError: none runs there, or there is no token.
    """
    folder = folder_of(given)
    return HttpPeer(_url(given, folder), _token(given, folder), timeout_s=TIMEOUT_S)


def stream(given: argparse.Namespace, path: str) -> Iterator[bytes]:
    """Get what is too large to be held at once, part by part.

    Raises:
        HeadwaterError: the platform refuses it, or does not answer.
    """
    with _asked(given, "GET", path) as answer:
        yield from answer.stream(CHUNK_BYTES)


def upload(given: argparse.Namespace, path: str, file: BinaryIO, media_type: str) -> Any:
    """Send a file as it is, part by part; give the answer. Raises HeadwaterError."""
    with _asked(given, "POST", path, body=file, headers={"Content-Type": media_type}) as answer:
        return json.loads(answer.data)


@contextmanager
def _asked(given: argparse.Namespace, method: str, path: str, **more: Any) -> Iterator[urllib3.BaseHTTPResponse]:
    folder = folder_of(given)
    url = f"{_url(given, folder)}{path}"
    headers = {"Authorization": f"Bearer {_token(given, folder)}"} | more.pop("headers", {})
    try:
        with urllib3.PoolManager(retries=False, timeout=TIMEOUT_S) as pool:
            answer = pool.request(method, url, headers=headers, preload_content=False, **more)
            if answer.status >= FIRST_ERROR:
                problem = json.loads(answer.data or b"{}")
                raise HeadwaterError(problem.get("detail", f"{url} answered {answer.status}"), code=problem.get("code"))
            yield answer
    except urllib3.exceptions.HTTPError as error:
        raise PeerUnavailable(f"{url} broke off: {type(error).__name__}") from error


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
        if not given.url.startswith(("http://", "https://")):
            raise StartError(f"--url is http://HOST:PORT or https://..., not {given.url!r}")
        return str(given.url)
    running = state.read(folder) if folder.is_held() else None
    if running is None:
        raise StartError(f"nothing runs on the data folder {folder.root}; start it, or name it with --data or --url")
    return running.near_url


def _token(given: argparse.Namespace, folder: Folder) -> str:
    token = _own_token(given, folder)
    return f"{token}@{given.tenant}" if getattr(given, "tenant", None) else token


def _own_token(given: argparse.Namespace, folder: Folder) -> str:
    token = settings.load(ClientConfig, {"token": given.token}).token
    if token:
        return token
    try:
        return (folder.secrets / "operator.token").read_text().strip()
    except OSError as error:
        raise StartError(f"no operator token: {error.filename}: {error.strerror}; give one with --token") from None
