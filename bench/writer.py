"""Rate at which the writer drains a full spool into the embedded store, and its delay when it keeps up.

.venv/bin/python bench/writer.py [--readings 300000] [--devices 1000] [--kind time|seq|mqtt] [--profile]
"""

from __future__ import annotations

import argparse
import cProfile
import os
import platform
import pstats
import tempfile
import threading
import time
from pathlib import Path

import series
from ingest.quarantine import Quarantine
from ingest.readings import Reading
from ingest.spool import frames, segments
from ingest.spool.batcher import GroupCommit
from ingest.spool.reader import SpoolReader
from ingest.writer.acks import AckBoard
from ingest.writer.drain import Drain
from ingest.writer.feed import FeedBuffer, News, to_messages
from ingest.writer.pace import Pace
from ingest.writer.state import BootReader, WriterState
from wire import clock
from wire.points import SERVER_TIME

NAMES = ("temperature", "humidity", "pressure", "voltage", "flow")


def make_reading(number: int, devices: int, kind: str, begin_ns: int) -> Reading:
    device, turn = number % devices, number // devices
    time_ns = begin_ns + turn * clock.NS_PER_S + device * 1_000
    fields = {name: round(20 + (number * 7 + index) % 1000 / 37, 2) for index, name in enumerate(NAMES)}
    members = {
        "time": {},
        "seq": {"boot_id": "b1", "seq": turn},
        "mqtt": {"flags": SERVER_TIME, "delivery": number % 65_535 + 1, "content": hash((number, "x"))},
    }[kind]
    return Reading(f"device-{device:05d}", "telemetry", time_ns, clock.now_ns(), fields, **members)


class Bench:
    def __init__(self, data: Path) -> None:
        self.data = data
        self.state = WriterState(data)
        self.store = series.open_writer("embedded:", data)
        self.quarantine = Quarantine(data / "quarantine.db", limit_bytes=1 << 30)
        self.feed = FeedBuffer()
        reader = SpoolReader(data / "spool", self.state.positions())
        self.acks = AckBoard(BootReader(data).read)
        self.drain = Drain(reader, self.state, self.store, self.quarantine, News(self.feed, self.acks))

    def run_dry(self) -> tuple[int, float]:
        count, begun_s = 0, time.perf_counter()
        while moved := self.drain.step():
            count += moved
            for _ in to_messages(self.feed.take(time.monotonic())):
                pass
            for _ in self.acks.take(time.monotonic()):
                pass
        return count, time.perf_counter() - begun_s

    def close(self) -> None:
        self.store.close()
        self.state.close()
        self.quarantine.close()


def fill(log: segments.Spool, options: argparse.Namespace) -> None:
    begin_ns = clock.now_ns() - options.readings // options.devices * clock.NS_PER_S
    for start in range(0, options.readings, 500):
        numbers = range(start, min(start + 500, options.readings))
        log.commit(list(frames.encode([make_reading(n, options.devices, options.kind, begin_ns) for n in numbers])))


def measure_delay(bench: Bench, log: segments.Spool, options: argparse.Namespace) -> None:
    """5,000 readings/s in batches of 50 each 10 ms: from the append's return to a committed step."""
    group, delays, stopping = GroupCommit(log), [], threading.Event()

    def feed() -> None:
        for turn in range(500):
            begin_ns = clock.now_ns()
            numbers = range(turn * 50, turn * 50 + 50)
            group.append([make_reading(n, options.devices, options.kind, begin_ns) for n in numbers])
            time.sleep(max(0.0, 0.01 - (clock.now_ns() - begin_ns) / 1e9))
        stopping.set()

    thread, pace = threading.Thread(target=feed), Pace()
    cpu_s = time.process_time()
    thread.start()
    while not stopping.is_set():
        oldest_ns = bench.drain._reader.oldest_received_ns()  # noqa: SLF001 - outside the product
        begun_s = time.monotonic()
        count = bench.drain.step()
        if count and oldest_ns:
            delays.append((clock.now_ns() - oldest_ns) / 1e6)
        stopping.wait(pace.rest_s(count, begun_s, time.monotonic()))
    thread.join()
    delays.sort()
    cpu = (time.process_time() - cpu_s) / 5
    p50, p99 = delays[len(delays) // 2], delays[int(len(delays) * 0.99)]
    print(f"at 5,000/s: accepted -> queryable p50 {p50:.0f} ms, p99 {p99:.0f} ms,"
          f" {cpu:.0%} of a core with the feeding thread")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--readings", type=int, default=300_000)
    parser.add_argument("--devices", type=int, default=1_000)
    parser.add_argument("--kind", choices=("time", "seq", "mqtt"), default="time")
    parser.add_argument("--folder", type=Path, help="on the disk to measure; default: the temporary folder")
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        data = Path(name)
        log = segments.open_spool(data / "spool" / "json", limit_bytes=1 << 34, floor_bytes=0)
        fill(log, options)
        bench = Bench(data)
        profile = cProfile.Profile()
        if options.profile:
            profile.enable()
        cpu_s = time.process_time()
        count, took_s = bench.run_dry()
        cpu_s = time.process_time() - cpu_s
        profile.disable()
        print(f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, Python {platform.python_version()}, load"
              f" {os.getloadavg()[0]:.1f}, {options.devices} devices, told apart by {options.kind}")  # fmt: skip
        print(f"drained {count:,} readings in {took_s:.2f} s: {count / took_s:,.0f} readings/s,"
              f" {cpu_s / count * 1e6:.1f} us of CPU each")  # fmt: skip
        if options.profile:
            pstats.Stats(profile).sort_stats("tottime").print_stats(25)
        else:
            measure_delay(bench, log, options)
        bench.close()


if __name__ == "__main__":
    main()
