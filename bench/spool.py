"""Rates of the spool: appends a second for 1, 20 and 500 readings each, with 1 and 16 threads. Prints its conditions.

.venv/bin/python bench/spool.py [--seconds 2] [--folder DIR]
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import threading
import time
from pathlib import Path

from ingest.readings import Reading
from ingest.spool import frames, segments
from ingest.spool.batcher import GroupCommit
from ingest.spool.reader import SpoolReader


def readings(count: int) -> list[Reading]:
    fields = {"temperature": 21.53, "humidity": 40.25, "pressure": 1013.2, "count": 17, "door": False}
    return [
        Reading(f"device-{n:04d}", "telemetry", 1_767_323_045_678_000_000 + n, 1_767_323_045_678_000_000, fields)
        for n in range(count)
    ]


class Unsynced(segments.DiskFiles):
    """A disk that is never waited for: what the spool would be worth without its promise."""

    def sync(self, descriptor: int) -> None:
        pass


def measure(folder: Path, size: int, threads: int, seconds: float) -> None:
    rate, p50, p99 = appends(folder / f"s{size}-{threads}", size, threads, seconds, None)
    unsynced, _, _ = appends(folder / f"u{size}-{threads}", size, threads, seconds, Unsynced())
    print(f"| {size} | {threads} | {rate:,.0f} | {rate * size:,.0f} | {p50:.2f} | {p99:.2f} | {rate / unsynced:.0%} |")


def appends(
    folder: Path, size: int, threads: int, seconds: float, files: segments.Files | None
) -> tuple[float, float, float]:
    """Give appends a second, and the median and 99 % of their time in ms."""
    group = GroupCommit(segments.open_spool(folder, limit_bytes=1 << 34, floor_bytes=0, files=files))
    batch, until_s = readings(size), time.monotonic() + seconds
    took_ms: list[list[float]] = [[] for _ in range(threads)]

    def run(mine: list[float]) -> None:
        while time.monotonic() < until_s:
            begun_s = time.perf_counter()
            group.append(batch)
            mine.append((time.perf_counter() - begun_s) * 1e3)

    workers = [threading.Thread(target=run, args=(mine,)) for mine in took_ms]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    done = sorted(ms for mine in took_ms for ms in mine)
    group.close()
    return len(done) / seconds, done[len(done) // 2], done[int(len(done) * 0.99)]


def measure_codec(seconds: float) -> None:
    batch = readings(500)
    bodies = list(frames.encode(batch))
    for name, action in (
        ("encode", lambda: list(frames.encode(batch))),
        ("decode", lambda: [frames.decode(body.content) for body in bodies]),
    ):
        turns, begun_s = 0, time.perf_counter()
        while time.perf_counter() - begun_s < seconds / 4:
            action()
            turns += 1
        print(f"{name}: {(time.perf_counter() - begun_s) / turns / 500 * 1e6:.2f} us a reading")


def measure_reading(folder: Path) -> None:
    reader, count, begun_s = SpoolReader(folder, {}), 0, time.perf_counter()
    while found := reader.take(5_000).readings:
        count += len(found)
    print(f"reading it all back: {count / (time.perf_counter() - begun_s):,.0f} readings/s")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--folder", type=Path, help="on the disk to measure; default: the temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        print(f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, Python {platform.python_version()}, "
              f"load {os.getloadavg()[0]:.1f}, readings of 5 fields, fdatasync before every return\n")  # fmt: skip
        print("| readings an append | threads | appends/s | readings/s | p50 ms | p99 ms | of the rate without fsync |")
        print("|---|---|---|---|---|---|---|")
        for size in (1, 20, 500):
            for threads in (1, 16):
                measure(Path(name), size, threads, options.seconds)
        print()
        measure_codec(options.seconds)
        measure_reading(Path(name))


if __name__ == "__main__":
    main()
