"""The whole way of a message, measured on a running installation of its own: prints the figures with their conditions.

    .venv/bin/python bench/pipeline.py [mqtt|visible|single|batch ...]

The load generator shares the machine's cores with everything it measures.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.e2e.platform import HEADWATER, Installation  # noqa: E402

SETUPS: dict[str, tuple[str, list[str]]] = {
    "mqtt": (
        "QoS 1: device -> broker -> bridge -> ingest -> fsync -> ack -> stored",
        ["--devices", "200", "--rate", "150/s", "--duration", "20s", "--transport", "mqtt", "--ramp", "200/s"],
    ),
    "visible": (
        "publish -> queryable at 5,000 msg/s",
        ["--devices", "500", "--rate", "10/s", "--duration", "20s", "--transport", "mqtt", "--ramp", "250/s"],
    ),
    "single": (
        "HTTP, one message a POST, one worker, auth and fsync",
        ["--devices", "64", "--rate", "200/s", "--duration", "15s", "--transport", "http", "--ramp", "200/s"],
    ),
    "batch": (
        "HTTP, NDJSON of 500",
        ["--devices", "8", "--rate", "30000/s", "--duration", "15s", "--transport", "http", "--batch", "500"],
    ),
}


def measure(name: str) -> None:
    title, load = SETUPS[name]
    with tempfile.TemporaryDirectory() as folder:
        installation = Installation(Path(folder) / "data").start()
        try:
            report, stored_s = run(installation, load, Path(folder) / "report.json")
        finally:
            installation.stop()
    rate = report["acked"] / stored_s
    print(f"\n{title}\n  load: {' '.join(load)}")
    print(f"  acked {report['acked']:,} of {report['sent']:,} sent, {report['rate_s']:,.0f}/s; stored at {rate:,.0f}/s")
    print(f"  ack ms {report['ack_ms']}; visible ms {report['visible_ms']}")
    print(f"  lost {report['lost']}, duplicates {report['duplicates']}")


def run(installation: Installation, load: list[str], report: Path) -> tuple[dict[str, Any], float]:
    command = [HEADWATER, "sim", "run", *load, "--url", installation.url, "--mqtt", f"127.0.0.1:{installation.mqtt}"]
    command += ["--token-file", str(installation.data / "secrets/operator.token"), "--report", str(report), "--verify"]
    subprocess.run([*command, "--fail-if", "lost>0"], check=False, stdout=subprocess.DEVNULL)
    ended = json.loads(report.read_text())
    installation.settle()
    return ended, ended["acked"] / ended["rate_s"] if ended["rate_s"] else 1.0


def main() -> None:
    chosen = sys.argv[1:] or list(SETUPS)
    machine = f"{os.cpu_count()} CPUs, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f} before"
    print(f"{time.strftime('%Y-%m-%d')}, {machine}; the load generator shares the cores")
    for name in chosen:
        measure(name)


if __name__ == "__main__":
    main()
