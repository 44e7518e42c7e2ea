"""Time to ready and memory of an installation: `bench/footprint.py [--starts 5]`, or `--data DIR` of a running one.

Ready is counted from the start of the command to its "is ready" line. Memory is PSS (shared pages counted once in
sum) of the supervisor and of every process below it, read from /proc/PID/smaps_rollup.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

TICKS = os.sysconf("SC_CLK_TCK")
SETTLE_S = 3.0


class Usage(NamedTuple):
    name: str
    processes: int
    pss_mb: float
    cpu_s: float


def sessions() -> dict[int, list[int]]:
    """Process ids by session: the supervisor makes one for each of its processes."""
    found: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found.setdefault(os.getsid(int(entry.name)), []).append(int(entry.name))
            except ProcessLookupError:
                continue
    return found


def pss_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def cpu_s(pid: int) -> float:
    parts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(parts[11]) + int(parts[12])) / TICKS


def measure(data: Path) -> list[Usage]:
    state = json.loads((data / "run/state.json").read_text())
    members = sessions()
    groups = {"headwater": [state["supervisor_pid"]]}
    groups |= {record["name"]: members.get(record["pid"], []) for record in state["processes"]}
    return [
        Usage(name, len(pids), sum(map(pss_mb, pids)), sum(map(cpu_s, pids))) for name, pids in groups.items()
    ]


def show(usages: list[Usage]) -> None:
    print(f"{'process':<12} {'n':>2} {'PSS MB':>8} {'CPU s':>7}")
    for usage in usages:
        print(f"{usage.name:<12} {usage.processes:>2} {usage.pss_mb:>8.1f} {usage.cpu_s:>7.2f}")
    total = Usage("all", *(sum(column) for column in list(zip(*usages, strict=True))[1:]))
    print(f"{total.name:<12} {total.processes:>2} {total.pss_mb:>8.1f} {total.cpu_s:>7.2f}")


def start(data: Path, demo: int) -> tuple[subprocess.Popen[str], float]:
    began = time.monotonic()
    argv = [sys.executable, "-P", "-m", "compose", "up", "--data", str(data), "--port", "0", "--mqtt-port", "0"]
    process = subprocess.Popen([*argv, "--demo", str(demo)], stdout=subprocess.PIPE, stderr=sys.stderr, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if "is ready" in line:
            return process, time.monotonic() - began
    raise SystemExit("it did not become ready")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="data folder of a running installation: only its memory")
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--demo", type=int, default=0, help="simulated devices (0)")
    given = parser.parse_args()
    if given.data:
        show(measure(given.data))
        return
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as folder:
        seconds = []
        for number in range(given.starts + 1):
            process, ready_s = start(Path(folder), given.demo)
            print(f"{'first' if not number else 'later'} start: ready after {ready_s:.2f} s")
            seconds.append(ready_s)
            if number == given.starts:
                time.sleep(SETTLE_S)
                show(measure(Path(folder)))
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=20)
            print(f"stopped after {time.monotonic() - began:.2f} s")
        print(f"later starts: median {statistics.median(seconds[1:]):.2f} s")


if __name__ == "__main__":
    main()
