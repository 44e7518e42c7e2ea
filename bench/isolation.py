"""What one protocol's trouble costs another: JSON's latency while line protocol is flooded, and while its service dies.

    .venv/bin/python bench/isolation.py [--seconds 15] [--rate 500]

A whole installation. JSON over HTTP: a post until its answer. JSON over MQTT: a message that cannot be read until the
device is told so, which is the way through broker, bridge, service and disk. The flood comes over MQTT, with a post for
every tenth message. For the last part every process of the line service is killed (kill -9) each second.
"""

from __future__ import annotations

import argparse
import os
import queue
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from paho.mqtt import client as paho

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]

import results  # noqa: E402

from tests.e2e.platform import Device, Installation  # noqa: E402
from tests.support.waiting import wait_until  # noqa: E402

SERVICE = "ingest-line"
POST_EVERY_S, POISON_EVERY_S, KILL_EVERY_S = 0.05, 0.15, 1.0  # a device is told of 10 faults a second at most
PATIENCE_S = 20.0


def connect(installation: Installation, device: Device) -> paho.Client:
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=device.id, clean_session=False)
    client.username_pw_set(device.id, device.secret)
    client.max_inflight_messages_set(1_000)
    client.connect("127.0.0.1", installation.mqtt)
    client.loop_start()
    return client


class Probe:
    """Speaks JSON at a steady pace and keeps how long each takes, in ms."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self.posted = 0
        self._device = installation.add_device("probe")
        installation.wait_for_broker(self._device)
        self._told: queue.SimpleQueue[float] = queue.SimpleQueue()
        self._client = connect(installation, self._device)
        self._client.on_message = lambda *_: self._told.put(time.monotonic())
        self._client.subscribe("devices/probe/errors")
        self.poison()  # of the first message the service knows nothing yet

    def post(self) -> float:
        begun_s = time.monotonic()
        answer = self._installation.post(self._device, b'{"temp":21.5}')
        assert answer.status == 202, answer
        self.posted += 1
        return (time.monotonic() - begun_s) * 1e3

    def poison(self) -> float:
        begun_s = time.monotonic()
        self._client.publish("devices/probe/telemetry", b'{"temp":', qos=1)
        return (self._told.get(timeout=60.0) - begun_s) * 1e3

    def measure(self, seconds: float) -> dict[str, list[float]]:
        """Do both for so long."""
        seen: dict[str, list[float]] = {"HTTP": [], "MQTT": []}

        def repeat(name: str, action: Callable[[], float], every_s: float) -> None:
            due_s = time.monotonic()
            end_s = due_s + seconds
            while due_s < end_s:
                time.sleep(max(0.0, due_s - time.monotonic()))
                seen[name].append(action())
                due_s += every_s

        threads = [threading.Thread(target=repeat, args=("HTTP", self.post, POST_EVERY_S)),
                   threading.Thread(target=repeat, args=("MQTT", self.poison, POISON_EVERY_S))]  # fmt: skip
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return seen


class Flood:
    """Sends lines, at a rate and whatever becomes of them."""

    def __init__(self, installation: Installation, rate: float) -> None:
        self._installation, self._rate = installation, rate
        self._device = installation.add_device("flood")
        installation.wait_for_broker(self._device)
        self._client = connect(installation, self._device)
        self.sent = self.posted = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        stopping = threading.Event()
        threads = [threading.Thread(target=self._publish, args=(stopping,)),
                   threading.Thread(target=self._post, args=(stopping,))]  # fmt: skip
        for thread in threads:
            thread.start()
        yield
        stopping.set()
        for thread in threads:
            thread.join()

    def _publish(self, stopping: threading.Event) -> None:
        due_s = time.monotonic()
        while not stopping.is_set():
            self.sent += 1
            self._client.publish("devices/flood/telemetry/line", b"cpu load=%d" % self.sent, qos=1)
            due_s += 1 / self._rate
            time.sleep(max(0.0, due_s - time.monotonic()))

    def _post(self, stopping: threading.Event) -> None:
        while not stopping.wait(10 / self._rate):
            answer = self._installation.post(self._device, b"cpu load=1", "/api/v2/write")
            self.posted += answer.status == 204


def processes(installation: Installation) -> list[int]:
    """Give the pids of the service and of its workers."""
    [master] = [each["pid"] for each in installation.status()["processes"] if each["name"] == SERVICE]
    if not master:
        return []
    try:
        workers = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    except FileNotFoundError:
        return []
    return [int(pid) for pid in workers] + [master]


@contextmanager
def dying(installation: Installation, killed: list[int]) -> Iterator[None]:
    """Kill the service again and again; `killed` gets the pids."""
    stopping = threading.Event()

    def kill() -> None:
        while not stopping.wait(KILL_EVERY_S):
            for pid in processes(installation):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
                killed.append(pid)

    thread = threading.Thread(target=kill)
    thread.start()
    yield
    stopping.set()
    thread.join()


def summary(seen: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    cuts = {name: statistics.quantiles(times, n=100) for name, times in seen.items()}
    return {name: {"p50": round(cut[49], 1), "p99": round(cut[98], 1), "most": round(max(seen[name]), 1)}
            for name, cut in cuts.items()}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each part")
    parser.add_argument("--rate", type=float, default=500.0, help="of the flood, messages a second")
    options = parser.parse_args()
    before, killed = results.conditions(), list[int]()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        installation = Installation(Path(folder) / "data").start()
        probe, flood = Probe(installation), Flood(installation, options.rate)
        parts = {"alone": summary(probe.measure(options.seconds))}
        with flood.running():
            parts["flooded"] = summary(probe.measure(options.seconds))
            with dying(installation, killed):
                parts["dying"] = summary(probe.measure(options.seconds))
        wanted = flood.sent + flood.posted + probe.posted
        wait_until(lambda: kept(installation) >= wanted, PATIENCE_S, what=f"{wanted} readings, of which none is lost")
        installation.stop()
    figures = {"parts": parts, "sent": flood.sent, "posted": flood.posted, "killed": len(killed), "rate": options.rate}
    flooded = f"{options.rate:g}/s of line protocol"
    names = {"alone": "nothing else", "flooded": flooded, "dying": f"{flooded} whose service dies each second"}
    lines = []
    for part, found in parts.items():
        for name, cut in found.items():
            print(f"{names[part]:60} JSON over {name}: p50 {cut['p50']} ms, p99 {cut['p99']} ms, most {cut['most']} ms")
            lines.append(results.Line(f"JSON over {name} beside {names[part]}: p50", cut["p50"], "ms"))
            lines.append(results.Line("the same, p99", cut["p99"], "ms"))
    print(f"{flood.sent} lines over MQTT and {flood.posted} posts, all kept; {len(killed)} processes killed")
    results.save("isolation", before, figures, lines)


def kept(installation: Installation) -> int:
    """Give how many readings there are, each once."""
    ledger = installation.get("/v1/ledger")
    return int(ledger["stored"] + ledger["pending"])


if __name__ == "__main__":
    main()
