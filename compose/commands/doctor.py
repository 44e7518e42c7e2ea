"""`headwater doctor`: look for what would stop or endanger an installation, before it does."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from chassis import settings
from compose import authority_end, ports, state, tables
from compose.commands.settings import misspelt
from compose.config import UpConfig
from compose.folder import Folder, StartError
from compose.processes import find_program

SQLITE_FLOOR = (3, 51, 3)  # older builds can corrupt a WAL with several writers (sqlite.org/wal.html)
DISK_FLOOR_BYTES = 1024**3
BROKER_BROKEN = "2.0.16"  # its max_queued_messages and in-flight handling are broken
PROGRAM_LIMIT_S = 10


class Finding(NamedTuple):
    """One check's result."""

    check: str
    result: str  # ok, warning, fault
    detail: str


def configure(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("doctor", help="check programs, versions, ports, folder, disk")
    parser.add_argument("--data", help="data folder, as given to `up`")
    parser.add_argument("--port", type=int)
    parser.add_argument("--mqtt-port", type=int)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Run all checks; exit code 1 when one found a fault."""
    overrides = {"data": given.data, "port": given.port, "mqtt_port": given.mqtt_port}
    found = examine(settings.load(UpConfig, overrides))
    tables.show([finding._asdict() for finding in found], Finding._fields, as_json=given.json)
    return 1 if any(finding.result == "fault" for finding in found) else 0


def examine(config: UpConfig) -> list[Finding]:
    """Run all checks."""
    folder = Folder(config.data)
    checks: dict[str, Callable[[], tuple[str, str]]] = {
        "settings": _settings,
        "python": _python,
        "mosquitto": _mosquitto,
        "nginx": _nginx,
        "sqlite": _sqlite,
        "data folder": lambda: _folder(folder),
        "disk": lambda: _disk(folder),
        "authority": lambda: _authority(folder),
        "port": lambda: _port(folder, config.bind, config.port, "--port"),
        "mqtt port": lambda: _port(folder, config.plain_mqtt_bind, config.mqtt_port, "--mqtt-port"),
    }
    return [_check(name, check) for name, check in checks.items()]


def _check(name: str, check: Callable[[], tuple[str, str]]) -> Finding:
    try:
        return Finding(name, *check())
    except (StartError, OSError, ImportError, subprocess.SubprocessError) as error:
        return Finding(name, "fault", str(error))


def _settings() -> tuple[str, str]:
    found = misspelt()
    return ("warning", "; ".join(found)) if found else ("ok", "every name in headwater.toml is known")


def _python() -> tuple[str, str]:
    return "ok", sys.version.split()[0]


def _mosquitto() -> tuple[str, str]:
    version = _version("mosquitto", "-h")
    if version.endswith(BROKER_BROKEN):
        return "fault", f"{version} loses queued messages; install 2.0.17 or later"
    return "ok", version


def _nginx() -> tuple[str, str]:
    return "ok", _version("nginx", "-v")


def _sqlite() -> tuple[str, str]:
    import apsw

    version = apsw.sqlite_lib_version()
    is_fixed = tuple(map(int, version.split("."))) >= SQLITE_FLOOR
    return ("ok", version) if is_fixed else ("fault", f"{version} can corrupt a WAL; 3.51.3 or later is needed")


def _folder(folder: Folder) -> tuple[str, str]:
    if folder.is_held():
        return "ok", f"{folder.root} (in use by a running installation)"
    folder.prepare()
    return "ok", str(folder.root)


def _disk(folder: Folder) -> tuple[str, str]:
    free = shutil.disk_usage(folder.root if folder.root.exists() else folder.root.anchor).free
    detail = f"{free / 1024**3:.1f} GiB free"
    return ("ok", detail) if free >= DISK_FLOOR_BYTES else ("warning", f"{detail}: the spool stops at 256 MiB free")


def _authority(folder: Folder) -> tuple[str, str]:
    end = authority_end.end_of(folder)
    if end is None:
        return "ok", "none of its own"
    trouble = authority_end.warning(end)
    return ("warning", f"{trouble}: see docs/security.md, TLS") if trouble else ("ok", f"until {end:%Y-%m-%d}")


def _port(folder: Folder, host: str, port: int, option: str) -> tuple[str, str]:
    running = state.read(folder) if folder.is_held() else None
    if running and str(port) in (running.url.rpartition(":")[2], running.mqtt.rpartition(":")[2]):
        return "ok", f"{port} (the installation runs)"
    ports.check_free(host, port, option)
    return "ok", f"{port} is free on {host}"


def _version(program: str, option: str) -> str:
    result = subprocess.run(
        [find_program(program), option], capture_output=True, text=True, timeout=PROGRAM_LIMIT_S, check=False
    )
    lines = (result.stdout or result.stderr).splitlines()
    return lines[0].strip() if lines else "no version"
