"""`headwater type codec`: try a device type's codec on a payload, and put one in force."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from compose import tables
from compose.client import add_group, connect, finish, path
from compose.commands.type_trials import COUNTED
from compose.folder import StartError

TYPES = "device-types"
REFUSED = 3  # exit code of a payload that would be quarantined: not that of a fault


def configure(actions: Any) -> None:
    """Add the actions."""
    codec = add_group(actions, "codec", "codecs of device types, which decode the bytes of LoRaWAN devices")
    test = codec.add_parser("test", help="tell what a codec makes of a payload; nothing is kept")
    which = test.add_mutually_exclusive_group(required=True)
    which.add_argument("--file", type=Path, metavar="FILE.js", help="the script")
    which.add_argument("--type", metavar="NAME", help="the codec of this type instead")
    test.add_argument("--version", type=int, metavar="N", help="of the type (default: the one in force)")
    test.add_argument("--payload", required=True, metavar="HEX", help="the bytes, such as 0367011005")
    test.add_argument("--port", type=int, default=1, metavar="N", help="FPort (default 1)")
    finish(test, _test)
    put = codec.add_parser("set", help="put a version of a device type in force that has this codec")
    put.add_argument("name")
    chosen = put.add_mutually_exclusive_group(required=True)
    chosen.add_argument("--file", type=Path, metavar="FILE.js", help="the script")
    chosen.add_argument("--cayenne-lpp", action="store_true", help="payloads are Cayenne LPP")
    chosen.add_argument("--none", action="store_true", help="bytes stay what they are")
    put.add_argument("--port", type=int, action="append", metavar="N", help="only for bytes of this FPort; repeatable")
    finish(put, _set)


def _test(given: argparse.Namespace) -> int:
    asked = {"payload": given.payload.replace(" ", ""), "port": given.port}
    if given.file is not None:
        asked["codec"] = {"language": "javascript", "text": _read(given.file)}
    else:
        asked |= {"type": given.type} | ({"version": given.version} if given.version is not None else {})
    found = connect(given).call("POST", path(f"{TYPES}:test-codec"), asked)
    if given.json or found["error"] is None:
        tables.show_json(found if given.json or found["warnings"] else found["data"])
    else:
        print(f"it would be quarantined: {tables.clean(found['error'])}")
    return REFUSED if found["error"] is not None else 0


def _set(given: argparse.Namespace) -> int:
    peer = connect(given)
    spec = {key: value for key, value in peer.call("GET", path(TYPES, given.name)).items() if key not in COUNTED}
    made = peer.call("PUT", path(TYPES, given.name), spec | {"codec": _codec(given)})
    if given.json:
        tables.show_json(made)
    else:
        print(f"{made['name']} version {made['version']}: {'no codec' if given.none else made['codec']['language']}")
    return 0


def _codec(given: argparse.Namespace) -> dict[str, Any] | None:
    if given.none:
        return None
    ports = {"ports": given.port} if given.port else {}
    if given.file is None:
        return {"language": "cayenne_lpp"} | ports
    return {"language": "javascript", "text": _read(given.file)} | ports


def _read(file: Path) -> str:
    """Read a script. Raises StartError."""
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StartError(f"{file} cannot be read: {error}") from None
