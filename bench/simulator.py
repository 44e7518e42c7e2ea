"""How much load the simulator itself can make, against a bare broker and a bare HTTP server: prints the figures.

    .venv/bin/python bench/simulator.py [mqtt|http|batch|memory ...]

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
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.simulators.fakes import Mosquitto  # noqa: E402

SETUPS: dict[str, tuple[str, list[str]]] = {
    "mqtt": (
        "MQTT 3.1.1, QoS 1, mosquitto without persistence",
        ["--devices", "200", "--rate", "500/s", "--ramp", "500/s", "--duration", "5s"],
    ),
    "mqtt5": (
        "MQTT 5, QoS 1, mosquitto without persistence",
        ["--devices", "200", "--rate", "500/s", "--ramp", "500/s", "--duration", "5s", "-V", "5"],
    ),
    "fleet": (
        "MQTT 3.1.1, QoS 1, 1,000 devices at 1/s, fsync'd ledger",
        ["--devices", "1000", "--rate", "1/s", "--ramp", "500/s", "--duration", "20s", "--ledger", "LEDGER"],
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
DEMO = ["--devices", "20", "--rate", "1/s", "--forever", "--scenario", "greenhouse,cold-chain,pump"]


def measure(name: str) -> None:
    title, load = SETUPS[name]
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        report, cpu_s = run_http(folder, load) if "http" in load else run_mqtt(folder, load)
    print(f"\n{title}\n  load: {' '.join(load)}")
    print(f"  {report['rate_s']:,.0f} acknowledged/s, {report['acked']:,} of {report['sent']:,} sent")
    print(f"  {1e6 * cpu_s / report['acked']:.1f} us CPU a message; ack ms {report['ack_ms']}")


def run_mqtt(folder: Path, load: list[str]) -> tuple[dict[str, Any], float]:
    broker = Mosquitto(folder, "allow_anonymous true")
    broker.start()
    try:
        return simulate(folder, [*load, "--mqtt", f"127.0.0.1:{broker.port}", "--no-register"])
    finally:
        broker.stop()


def run_http(folder: Path, load: list[str]) -> tuple[dict[str, Any], float]:
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


def simulate(folder: Path, arguments: list[str]) -> tuple[dict[str, Any], float]:
    arguments = [str(folder / "ledger") if each == "LEDGER" else each for each in arguments]
    before = os.times()
    command = [sys.executable, "-m", "simulators", "run", *arguments, "--report", str(folder / "report.json")]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = os.times()
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    return json.loads((folder / "report.json").read_text()), cpu_s


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
