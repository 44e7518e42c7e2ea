"""What a killed broker costs: acknowledged messages that never reach the ingestion service, by state and interval.

    .venv/bin/python bench/broker_kills.py [--kills 5] [--autosave 100 1000] [--rate 3000]

States: `online` (all runs), `ingest away` (the service answers 503, the bridge holds), `bridge away`. The broker is
killed with SIGKILL at a random moment and started again; one publisher, at most 20 publishes un-acknowledged.
"""

from __future__ import annotations

import argparse
import random
import signal
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent.parent)]

from tests.ingest.bridge.support import BridgeProcess, Broker, Ingest, take_all  # noqa: E402
from tests.support.waiting import wait_until  # noqa: E402

WINDOW = 20
STATES = ("online", "ingest away", "bridge away")


class Device(threading.Thread):
    """Publishes numbers at a rate until its connection breaks; `acked` are those the broker acknowledged."""

    def __init__(self, port: int, first: int, rate: float) -> None:
        super().__init__()
        self.sent = self.acked = first
        self._rate = rate
        self._connection = socket.create_connection(("127.0.0.1", port))
        self._connection.sendall(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01p")
        self._connection.recv(4)

    def run(self) -> None:
        topic, first, began_s = b"devices/d/telemetry", self.sent, time.monotonic()
        try:
            while True:
                due = first + int(self._rate * (time.monotonic() - began_s))
                while self.sent < min(due, self.acked + WINDOW):
                    payload = b'{"n":%018d}' % self.sent
                    body = len(topic).to_bytes(2, "big") + topic + (self.sent % 60_000 + 1).to_bytes(2, "big") + payload
                    self._connection.sendall(b"\x32" + bytes([len(body)]) + body)
                    self.sent += 1
                if self.sent == self.acked:
                    time.sleep(0.0005)
                elif not (answer := self._connection.recv(4096)):
                    return
                else:
                    self.acked += len(answer) // 4  # in order, and never split on this machine
        except OSError:
            return


def settle(ingest: Ingest, quiet_s: float) -> set[bytes]:
    """Wait until nothing more comes; give what came."""
    before = -1
    while len(ingest.taken) != before:
        before = len(ingest.taken)
        time.sleep(quiet_s)
    return {each.payload for each in ingest.taken}


def kill_once(state: str, broker: Broker, ingest: Ingest, bridge: BridgeProcess, rate: float) -> tuple[int, int]:
    bridge.wait_ready()
    first = time.monotonic_ns() // 1_000_000 * 1000  # a number comes once
    ingest.taken.clear()
    if state == "bridge away":
        bridge.stop(signal.SIGKILL)
    elif state == "ingest away":
        ingest.behave = lambda _batch: (503, b"")
    device = Device(broker.port, first, rate)
    device.start()
    time.sleep(random.uniform(0.5, 1.5))
    broker.stop(signal.SIGKILL)
    device.join()
    count = bridge.events().count("subscribed")
    broker.start()
    ingest.behave = take_all
    if state == "bridge away":
        bridge.start()
    wait_until(lambda: bridge.events().count("subscribed") > count, 20, "subscribed again")
    taken = settle(ingest, 6.0 if state == "ingest away" else 1.0)  # the bridge pauses up to 5 s between tries
    return device.acked - first, sum(b'{"n":%018d}' % n not in taken for n in range(first, device.acked))


def kill_often(state: str, changes: int, kills: int, rate: float) -> list[tuple[int, int]]:
    """Kill one broker again and again; give acknowledged and lost of each kill."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Broker(Path(folder) / "b", autosave_interval=changes, max_inflight_messages=20_000) as broker,
    ):
        ingest = Ingest()
        bridge = BridgeProcess(broker, ingest).start()
        try:
            return [kill_once(state, broker, ingest, bridge, rate) for _ in range(kills)]
        finally:
            bridge.stop()
            ingest.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--rate", type=float, default=3000)
    parser.add_argument("--autosave", type=int, nargs="*", default=[100])
    given = parser.parse_args()
    for changes in given.autosave:
        for state in STATES:
            runs = kill_often(state, changes, given.kills, given.rate)
            lost = [each for _, each in runs]
            total = sum(acked for acked, _ in runs)
            print(f"saved each {changes} changes, {state}: {total:,} acknowledged, lost a kill {lost}", flush=True)


if __name__ == "__main__":
    main()
