"""How soon a disabled device is cut off, and a revoked reader of the feed: milliseconds after the registry's answer.

    .venv/bin/python bench/cutoff.py [--rounds 30]

A whole installation with default settings. In each round a device holds a connection over MQTT and a long poll over
HTTP, posts 20 readings a second, and a reader follows it in the feed. It is disabled: when is its connection cut, its
poll sent away, its first post refused, and its last reading shown? Then the reader's token is revoked: when does its
websocket end?
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]

import footprint  # noqa: E402
import paho.mqtt.client as mqtt  # noqa: E402
import results  # noqa: E402
import simple_websocket  # noqa: E402
import urllib3  # noqa: E402
from paho.mqtt.enums import CallbackAPIVersion  # noqa: E402

EVERY_S, PATIENCE_S = 0.05, 15.0
NAMES = {
    "mqtt": "connection over MQTT cut", "poll": "long poll sent away", "http": "telemetry over HTTP refused",
    "shown": "last reading shown in the feed", "feed": "feed of a revoked token closed",
}  # fmt: skip


class Door:
    """Calls the gateway with a token."""

    def __init__(self, url: str, token: str) -> None:
        self._url, self._headers = url, {"Authorization": f"Bearer {token}"}
        self._pool = urllib3.PoolManager(maxsize=2, retries=False, timeout=60)

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        sent = {} if body is None else {"json": body}
        answer = self._pool.request(method, self._url + path, headers=self._headers, **sent)
        return answer.status, json.loads(answer.data) if answer.data else None

    def refused_at(self, method: str, path: str, body: Any = None) -> float:
        """Ask until it is refused; give when."""
        while self.ask(method, path, body)[0] not in (401, 403):
            time.sleep(EVERY_S)
        return time.monotonic()


class Reader:
    """A reader of the feed, with a token of its own."""

    def __init__(self, url: str, token: str, device: str) -> None:
        self.shown_s = self.ended_s = 0.0
        headers = {"Authorization": f"Bearer {token}"}
        self._socket = simple_websocket.Client(url.replace("http", "ws", 1) + "/v1/feed", headers=headers)
        self._socket.send(json.dumps({"subscribe": {"devices": [device]}}))
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with suppress(simple_websocket.ConnectionClosed):
            while True:
                if json.loads(self._socket.receive())["points"]:
                    self.shown_s = time.monotonic()
        self.ended_s = time.monotonic()


class Task(threading.Thread):
    """Does something aside; `result` is there after `join`."""

    def __init__(self, call: Callable[[], float]) -> None:
        super().__init__(daemon=True)
        self._call, self.result = call, 0.0
        self.start()

    def run(self) -> None:
        self.result = self._call()


def one_round(operator: Door, url: str, mqtt_port: int, number: int) -> dict[str, float]:
    """Cut one device and one reader off; give ms by what ended."""
    device = f"cut-{number}"
    made = operator.ask("POST", "/v1/devices", {"id": device})[1]["credential"]
    token = operator.ask("POST", "/v1/tokens", {"name": device, "role": "viewer"})[1]["token"]
    gone: list[float] = []
    client = mqtt.Client(CallbackAPIVersion.VERSION2, device)
    client.username_pw_set(device, made["secret"])
    client.reconnect_delay_set(1, 1)
    client.on_disconnect = lambda *_: gone.append(time.monotonic())
    client.connect_async("127.0.0.1", mqtt_port)
    client.loop_start()
    reader = Reader(url, token, device)
    doors = [Door(url, made["bearer"]) for _ in range(2)]
    tasks = {
        "http": Task(lambda: doors[0].refused_at("POST", "/v1/telemetry", {"value": 1.5})),
        "poll": Task(lambda: doors[1].refused_at("GET", "/v1/device/commands?wait=50")),
    }
    until(lambda: client.is_connected() and reader.shown_s)
    gone.clear()
    operator.ask("POST", f"/v1/devices/{device}:disable")
    began_s = time.monotonic()
    until(lambda: gone and not any(task.is_alive() for task in tasks.values()))
    client.loop_stop()
    time.sleep(1.0)  # whatever may still be shown
    operator.ask("DELETE", f"/v1/tokens/{device}")
    revoked_s = time.monotonic()
    until(lambda: reader.ended_s)
    ends = {name: task.result for name, task in tasks.items()} | {"mqtt": gone[0], "shown": reader.shown_s}
    found = {name: 1e3 * (at_s - began_s) for name, at_s in ends.items()}
    return found | {"feed": 1e3 * (reader.ended_s - revoked_s)}


def until(is_there: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not is_there():
        if time.monotonic() > deadline_s:
            raise SystemExit("it takes too long")
        time.sleep(0.002)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    given = parser.parse_args()
    before = results.conditions()
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as name:
        data = Path(name) / "data"
        process, _ = footprint.start(data, 0)
        try:
            state = json.loads((data / "run/state.json").read_text())
            url, mqtt_port = state["near_url"], int(state["mqtt"].rpartition(":")[2])
            operator = Door(url, (data / "secrets/operator.token").read_text().strip())
            rounds = [one_round(operator, url, mqtt_port, number) for number in range(given.rounds)]
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
    figures, lines = {}, []
    for name, what in NAMES.items():
        times = sorted(each[name] for each in rounds)
        p50, p99 = (max(0, round(times[min(len(times) - 1, int(len(times) * share))])) for share in (0.5, 0.99))
        figures[name] = {"p50_ms": p50, "p99_ms": p99}
        print(f"{what:36} p50 {p50:6} ms  p99 {p99:6} ms")
        lines.append(
            results.Line(f"disabled or revoked: {what}, p99 of {given.rounds}", p99, "ms", 2_000, is_most=True)
        )
    results.save("cutoff", before, figures, lines)


if __name__ == "__main__":
    main()
