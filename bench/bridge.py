"""Messages/s through mosquitto and the bridge into an ingest service that does nothing: what the two cost alone.

    .venv/bin/python bench/bridge.py [--seconds 5] [--publishers 4] [--rate 20000]

Every part is a process of its own on this machine; without --rate the publishers go as fast as they are answered.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

from ingest.framing import Verdict, decode_batch, encode_verdict

PAYLOAD = (
    b'{"temperature":21.512,"humidity":48.25,"pressure":1013.25,"battery":3.712,"rssi":-71,"state":"running","n":%010d}'
)
BLOCK = 100  # messages a publisher sends before it reads its acks again
UNANSWERED = 500  # a publisher's window


def serve_nothing(pipe: multiprocessing.connection.Connection, taken: Synchronized[int]) -> None:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def do_POST(self) -> None:
            count = len(decode_batch(self.rfile.read(int(self.headers["Content-Length"]))).deliveries)
            body = encode_verdict(Verdict(count))
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()
            with taken.get_lock():
                taken.value += count

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    pipe.send(server.server_address[1])
    server.serve_forever()


def publish(number: int, port: int, until_s: float, rate: float, acked: Synchronized[int]) -> None:
    connection = socket.create_connection(("127.0.0.1", port))
    name = b"p%d" % number
    body = b"\x00\x04MQTT\x04\x02\x00\x00" + len(name).to_bytes(2, "big") + name
    connection.sendall(b"\x10" + bytes([len(body)]) + body)
    connection.recv(4)
    sent = answered = mid = 0
    begin_s = time.monotonic()
    while time.monotonic() < until_s or answered < sent:
        if time.monotonic() < until_s and sent - answered < UNANSWERED and sent <= rate * (time.monotonic() - begin_s):
            block = []
            for _ in range(BLOCK):
                mid = mid % 65_535 + 1
                block.append(_message(number, sent, mid))
                sent += 1
            connection.sendall(b"".join(block))
        elif sent > answered:
            answered += len(connection.recv(65_536)) // 4  # a PUBACK has four bytes; a split one is counted late
        else:
            time.sleep(0.001)
    with acked.get_lock():
        acked.value += sent
    connection.close()


def _message(number: int, sent: int, mid: int) -> bytes:
    topic = b"devices/bench-%d-%d/telemetry" % (number, sent % 250)
    payload = PAYLOAD % sent
    size = 2 + len(topic) + 2 + len(payload)
    length = bytes([size & 127 | 128, size >> 7]) if size > 127 else bytes([size])
    return b"\x32" + length + len(topic).to_bytes(2, "big") + topic + mid.to_bytes(2, "big") + payload


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_ready(port: int) -> bool:
    with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1) as answer:
        return answer.status == 200
    return False


@contextmanager
def mosquitto(folder: Path, inflight: int, autosave: int) -> Iterator[tuple[int, int]]:
    port = free_port()
    config = folder / "mosquitto.conf"
    lines = [
        f"listener {port} 127.0.0.1", "allow_anonymous true", "persistence true", f"persistence_location {folder}/",
        "autosave_on_changes true", f"autosave_interval {autosave}", "max_queued_messages 10000000",
        f"max_inflight_messages {inflight}", "log_dest none", "set_tcp_nodelay true",
    ]  # fmt: skip
    if os.geteuid() == 0:
        lines.append("user root")
    config.write_text("\n".join([*lines, ""]))
    process = subprocess.Popen(["/usr/sbin/mosquitto", "-c", str(config)])
    try:
        while socket.socket().connect_ex(("127.0.0.1", port)):
            time.sleep(0.01)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait()


@contextmanager
def bridge(broker: int, ingest: int) -> Iterator[int]:
    port = free_port()
    environ = os.environ | {
        "HEADWATER_BROKER": f"127.0.0.1:{broker}",
        "HEADWATER_INGEST_URL": f"http://127.0.0.1:{ingest}",
        "HEADWATER_PORT": str(port),
        "HEADWATER_LOG_LEVEL": "warning",
    }
    process = subprocess.Popen([sys.executable, "-m", "ingest.bridge.process"], env=environ)
    try:
        while not is_ready(port):
            time.sleep(0.05)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(arguments: argparse.Namespace, broker: tuple[int, int], bridge_pid: int, taken: Synchronized[int]) -> None:
    acked = multiprocessing.Value("q", 0)
    before = cpu_s(broker[1]), cpu_s(bridge_pid)
    begin_s = time.monotonic()
    until_s = begin_s + arguments.seconds
    each = arguments.rate / arguments.publishers if arguments.rate else float("inf")
    publishers = [
        multiprocessing.Process(target=publish, args=(number, broker[0], until_s, each, acked))
        for number in range(arguments.publishers)
    ]
    for process in publishers:
        process.start()
    for process in publishers:
        process.join()
    published_s = time.monotonic() - begin_s
    deadline_s = time.monotonic() + 60
    while taken.value < acked.value and time.monotonic() < deadline_s:
        time.sleep(0.005)
    whole_s = time.monotonic() - begin_s
    count = acked.value
    broker_us, bridge_us = (
        1e6 * (cpu_s(pid) - was) / count for pid, was in zip((broker[1], bridge_pid), before, strict=True)
    )
    print(f"published and acknowledged by the broker: {count} in {published_s:.2f} s = {count / published_s:,.0f}/s")
    print(f"taken by the ingest stand-in: {taken.value} in {whole_s:.2f} s = {taken.value / whole_s:,.0f}/s")
    print(f"CPU per message: broker {broker_us:.1f} us, bridge {bridge_us:.1f} us")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--publishers", type=int, default=4)
    parser.add_argument("--rate", type=float, default=0, help="messages/s in all; 0 = as fast as answered")
    parser.add_argument("--inflight", type=int, default=30_000, help="the broker's max_inflight_messages")
    parser.add_argument("--autosave", type=int, default=100, help="changes between two saves of the broker")
    arguments = parser.parse_args()
    machine = f"{os.cpu_count()} cores {platform.machine()}, Python {platform.python_version()}"
    print(f"{time.strftime('%Y-%m-%d')}, {machine}, load generator on the same cores")
    print(f"mosquitto saving each {arguments.autosave} changes; QoS 1, {len(PAYLOAD % 0)}-byte JSON")
    ours, theirs = multiprocessing.Pipe()
    taken = multiprocessing.Value("q", 0)
    ingest = multiprocessing.Process(target=serve_nothing, args=(theirs, taken), daemon=True)
    ingest.start()
    port = ours.recv()
    with (
        tempfile.TemporaryDirectory() as folder,
        mosquitto(Path(folder), arguments.inflight, arguments.autosave) as broker,
        bridge(broker[0], port) as pid,
    ):
        measure(arguments, broker, pid, taken)
    ingest.kill()
    ingest.join()


if __name__ == "__main__":
    main()
