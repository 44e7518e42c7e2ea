"""How much load the simulator itself can make, against a bare broker and a bare HTTP server: prints the figures.

    .venv/bin/python bench/simulator.py [mqtt|mqtt5|ledger|wide|wide2|fleet|posts|http|batch|memory ...]

Load generator and server share the machine's cores; the CPU time given is the simulator's alone.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]

import results  # noqa: E402

from tests.simulators.fakes import Mosquitto  # noqa: E402

SETUPS: dict[str, tuple[str, list[str]]] = {
    "mqtt": (
        "MQTT 3.1.1, QoS 1, few connections, mosquitto without persistence",
        ["--devices", "200", "--rate", "200/s", "--ramp", "500/s", "--duration", "8s"],
    ),
    "mqtt5": (
        "MQTT 5, QoS 1, few connections, mosquitto without persistence",
        ["--devices", "200", "--rate", "200/s", "--ramp", "500/s", "--duration", "8s", "-V", "5"],
    ),
    "ledger": (
        "MQTT 3.1.1, QoS 1, few connections, fsync'd ledger",
        ["--devices", "200", "--rate", "200/s", "--ramp", "500/s", "--duration", "8s", "--ledger", "LEDGER"],
    ),
    "wide": (
        "MQTT 3.1.1, QoS 1, 5,000 connections at 8.5/s",
        ["--devices", "5000", "--rate", "8.5/s", "--ramp", "2500/s", "--duration", "20s"],
    ),
    "wide2": (
        "MQTT 3.1.1, QoS 1, 5,000 connections at 8/s, two processes",
        ["--devices", "5000", "--rate", "8/s", "--ramp", "2500/s", "--duration", "10s", "--processes", "2"],
    ),
    "fleet": (
        "MQTT 3.1.1, QoS 1, 5,000 devices at 1/s, fsync'd ledger",
        ["--devices", "5000", "--rate", "1/s", "--ramp", "1000/s", "--duration", "20s", "--ledger", "LEDGER"],
    ),
    "posts": (
        "HTTP, 5,000 keep-alive connections, a reading a POST at 1/s, a server that does nothing",
        ["--transport", "http", "--devices", "5000", "--rate", "1/s", "--ramp", "1000/s", "--duration", "10s"],
    ),
    "http": (
        "HTTP, a reading a POST, a server that does nothing",
        ["--transport", "http", "--devices", "64", "--rate", "250/s", "--ramp", "500/s", "--duration", "5s"],
    ),
    "batch": (
        "HTTP, NDJSON of 500, a server that does nothing",
        [
            "--transport",
            "http",
            "--devices",
            "8",
            "--rate",
            "30000/s",
            "--ramp",
            "500/s",
            "--duration",
            "5s",
            "--batch",
            "500",
        ],
    ),
}
Outcome = tuple[dict[str, Any], float, int]  # report, CPU seconds, peak of resident memory in kB
DEMO = ["--devices", "20", "--rate", "1/s", "--forever", "--scenario", "greenhouse,cold-chain,pump"]


def measure(name: str) -> None:
    (title, load), before = SETUPS[name], results.conditions()
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        report, cpu_s, peak_kb = run_http(folder, load) if "http" in load else run_mqtt(folder, load)
    print(f"\n{title}\n  load: {' '.join(load)}")
    print(f"  {report['rate_s']:,.0f} acknowledged/s, {report['acked']:,} of {report['sent']:,} sent")
    print(f"  {1e6 * cpu_s / report['acked']:.1f} us CPU a message; ack ms {report['ack_ms']}")
    devices = report["settings"]["devices"]
    figures = {"rate_s": report["rate_s"], "acked": report["acked"], "us": round(1e6 * cpu_s / report["acked"], 1)}
    lines = [
        results.Line(f"simulator: {title}", round(report["rate_s"]), "acked/s", aim=40_000 if name == "wide" else None)
    ]
    if devices >= 1000 and "--processes" not in load:  # with few, one sees the queues alone
        figures["bytes"] = round(1024 * (peak_kb - idle_kb()) / devices)
        print(f"  {figures['bytes']:,} bytes a connection at the peak, queues and all")
        lines.append(results.Line("the same, memory", figures["bytes"], "bytes a connection"))
    results.save(f"simulator-{name}", before, figures, lines)


def run_mqtt(folder: Path, load: list[str]) -> Outcome:
    broker = Mosquitto(folder, "allow_anonymous true")
    broker.start()
    try:
        return simulate(folder, [*load, "--mqtt", f"127.0.0.1:{broker.port}", "--no-register"])
    finally:
        broker.stop()


def run_http(folder: Path, load: list[str]) -> Outcome:
    port: multiprocessing.Queue[int] = multiprocessing.Queue()
    server = multiprocessing.Process(target=serve, args=(port,))
    server.start()
    try:
        (folder / "token").write_text("none")
        url = f"http://127.0.0.1:{port.get(timeout=10)}"
        return simulate(folder, [*load, "--url", url, "--token-file", str(folder / "token")])
    finally:
        server.terminate()
        server.join()


def simulate(folder: Path, arguments: list[str]) -> Outcome:
    arguments = [str(folder / "ledger") if each == "LEDGER" else each for each in arguments]
    before, peak_kb = os.times(), 0
    command = [sys.executable, "-m", "simulators", "run", *arguments, "--report", str(folder / "report.json")]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        peak_kb = max(peak_kb, resident_kb(process.pid))
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit {process.returncode}")
    after = os.times()
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    return json.loads((folder / "report.json").read_text()), cpu_s, peak_kb


def resident_kb(pid: int) -> int:
    try:
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0
    return int(found[1]) if found else 0


@cache
def idle_kb() -> int:
    """What the simulator takes with a single device."""
    with tempfile.TemporaryDirectory() as text:
        return run_mqtt(Path(text), ["--devices", "1", "--duration", "2s"])[2]


def serve(port: multiprocessing.Queue[int]) -> None:
    """Answer 202 to telemetry, and to the registration what the simulator needs to go on."""
    import uvloop

    class Protocol(asyncio.Protocol):
        def __init__(self) -> None:
            self.buffer = bytearray()

        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            self.buffer += data
            end = self.buffer.find(b"\r\n\r\n")
            length = re.search(rb"Content-Length: (\d+)", self.buffer)
            size = end + 4 + int(length[1] if length else 0)
            if end < 0 or len(self.buffer) < size:
                return
            status, answer = reply(bytes(self.buffer[:size]))
            self.buffer.clear()
            self.transport.write(b"HTTP/1.1 %d OK\r\nContent-Length: %d\r\n\r\n%s" % (status, len(answer), answer))

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Protocol, "127.0.0.1", 0)
        port.put(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    uvloop.run(main())


def reply(request: bytes) -> tuple[int, bytes]:
    if request.startswith(b"POST /v1/telemetry"):
        return 202, b'{"accepted":1,"quarantined":[]}'
    if request.startswith(b"POST /v1/devices:import"):
        rows = request.partition(b"\r\n\r\n")[2].decode().splitlines()[1:]
        ids = [row.split(",")[0] for row in rows]
        issued = [{"device": each, "username": each, "secret": "s", "bearer": f"{each}.s"} for each in ids]
        return 200, json.dumps({"credentials": issued}).encode()
    return 200, b'{"points":[]}'


def measure_memory() -> None:
    with tempfile.TemporaryDirectory() as text:
        broker = Mosquitto(Path(text), "allow_anonymous true")
        broker.start()
        command = [
            sys.executable,
            "-m",
            "simulators",
            "run",
            *DEMO,
            "--no-register",
            "--mqtt",
            f"127.0.0.1:{broker.port}",
        ]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            time.sleep(8)
            rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        finally:
            process.terminate()
            process.wait()
            broker.stop()
    pss = re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)
    print(f"\n20 demo devices: {int(pss[1]) / 1024 if pss else 0:.1f} MB PSS after 8 s")


if __name__ == "__main__":
    machine = f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores"
    print(f"{machine}, load {os.getloadavg()[0]:.1f}, {time.strftime('%Y-%m-%d')}")
    for wanted in sys.argv[1:] or [*SETUPS, "memory"]:
        measure_memory() if wanted == "memory" else measure(wanted)
