"""Where the scripts keep their figures: `bench/results/NAME.json`, with the conditions they were measured under."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"


def conditions() -> dict[str, Any]:
    """Say when and where; the load average tells how much else the machine did."""
    model = next((line.partition(":")[2].strip() for line in _cpu_lines() if line.startswith("model name")), "")
    return {
        "date": time.strftime("%Y-%m-%d"), "cpus": os.cpu_count(), "cpu": model, "python": platform.python_version(),
        "system": platform.platform(), "load_before": round(os.getloadavg()[0], 1),
    }  # fmt: skip


def save(name: str, before: dict[str, Any], figures: dict[str, Any]) -> None:
    """Write the figures of one script, with the conditions as they were before it ran."""
    FOLDER.mkdir(exist_ok=True)
    kept = {"conditions": before | {"load_after": round(os.getloadavg()[0], 1)}, "figures": figures}
    (FOLDER / f"{name}.json").write_text(json.dumps(kept, indent=2) + "\n")


def _cpu_lines() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
