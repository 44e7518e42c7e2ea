"""What the broker costs alone: QoS 1 in and out, 200 devices of one write a message, one subscriber that only answers.

    .venv/bin/python bench/broker.py [--rate 20000] [--seconds 4]

Each line is the same load under other settings. What the subscriber holds is written at each save; in an installation
the bridge holds a message for as long as it takes to become durable. The last line tells where the one thread of
mosquitto ends: a second core does not help it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]

import load  # noqa: E402
import results  # noqa: E402
from bridge import cpu_s, free_port  # noqa: E402

DEVICES = 200
WINDOW = 20_000  # as compose/broker.conf and the bridge have it
BARE = ("allow_anonymous true", "log_dest none", "max_queued_messages 10000000", f"max_inflight_messages {WINDOW}")
SAVING = "persistence true", "autosave_on_changes true", "set_tcp_nodelay true", "acl_file {folder}/acl"
FLOOR, SAVED = "no persistence", "the same, saving each 1,000 changes"
SETUPS: dict[str, tuple[tuple[str, ...], float]] = {  # settings, and how long the subscriber holds a message
    FLOOR: (("persistence false",), 0.0),
    "saving each 100 changes, access list": ((*SAVING, "autosave_interval 100"), 0.0),
    "the same, each message held for 60 ms": ((*SAVING, "autosave_interval 100"), 0.06),
    "the same, saving each 400 changes": ((*SAVING, "autosave_interval 400"), 0.06),
    SAVED: ((*SAVING, "autosave_interval 1000"), 0.06),
}


@contextmanager
def mosquitto(settings: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        (folder / "acl").write_text(
            "user _sub\ntopic read devices/#\npattern write devices/%u/#\npattern read devices/%u/#\n"
        )
        lines = [f"listener {port} 127.0.0.1", f"persistence_location {folder}/", *BARE]
        lines += [line.format(folder=folder) for line in settings] + ["user root"] * (os.geteuid() == 0)
        (folder / "mosquitto.conf").write_text("\n".join([*lines, ""]))
        process = subprocess.Popen(
            ["/usr/sbin/mosquitto", "-c", str(folder / "mosquitto.conf")], stderr=subprocess.DEVNULL
        )
        try:
            while socket.socket().connect_ex(("127.0.0.1", port)):
                time.sleep(0.01)
            yield port, process.pid
        finally:
            process.terminate()
            process.wait()


def subscribe(port: int, ready: Event, held_s: float) -> None:
    """Take what comes with QoS 1, read each 8 ms as the bridge does, and answer what was read after `held_s`."""
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(b"\x10\x16\x00\x04MQTT\x04\x80\x00\x00" + b"\x00\x04_sub" + b"\x00\x04_sub")
    assert connection.recv(4) == b"\x20\x02\x00\x00"
    topic = b"devices/+/telemetry"
    connection.sendall(
        b"\x82" + bytes([5 + len(topic)]) + b"\x00\x01" + len(topic).to_bytes(2, "big") + topic + b"\x01"
    )
    assert connection.recv(5) == b"\x90\x03\x00\x01\x01"
    ready.set()
    rest = b""
    due: deque[tuple[float, bytes]] = deque()
    while chunk := connection.recv(1 << 20):
        answers, rest = answer(rest + chunk)
        due.append((time.monotonic() + held_s, answers))
        while due and due[0][0] <= time.monotonic():
            connection.sendall(due.popleft()[1])
        time.sleep(0.008)


def answer(content: bytes) -> tuple[bytes, bytes]:
    """Give the PUBACKs of the whole packets, and what is left of the content."""
    at, parts = 0, []
    while len(content) - at > 3:
        size, start = content[at + 1], at + 2
        if size > 127:
            size, start = size & 127 | content[at + 2] << 7, at + 3
        if start + size > len(content):
            break
        topic_end = start + 2 + int.from_bytes(content[start : start + 2], "big")
        parts.append(b"\x40\x02" + content[topic_end : topic_end + 2])
        at = start + size
    return b"".join(parts), content[at:]


def measure(setup: tuple[tuple[str, ...], float], rate: float, seconds: float) -> dict[str, float]:
    settings, held_s = setup
    with mosquitto(settings) as (port, pid):
        ready = multiprocessing.Event()
        reader = multiprocessing.Process(target=subscribe, args=(port, ready, held_s), daemon=True)
        reader.start()
        ready.wait(10)
        logins = [load.Login(f"bench-{number}", "") for number in range(DEVICES)]
        before = cpu_s(pid)
        result = load.run_apart(load.publish, ("127.0.0.1", port), logins, rate, seconds, "b")
        spent = cpu_s(pid) - before
        reader.kill()
        reader.join()
    return {
        "offered": rate, "reached": round(result.acked / result.seconds),
        "broker_us": round(1e6 * spent / result.sent, 1),
        "ack_p50_ms": round(result.percentile(0.5), 1), "ack_p99_ms": round(result.percentile(0.99), 1),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=20_000)
    parser.add_argument("--seconds", type=float, default=4)
    options = parser.parse_args()
    before, found = results.conditions(), {}
    for name, setup in SETUPS.items():
        found[name] = measure(setup, options.rate, options.seconds)
        print(f"{name}: {found[name]}", flush=True)
    found["as fast as it goes"] = measure(setup, 100_000, options.seconds)
    print(f"as fast as it goes: {found['as fast as it goes']}")
    most = found["as fast as it goes"]
    lines = [
        results.Line("broker alone, QoS 1 in and out, without persistence", found[FLOOR]["broker_us"], "us a message"),
        results.Line("the same, saving each 1,000 changes", found[SAVED]["broker_us"], "us a message"),
        results.Line("the same, offered 100,000/s", most["reached"], "/s"),
    ]
    results.save("broker", before, found, lines)


if __name__ == "__main__":
    main()
