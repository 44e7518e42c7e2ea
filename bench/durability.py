"""What the promise costs: the rate with fsync, and with fsync and fdatasync made to do nothing (a preloaded library).

.venv/bin/python bench/durability.py [--seconds 4] [--rounds 2]

The two take turns, so that what else the machine does hits both. Needs a C compiler. `kept` is the share of the rate
without syncs that is left with them (aim 80 %). The virtual disk here syncs in 0.2 ms; one that needs 5 ms costs more
where requests are few, and hardly more where many share a commit.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]

import load  # noqa: E402
import pipeline  # noqa: E402
import results  # noqa: E402

from tests.e2e.platform import Installation  # noqa: E402

SOURCE = "int fsync(int fd) { return 0; } int fdatasync(int fd) { return 0; }"


class Kind(NamedTuple):
    name: str
    connections: int
    batch: int


KINDS = (Kind("NDJSON of 500, 8 connections", 8, 500), Kind("single POST, 32 connections", 32, 1))


def build(folder: Path) -> Path:
    library = folder / "nosync.so"
    command = ["cc", "-shared", "-fPIC", "-x", "c", "-o", str(library), "-"]
    subprocess.run(command, input=SOURCE.encode(), check=True)
    return library


def measure(kind: Kind, seconds: float, **environ: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        running = Installation(Path(folder) / "data").start(**environ)
        try:
            logins = pipeline.register(running, kind.connections)
            address = ("127.0.0.1", running.port)
            load.run_apart(load.post, address, logins, 1.0, "warm", kind.batch)
            result = load.run_apart(load.post, address, logins, seconds, "run", kind.batch)
        finally:
            running.stop()
    return result.acked / result.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    before, found = results.conditions(), []
    print(before)
    with tempfile.TemporaryDirectory() as folder:
        library = str(build(Path(folder)))
        for kind in KINDS:
            rates: dict[str, list[float]] = {"with": [], "without": []}
            for _ in range(options.rounds):
                rates["with"].append(measure(kind, options.seconds))
                rates["without"].append(measure(kind, options.seconds, LD_PRELOAD=library))
            medians = {name: round(statistics.median(each)) for name, each in rates.items()}
            found.append({"kind": kind.name, **medians, "kept": round(medians["with"] / medians["without"], 2)})
            print(found[-1], {name: [round(each) for each in several] for name, several in rates.items()}, flush=True)
    lines = [results.Line(f"{each['kind']}: rate kept with fsync", 100 * each["kept"], "%", aim=80) for each in found]
    results.save("durability", before, {"rates": found}, lines)


if __name__ == "__main__":
    main()
