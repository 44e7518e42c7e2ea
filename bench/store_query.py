"""How fast the embedded store answers: a day of 1,000 devices, five fields each 10 s (8.64 M rows, 0.8 GB).

python bench/store_query.py [--hours 24] [--folder DIR]
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import results

from series import open_reader, open_writer
from series.port import AggregateQuery, RangeQuery, SeriesReader
from wire.points import Point

S = 10**9
BASE = 20_000 * 86_400 * S
DEVICES = 1_000
INTERVAL_S = 10
BATCH = 5_000


def load(folder: Path, hours: float) -> int:
    writer = open_writer("embedded:", folder)
    points: list[Point] = []
    rows = int(hours * 3_600 / INTERVAL_S) * DEVICES
    for at in range(rows):
        turn, device = divmod(at, DEVICES)
        fields = {"temp": 20 + turn * 0.01, "hum": device * 0.013, "co2": turn / 3, "batt": 3.3, "rssi": -device / 11}
        points.append(Point(f"dev-{device:04}", "telemetry", BASE + turn * INTERVAL_S * S + device * 1_000_000, fields))
        if len(points) == BATCH:
            writer.write(points)
            points = []
    if points:
        writer.write(points)
    writer.close()
    return rows


BOUNDS = {
    "latest of 1,000 devices": (50, 5),
    "one device, all time, one field to 5 min (mean min max)": (50, 10),
    "fleet hourly mean over 1 M rows, by device": (500, 50),
}
seen: dict[str, float] = {}


def timed(name: str, action: Callable[[], object]) -> None:
    took = []
    for _ in range(7):
        started = time.perf_counter()
        action()
        took.append((time.perf_counter() - started) * 1e3)
    seen[name] = round(statistics.median(took), 1)
    print(f"{name:58} {statistics.median(took):>8.1f} ms  (first {took[0]:.1f})", flush=True)


def measure(reader: SeriesReader, end: int) -> None:
    one = ["dev-0077"]
    million = min(end, BASE + 1_000 * INTERVAL_S * S)
    five, hour = 300 * S, 3_600 * S
    sites = {f"dev-{device:04}": f"site-{device % 10}" for device in range(DEVICES)}
    timed("latest of 1 device", lambda: reader.latest(one))
    timed("latest of 1,000 devices", lambda: reader.latest(limit=1_000))
    timed(
        "one device, all time, one field to 5 min (mean min max)",
        lambda: reader.aggregate(AggregateQuery(BASE, end, five, ["temp"], ["mean", "min", "max"], one)),
    )
    timed(
        "same, first and last",
        lambda: reader.aggregate(AggregateQuery(BASE, end, five, ["temp"], ["first", "last"], one)),
    )
    timed(
        "fleet hourly mean over 1 M rows, by device",
        lambda: reader.aggregate(AggregateQuery(BASE, million, hour, ["temp"], ["mean"])),
    )
    timed(
        "fleet hourly mean over 1 M rows, 10 sites",
        lambda: reader.aggregate(AggregateQuery(BASE, million, hour, ["temp"], ["mean"], group_of=sites)),
    )
    timed("range page of 1,000, one device", lambda: reader.range(RangeQuery(BASE, end, one)))
    timed(
        "range page of 1,000, one device, one field, last hour",
        lambda: reader.range(RangeQuery(end - hour, end, one, ["temp"])),
    )
    timed("range page of 1,000, whole fleet", lambda: reader.range(RangeQuery(BASE, end)))
    timed("one device, all points, paged", lambda: list(reader.export(RangeQuery(BASE, end, one))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--folder", type=Path, default=None)
    args = parser.parse_args()
    before, folder = results.conditions(), Path(tempfile.mkdtemp(dir=args.folder))
    try:
        rows = load(folder, args.hours)
        print(f"{rows:,} rows of 5 fields")
        reader = open_reader("embedded:", folder)
        measure(reader, BASE + int(args.hours * 3_600) * S)
        reader.close()
        lines = [results.Line(name, seen[name], "ms", *bounds, is_most=True) for name, bounds in BOUNDS.items()]
        results.save("queries", before, {"rows": rows, "ms": seen}, lines)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
