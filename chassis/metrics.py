"""Prometheus metrics of a service, over all its worker processes when PROMETHEUS_MULTIPROC_DIR is set."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client import REGISTRY as _REGISTRY
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

__all__ = [
    "CONTENT_TYPE", "Counter", "Gauge", "Histogram", "environment_of_its_own", "exposition", "forget_process",
    "use_folder",
]  # fmt: skip

CONTENT_TYPE = CONTENT_TYPE_LATEST
_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # the name prometheus_client fixes


def use_folder(folder: Path) -> dict[str, str]:
    """Empty the folder of a service's metric files (at master start) and give the environment that selects it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    return {_FOLDER: str(folder)}


def environment_of_its_own() -> dict[str, str]:
    """Give the environment for a process that a service starts: what it counts is not counted for the service."""
    return {name: value for name, value in os.environ.items() if name != _FOLDER}


def forget_process(pid: int) -> None:
    """Drop the gauges of a worker process that ended."""
    if os.environ.get(_FOLDER):
        mark_process_dead(pid)  # type: ignore[no-untyped-call]


def exposition() -> bytes:
    """Render all metrics in Prometheus' text format."""
    if not os.environ.get(_FOLDER):
        return generate_latest(_REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
