"""`headwater type export`, `import`, `ready` and `install`: types from elsewhere and to elsewhere."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from compose import tables
from compose.client import connect, finish, path
from compose.commands.type_trials import read_json

TYPES = "device-types"


def configure(actions: Any) -> None:
    """Add the actions."""
    export = actions.add_parser("export", help="print a device type as JSON Schema (draft 2020-12)")
    export.add_argument("name")
    export.add_argument("--version", type=int, metavar="N", help="default: the one in force")
    finish(export, _export)
    taking = actions.add_parser("import", help="make a draft of a JSON Schema, and list what of it is not understood")
    taking.add_argument("file", type=Path, metavar="FILE.json", help="the schema; - is standard input")
    taking.add_argument("--name", help="of the type (default: the file's name)")
    taking.add_argument("--activate", action="store_true", help="in force at once")
    taking.add_argument("--partial", action="store_true", help="leave out what can be no field, instead of refusing it")
    finish(taking, _import)
    finish(actions.add_parser("ready", help="list the device types that come with the platform"), _ready)
    install = actions.add_parser("install", help="put device types that come with the platform in force")
    install.add_argument("names", nargs="+", metavar="NAME")
    finish(install, _install)


def _export(given: argparse.Namespace) -> int:
    tables.show_json(connect(given).call("GET", path(TYPES, f"{given.name}:export", version=given.version)))
    return 0


def _import(given: argparse.Namespace) -> int:
    name = given.name or given.file.stem
    query = {name: "true" for name in ("activate", "partial") if getattr(given, name)}
    found = connect(given).call("POST", path(TYPES, f"{name}:import", **query), read_json(given.file))
    if given.json:
        tables.show_json(found)
        return 0
    made = found["version"]
    print(f"{name} version {made['version']}: {made['state']}, {len(made['spec']['fields'])} fields")
    if found["ignored"]:
        print("Not understood:")
        print("\n".join(f"  {tables.clean(line)}" for line in found["ignored"]))
    return 0


def _ready(given: argparse.Namespace) -> int:
    found = connect(given).call("GET", path(f"{TYPES}:ready"))["items"]
    tables.show(found, ("name", "installed", "description"), as_json=given.json)
    return 0


def _install(given: argparse.Namespace) -> int:
    found = connect(given).call("POST", path(f"{TYPES}:install"), {"names": given.names})
    rows = [{"name": name, "done": "installed"} for name in found["installed"]]
    rows += [{"name": name, "done": "was there before"} for name in found["present"]]
    tables.show(rows, ("name", "done"), as_json=given.json)
    return 0
