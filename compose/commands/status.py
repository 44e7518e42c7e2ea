"""`headwater status`: processes, ledger, lag, and how much waits in spool and quarantine."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import urllib3

from chassis.peers import HttpPeer
from compose import authority_end, procfs, state, tables
from compose.client import add_data_option, folder_of
from compose.folder import Folder
from wire.declared import REFUSED
from wire.errors import HeadwaterError

PROBE_S = 2.0
OK = 200
SET_ASIDE = "quarantine.db.damaged-*[0-9]"
UP = ("running", "idle")  # idle: starts when it is first needed
COLUMNS = ("name", "state", "pid", "restarts")


def configure(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("status", help="show processes, ledger, lag, spool and quarantine")
    add_data_option(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Print the status; exit code 0 when everything is ready."""
    found = collect(folder_of(given))
    if given.json:
        tables.show_json(found)
    else:
        _print(found)
    return 0 if found["ready"] else 1


def collect(folder: Folder) -> dict[str, Any]:
    """Gather the status of the installation on a data folder."""
    running = state.read(folder) if folder.is_held() else None
    shown: dict[str, Any] = {"ready": False, "data": str(folder.root), "processes": [], "ledger": {}, "lag_s": 0.0}
    shown |= {"spool_bytes": _size(folder.root / "spool"), "quarantine_bytes": _size(folder.root, "quarantine.db*")}
    shown["quarantine_set_aside"] = sorted(path.name for path in folder.root.glob(SET_ASIDE))
    shown["authority"] = _authority(folder)
    shown["protocols_refused"] = REFUSED
    if running is None:
        return shown
    shown |= {"url": running.url, "mqtt": running.mqtt, "supervisor_pid": running.supervisor_pid}
    shown["processes"] = [_describe(record) for record in running.processes]
    are_running = all(process["state"] in UP for process in shown["processes"])
    shown["ready"] = running.ready and are_running
    return shown | _pipeline(folder, running)


def _authority(folder: Folder) -> str | None:
    """Give what is to be said of our own certificate authority; None: nothing."""
    try:
        end = authority_end.end_of(folder)
    except OSError as error:
        return str(error)
    return None if end is None else authority_end.warning(end)


def _describe(record: state.ProcessRecord) -> dict[str, Any]:
    """Tell how a process is now: state.json may be older than its death or its trouble."""
    now: str = record.state
    seen = procfs.look(record.pid) if record.pid else None
    if now == "running" and (seen is None or seen.start_ticks != record.start_ticks):
        now = "restarting"
    if now == "running" and record.ready_url.startswith("http") and not _is_ready(record.ready_url):
        now = "not ready"
    return {"name": record.name, "pid": record.pid, "state": now, "restarts": record.restarts}


def _is_ready(url: str) -> bool:
    try:
        with urllib3.PoolManager(retries=False, timeout=PROBE_S) as pool:
            return pool.request("GET", url).status == OK
    except urllib3.exceptions.HTTPError:
        return False


def _pipeline(folder: Folder, running: state.State) -> dict[str, Any]:
    try:
        token = (folder.secrets / "operator.token").read_text().strip()
        ledger = dict(HttpPeer(running.near_url, token, timeout_s=PROBE_S).call("GET", "/v1/ledger"))
    except (HeadwaterError, OSError, TypeError, ValueError):
        return {}
    lag = ledger.pop("lag_s", 0.0)
    return {"ledger": ledger, "lag_s": float(lag or 0.0)}


def _size(folder: Path, pattern: str = "**/*") -> int:
    total = 0
    for path in folder.glob(pattern):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:  # the writer deletes finished segments meanwhile
            continue
    return total


def _print(found: dict[str, Any]) -> None:
    if not found["processes"]:
        print(f"Nothing runs on the data folder {found['data']}; start it with ./run or headwater up.")
    else:
        print(f"{'Ready' if found['ready'] else 'Not ready'}: {found['url']}, MQTT {found['mqtt']}\n")
        tables.show(found["processes"], COLUMNS)
    if found["ledger"]:
        print("\nLedger   " + "  ".join(f"{name} {count:,}" for name, count in found["ledger"].items()))
        print(f"Lag      {found['lag_s']:.3f} s")
    print(f"Spool    {found['spool_bytes']:,} bytes\nQuarantine {found['quarantine_bytes']:,} bytes")
    for name in found["quarantine_set_aside"]:
        print(f"DAMAGED: {name} was set aside with what waited in it; a new quarantine was begun")
    for entry, reason in found["protocols_refused"].items():
        print(f"REFUSED: the protocol {entry}: {reason}")
    if found["authority"]:
        print(f"WARNING: {found['authority']}: see docs/security.md, TLS")
