"""How fast the embedded store takes batches: points of five fields, 1,000 devices, every write durable.

python bench/store_write.py [--rows 500000] [--folder DIR]
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from series import open_writer
from wire.points import Point

S = 10**9
BASE = 20_000 * 86_400 * S
DEVICES = 1_000


def batches(rows: int, size: int, interval_s: float) -> Iterator[list[Point]]:
    """Points as they arrive: every device, then the next turn."""
    points: list[Point] = []
    for at in range(rows):
        turn, device = divmod(at, DEVICES)
        time_ns = BASE + int(turn * interval_s * S) + device * 1_000_000
        fields = {"temp": 20 + turn * 0.01, "hum": device * 0.013, "co2": turn / 3, "batt": 3.3, "rssi": -device / 11}
        points.append(Point(f"dev-{device:04}", "telemetry", time_ns, fields))
        if len(points) == size:
            yield points
            points = []


def measure(folder: Path, rows: int, size: int, interval_s: float) -> None:
    writer = open_writer("embedded:", folder)
    took = []
    cpu = 0.0
    for points in batches(rows, size, interval_s):
        started, spent = time.perf_counter(), time.process_time()
        outcome = writer.write(points)
        took.append(time.perf_counter() - started)
        cpu += time.process_time() - spent
        assert outcome.accepted == size, outcome
    pss = pss_mb()
    writer.close()
    disk = sum(file.stat().st_size for file in (folder / "series").iterdir()) / rows
    p99 = statistics.quantiles(took, n=100)[98] * 1e3
    rate, each = rows / sum(took), cpu / rows * 1e6
    slowest = max(took) * 1e3
    speed = f"{rate:>10,.0f} {each:>7.1f} {p99:>7.1f} {slowest:>7.1f}"
    print(f"{interval_s:>6} s {size:>7} {speed} {disk:>6.0f} {pss:>7.1f}", flush=True)


def pss_mb() -> float:
    """Proportional set size of this process, generator included."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--folder", type=Path, default=None)
    args = parser.parse_args()
    print("interval   batch     rows/s  CPU us  p99 ms  max ms  B/row  PSS MB   (CPU per row)")
    for interval_s in (10.0, 1.0):
        for size in (1_000, 5_000):
            folder = Path(tempfile.mkdtemp(dir=args.folder))
            try:
                measure(folder, args.rows, size, interval_s)
            finally:
                shutil.rmtree(folder)


if __name__ == "__main__":
    main()
