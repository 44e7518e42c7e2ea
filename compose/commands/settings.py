"""`headwater config show`: each setting, its value, and where it came from."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from chassis import settings
from compose import tables
from compose.client import ClientConfig, add_group
from compose.config import UpConfig

# Models of the processes by name; a process whose package is not there yet is left out.
MODELS = {
    "devices": "devices.config:DevicesConfig",
    "ingest": "ingest.config:IngestConfig",
    "media": "ingest.media.config:MediaConfig",
    "bridge": "ingest.bridge.config:BridgeConfig",
    "writer": "ingest.writer.config:WriterConfig",
    "dashboard": "dashboard_api.config:DashboardConfig",
}
SECRET_WORDS = ("token", "password", "secret")
MASK = "****"


def configure(commands: Any) -> None:
    """Add the command."""
    actions = add_group(commands, "config", "show settings and where they come from")
    show = actions.add_parser("show", help="print every setting")
    show.add_argument("--json", action="store_true", help="print JSON")
    show.add_argument("--data", type=Path, metavar="DIR", help="data folder, as given to `up`")
    show.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Print every setting of every process."""
    rows = [row for process, model in _models() for row in trace(process, model, given.data)]
    tables.show(rows, ("process", "setting", "value", "source"), as_json=given.json)
    return 0


def trace(process: str, model: type[BaseModel], data: Path | None = None) -> list[dict[str, Any]]:
    """List the settings of a model with their values and sources; secrets are masked."""
    overrides = {"data": data} if data else None
    found = settings.trace(model, overrides)
    loaded = settings.load(model, overrides)
    return [
        {
            "process": process,
            "setting": name,
            "variable": settings.PREFIX + name.upper(),
            "value": _shown(name, getattr(loaded, name)),
            "source": found[name].source if name in found else "default",
        }
        for name in model.model_fields
    ]


def misspelt() -> list[str]:
    """List what headwater.toml sets and no process knows."""
    return settings.misspelt(model for _, model in _models())


def _models() -> list[tuple[str, type[BaseModel]]]:
    found: list[tuple[str, type[BaseModel]]] = [("up", UpConfig), ("command line", ClientConfig)]
    for process, where in MODELS.items():
        module, _, name = where.partition(":")
        try:
            found.append((process, getattr(importlib.import_module(module), name)))
        except (ModuleNotFoundError, AttributeError):
            continue
    return found


def _shown(name: str, value: Any) -> Any:
    if value and any(word in name for word in SECRET_WORDS):
        return MASK
    text = str(value)
    scheme, separator, rest = text.partition("://")
    if separator and "@" in rest:  # a password inside a URL
        return f"{scheme}://{MASK}@{rest.rpartition('@')[2]}"
    return value if isinstance(value, int | float | bool) or value is None else text
