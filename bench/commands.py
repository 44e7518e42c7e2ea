"""One command to very many devices at once: how soon the job is done, and how soon all have answered over MQTT.

    .venv/bin/python bench/commands.py [--devices 10000] [--workers 2]

A registry of its own and a mosquitto of its own. One client stands for all devices: it says `online` for each, hears
all commands and answers them at once, so the figures hold the whole way but no connections. Time counts from the
request; `memory_mb` is what the registry's processes hold at most (PSS), `idle_mb` what they held before.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]

import footprint  # noqa: E402
import load  # noqa: E402
import paho.mqtt.client as mqtt  # noqa: E402
import results  # noqa: E402
from paho.mqtt.enums import CallbackAPIVersion  # noqa: E402
from registry import PART, TOKEN, new_device  # noqa: E402

from devices.database.engine import Database  # noqa: E402
from devices.database.schema import migrate  # noqa: E402
from devices.rows import Who  # noqa: E402
from devices.store import DeviceStore  # noqa: E402

PATIENCE_S, LOOK_S = 240.0, 0.1
OPEN = ("queued", "sent", "delivered")


class Fleet:
    """A client that stands for all devices."""

    def __init__(self, port: int) -> None:
        self.heard: list[str] = []
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, "fleet")
        self.client.max_inflight_messages_set(1_000)
        self.client.on_message = self._answer
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        self.client.subscribe("devices/+/commands/+", 1)

    def come(self, devices: int) -> None:
        """Say that all are there."""
        for number in range(devices):
            self.client.publish(f"devices/dev-{number:06}/status", "online", 1)

    def _answer(self, client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        self.heard.append(message.topic)
        client.publish(message.topic + "/reply", b'{"result":1}', 1)


@contextmanager
def broker(folder: Path) -> Iterator[int]:
    """Run a mosquitto that lets everybody in; give its port."""
    port, config = footprint.free_port(), folder / "mosquitto.conf"
    lines = [f"listener {port} 127.0.0.1", "allow_anonymous true", "max_queued_messages 0", "max_inflight_messages 0"]
    config.write_text("\n".join(lines + ["user root"] * (os.geteuid() == 0)) + "\n")
    process = subprocess.Popen(["/usr/sbin/mosquitto", "-c", str(config)], stderr=subprocess.DEVNULL)
    try:
        yield port
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def registry(folder: Path, mqtt_port: int, workers: int) -> Iterator[tuple[load.Caller, int]]:
    """Run the devices service; give a client and the session of its processes."""
    port = footprint.free_port()
    own = {"DATA": folder, "PORT": port, "WORKERS": workers, "OPERATOR_TOKEN": TOKEN, "SERVICE_TOKEN": "s",
           "BROKER": f"127.0.0.1:{mqtt_port}", "BROKER_PASSWORD": "x", "CONTROL_PASSWORD": "x",
           "LOG_LEVEL": "warning"}  # fmt: skip
    environ = os.environ | {f"HEADWATER_{name}": str(value) for name, value in own.items()}
    argv = [sys.executable, "-P", "-m", "compose", "serve", "devices"]
    process = subprocess.Popen(argv, env=environ, start_new_session=True)
    try:
        footprint.wait_for(f"http://127.0.0.1:{port}/readyz")
        yield load.Caller(("127.0.0.1", port), TOKEN), process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


class Watch:
    """Asks until something is there, and notes meanwhile what the processes hold."""

    def __init__(self, session: int) -> None:
        self._session = session
        self.began_s, self.most_mb = time.monotonic(), 0.0

    def until(self, is_there: Callable[[], bool]) -> float:
        """Give the seconds since the watch was made."""
        while not is_there():
            self.most_mb = max(self.most_mb, self.memory_mb())
            if time.monotonic() - self.began_s > PATIENCE_S:
                raise SystemExit("it takes too long")
            time.sleep(LOOK_S)
        return time.monotonic() - self.began_s

    def memory_mb(self) -> float:
        return sum(map(footprint.pss_mb, footprint.sessions()[self._session]))


def measure(client: load.Caller, fleet: Fleet, devices: int, session: int) -> dict[str, float]:
    """Send one command to all; give seconds and MB."""
    ask = lambda path: json.loads(client.ask("GET", path))  # noqa: E731 - said once
    fleet.come(devices)
    Watch(session).until(lambda: ask("/v1/devices:count?q=online&exact=true")["count"] == devices)
    action = {"do": "command", "command": {"name": "blink", "deadline_s": 600}}
    watch = Watch(session)
    idle_mb = watch.memory_mb()
    job = json.loads(client.ask("POST", "/v1/devices:bulk", {"query": "id~dev-*", "action": action}))["id"]
    accepted_s = time.monotonic() - watch.began_s
    queued_s = watch.until(lambda: ask(f"/v1/jobs/{job}")["state"] == "done")
    heard_s = watch.until(lambda: len(set(fleet.heard)) >= devices)
    ended_s = watch.until(lambda: not any(ask(f"/v1/commands?job={job}&state={s}&limit=1")["items"] for s in OPEN))
    return {
        "accepted_s": accepted_s, "queued_s": queued_s, "heard_s": heard_s, "ended_s": ended_s,
        "heard": len(fleet.heard), "idle_mb": idle_mb, "most_mb": watch.most_mb,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    before = results.conditions()
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as name, broker(Path(name)) as mqtt_port:
        folder = Path(name)
        database = Database("sqlite:", folder)
        migrate(database, folder)
        for start in range(0, given.devices, PART):
            numbers = range(start, min(given.devices, start + PART))
            DeviceStore(database).add([new_device(number) for number in numbers], Who("bench"), "device.import")
        database.close()
        with registry(folder, mqtt_port, given.workers) as (client, session):
            fleet = Fleet(mqtt_port)
            found = {key: round(value, 2) for key, value in measure(client, fleet, given.devices, session).items()}
            fleet.client.disconnect()
            fleet.client.loop_stop()
    print(json.dumps(found, indent=2))
    what = f"one command to {given.devices:,} devices, {given.workers} workers, SQLite"
    lines = [
        results.Line(f"{what}: all queued after", found["queued_s"], "s"),
        results.Line(f"{what}: all have it over MQTT after", found["heard_s"], "s"),
        results.Line(f"{what}: all answers kept after", found["ended_s"], "s"),
        results.Line(f"{what}: memory of the registry at most", found["most_mb"], "MB"),
    ]
    results.save("commands", before, found, lines)


if __name__ == "__main__":
    main()
