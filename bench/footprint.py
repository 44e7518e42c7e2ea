"""Time to ready and memory of an installation: `bench/footprint.py [--starts 5]`, or `--data DIR` of a running one.

`--service` measures one ingestion service alone instead, against a registry that answers at once.

Ready is counted from the start of the command to its "is ready" line. Memory is PSS (shared pages counted once in
sum) of the supervisor and of every process below it, read from /proc/PID/smaps_rollup.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

sys.path[:0] = [str(Path(__file__).parent)]

import results  # noqa: E402

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


def measure(data: Path, *, with_memory: bool = True) -> list[Usage]:
    state = json.loads((data / "run/state.json").read_text())
    members = sessions()
    groups = {"headwater": [state["supervisor_pid"]]}
    groups |= {record["name"]: members.get(record["pid"], []) for record in state["processes"]}
    return [
        Usage(name, len(pids), sum(map(pss_mb, pids)) if with_memory else 0.0, sum(map(cpu_s, pids)))
        for name, pids in groups.items()
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


class Registry(BaseHTTPRequestHandler):
    """A devices service without devices."""

    def do_GET(self) -> None:
        body = b'{"revision":1,"devices":[],"types":[],"reset":false}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


def measure_service(starts: int) -> None:
    """Start `headwater serve ingest`: ms to the first 200 of /livez and of /readyz, then its memory."""
    registry = ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    threading.Thread(target=registry.serve_forever, daemon=True).start()
    before = results.conditions()
    found = [start_service(registry.server_address[1]) for _ in range(starts)]
    names = ("live ms", "ready ms", "PSS MB")
    medians = {
        name: round(statistics.median(values)) for name, values in zip(names, zip(*found, strict=True), strict=True)
    }
    for name, median in medians.items():
        print(f"one ingest service, {name}: median {median} of {starts}")
    lines = [
        results.Line("one ingest service: start", medians["ready ms"], "ms", 500, 300, is_most=True),
        results.Line("one ingest service: PSS", medians["PSS MB"], "MB", 60, 45, is_most=True),
    ]
    results.save("service", before, {"starts": [list(map(round, each)) for each in found]}, lines)
    registry.shutdown()
    registry.server_close()


def start_service(registry: int) -> tuple[float, float, float]:
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as folder:
        own = {"DATA": folder, "PORT": str(port), "DEVICES_URL": f"http://127.0.0.1:{registry}", "SERVICE_TOKEN": "t"}
        own |= {"LOG_LEVEL": "warning"}
        environ = os.environ | {f"HEADWATER_{name}": value for name, value in own.items()}
        environ |= {"MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": "262144"}  # as the supervisor sets it
        argv = [sys.executable, "-P", "-m", "compose", "serve", "ingest", "--protocol", "json"]
        began = time.monotonic()
        process = subprocess.Popen(argv, env=environ, start_new_session=True)
        try:
            times = [1e3 * (wait_for(f"http://127.0.0.1:{port}/{path}") - began) for path in ("livez", "readyz")]
            time.sleep(SETTLE_S)
            return times[0], times[1], sum(map(pss_mb, sessions()[process.pid]))
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


def wait_for(url: str) -> float:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with suppress(OSError), urllib.request.urlopen(url, timeout=1):
            return time.monotonic()
        time.sleep(0.01)
    raise SystemExit(f"{url} does not answer")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="data folder of a running installation: only its memory")
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--demo", type=int, default=0, help="simulated devices (0)")
    parser.add_argument("--service", action="store_true", help="only one ingestion service")
    given = parser.parse_args()
    print(f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f} before", flush=True)
    if given.service:
        measure_service(given.starts)
        return
    if given.data:
        show(measure(given.data))
        return
    before = results.conditions()
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as folder:
        seconds = []
        for number in range(given.starts + 1):
            process, ready_s = start(Path(folder), given.demo)
            print(f"{'first' if not number else 'later'} start: ready after {ready_s:.2f} s")
            seconds.append(ready_s)
            if number == given.starts:
                time.sleep(SETTLE_S)
                show(usages := measure(Path(folder)))
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=20)
            print(f"stopped after {time.monotonic() - began:.2f} s")
        later_s, pss = round(statistics.median(seconds[1:]), 2), round(sum(usage.pss_mb for usage in usages))
        print(f"later starts: median {later_s} s")
    lines = [
        results.Line("later start to ready", later_s, "s", 5, 2.5, is_most=True),
        results.Line("memory of everything (PSS)", pss, "MB", 500, 350, is_most=True),
    ]
    figures = {"seconds": seconds, "pss_mb": {usage.name: round(usage.pss_mb, 1) for usage in usages}}
    results.save("start", before, figures, lines)


if __name__ == "__main__":
    main()
