"""One ingestion service and nothing else: CPU us of a POST, by worker class, number of connections and size.

    .venv/bin/python bench/http_posts.py [--worker gthread] [--connections 64] [--batch 1] [--seconds 4] [--rounds 3]

A registry that knows every device answers from this process; the load comes straight, without the gateway.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]

import footprint  # noqa: E402
import load  # noqa: E402


def login(number: int) -> load.Login:
    return load.Login(f"bench-{number}", hashlib.sha256(b"%d" % number).hexdigest()[:43])


class Registry(BaseHTTPRequestHandler):
    """Knows every device that is asked for."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._tell({"revision": 1, "reset": False, "devices": [], "types": []})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"]))).get("ids", [])
        known = [self._device(device_id) for device_id in asked if device_id.startswith("bench-")]
        self._tell({"revision": 1, "types": {}, "devices": known})

    def _device(self, device_id: str) -> dict[str, object]:
        secret = login(int(device_id.rpartition("-")[2])).secret
        credential = {"id": device_id, "sha256": hashlib.sha256(secret.encode()).hexdigest()}
        return {"id": device_id, "state": "active", "type": None, "gateway": False, "credentials": [credential]}

    def _tell(self, told: object) -> None:
        content = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


class Service:
    """`headwater serve ingest` on a folder of its own."""

    def __init__(self, folder: str, registry: int, worker: str) -> None:
        self.port = footprint.free_port()
        own = {"DATA": folder, "PORT": str(self.port), "DEVICES_URL": f"http://127.0.0.1:{registry}"}
        own |= {"SERVICE_TOKEN": "t", "LOG_LEVEL": "warning"}
        environ = os.environ | {f"HEADWATER_{name}": value for name, value in own.items()}
        environ |= {"MALLOC_ARENA_MAX": "2", "GUNICORN_CMD_ARGS": f"-k {worker}" if worker else ""}
        argv = [sys.executable, "-P", "-m", "compose", "serve", "ingest", "--protocol", "json"]
        self._process = subprocess.Popen(argv, env=environ, start_new_session=True)
        footprint.wait_for(f"http://127.0.0.1:{self.port}/readyz")

    def cpu_s(self) -> float:
        return sum(map(footprint.cpu_s, footprint.sessions()[self._process.pid]))

    def group(self) -> tuple[float, float]:
        """Requests and commits so far."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
            lines = [line.split() for line in answer.read().decode().splitlines() if "batcher_group_requests_" in line]
        found = {line[0]: float(line[1]) for line in lines if len(line) == 2}
        return found["headwater_batcher_group_requests_sum"], found["headwater_batcher_group_requests_count"]

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(20)


def measure(given: argparse.Namespace, registry: int) -> None:
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as folder:
        service = Service(folder, registry, given.worker)
        try:
            address, logins = ("127.0.0.1", service.port), [login(number) for number in range(given.connections)]
            load.run_apart(load.post, address, logins, 0.5, "warm", given.batch)
            cpu_s, (requests, commits) = service.cpu_s(), service.group()
            result = load.run_apart(load.post, address, logins, given.seconds, "run", given.batch)
            posts, after = sum(result.answers.values()), service.group()
            us = 1e6 * (service.cpu_s() - cpu_s) / posts
        finally:
            service.stop()
    share = (after[0] - requests) / max(1, after[1] - commits)
    ack = " ".join(f"p{part} {result.percentile(part / 100):.1f}" for part in (50, 99))
    print(
        f"  {posts / result.seconds:,.0f} POST/s, {us:.0f} us a POST, {share:.1f} POSTs a sync, ack ms {ack}", end=", "
    )
    print(f"{dict(result.answers)}, load {os.getloadavg()[0]:.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worker", default="", help="gunicorn's name of another worker class: gthread, gevent")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--batch", type=int, default=1, help="readings a POST")
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    registry = ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    threading.Thread(target=registry.serve_forever, daemon=True).start()
    named = given.worker or "as configured"
    print(f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} CPUs, worker {named}, {given.connections} connections")
    for _ in range(given.rounds):
        measure(given, registry.server_address[1])
    registry.shutdown()
    registry.server_close()


if __name__ == "__main__":
    main()
