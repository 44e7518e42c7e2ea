"""How the cost of a message grows: with its fields, with the devices registered, with the rows that are stored already.

.venv/bin/python bench/growth.py [--messages 40000] [--rows 1000000 10000000]

us of CPU a message in one process (bench/stages.py): ingestion in batches of 500 with the spool, the writer in turns of
1,000. Neither broker, bridge nor HTTP is in it; they do not look at fields or devices.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from pathlib import Path
from typing import Any

import results
import stages

import series
from ingest.readings import Reading
from wire import clock

SHAPES = {"rows": "rows stored before", "devices": "devices", "fields": "fields a message"}
NAMES = ("temperature", "humidity", "pressure", "battery", "rssi")


def cost(options: argparse.Namespace, rows: int = 0, **changes: int) -> dict[str, Any]:
    """Give the costs of one shape of fleet."""
    given = argparse.Namespace(**vars(options) | {"devices": 1_000, "fields": stages.FIELDS} | changes)
    gc.collect()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        ingest = stages.measure_mqtt(Path(folder), given, 500)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        if rows:
            prefill(Path(folder), rows, given.devices)
        writer = stages.measure_writer(Path(folder), given, 1_000)
    each = 1e6 / given.messages
    found = changes | {"rows": rows} if rows else dict(changes)
    return found | {
        "ingest_us": round(sum(ingest.spent.values()) * each, 1),
        "writer_us": round(writer.spent["all"] * each, 1),
        "store_us": round(writer.spent["store"] * each, 1),
    }


def line_of(found: dict[str, Any]) -> results.Line:
    what = next(f"{found[name]:,} {title}" for name, title in SHAPES.items() if name in found)
    cost = found["ingest_us"] + found["writer_us"]
    return results.Line(f"ingestion and writer, {what}", round(cost, 1), "us a message")


def prefill(folder: Path, rows: int, devices: int) -> None:
    """Store rows of the last hours, as the writer would."""
    store = series.open_writer("embedded:", folder)
    begin_ns = clock.now_ns() - rows // devices * clock.NS_PER_S
    for start in range(0, rows, 5_000):
        store.write([made(n, devices, begin_ns) for n in range(start, start + 5_000)])
    store.close()


def made(number: int, devices: int, begin_ns: int) -> Reading:
    time_ns = begin_ns + number // devices * clock.NS_PER_S
    fields = {name: (number * 7 + index) % 1000 / 37 for index, name in enumerate(NAMES)}
    return Reading(f"bench-{number % devices}", "telemetry", time_ns, time_ns, fields)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=40_000)
    parser.add_argument("--rows", type=int, nargs="*", default=(1_000_000, 10_000_000))
    parser.add_argument("--folder", type=Path, help="on the disk to measure; default: the temporary folder")
    parser.add_argument("--only-rows", action="store_true", help="neither fields nor devices")
    options = parser.parse_args()
    options.name = "rows" if options.only_rows else "growth"
    before, found = results.conditions(), []
    print(before)
    shapes = (
        *({"fields": fields} for fields in (1, 10, 50)),
        *({"devices": devices, "messages": max(options.messages, 2 * devices)} for devices in (1_000, 10_000, 50_000)),
    )
    for changes in (*(() if options.only_rows else shapes), *({"rows": rows} for rows in options.rows)):
        began_s = time.monotonic()
        found.append(cost(options, **changes))
        print(found[-1], f"({time.monotonic() - began_s:.0f} s)", flush=True)
        results.save(options.name, before, {"costs": found}, [line_of(each) for each in found])


if __name__ == "__main__":
    main()
