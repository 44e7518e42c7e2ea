"""What the promise costs: the rate with fsync, and with fsync and fdatasync made to do nothing (a preloaded library).

.venv/bin/python bench/durability.py [--seconds 4] [--rounds 2]

The two take turns, so that what else the machine does hits both. Needs a C compiler. `kept` is the share of the rate
without syncs that is left with them (aim 80 %). Beside each rate stands how many posts shared a commit, how long one
took by the clock (the disk, and waiting for Python's lock behind the threads that decode), and the cores that each
process kept busy. The virtual disk here syncs in 0.2 ms; one that needs 5 ms costs more where requests are few, and
hardly more where many share a commit.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]

import footprint  # noqa: E402
import load  # noqa: E402
import pipeline  # noqa: E402
import results  # noqa: E402

from tests.e2e.platform import Installation  # noqa: E402

SOURCE = "int fsync(int fd) { return 0; } int fdatasync(int fd) { return 0; }"


class Kind(NamedTuple):
    name: str
    connections: int
    batch: int


KINDS = (
    Kind("NDJSON of 500, 8 connections", 8, 500),
    Kind("NDJSON of 500, 16 connections", 16, 500),
    Kind("single POST, 32 connections", 32, 1),
)
GROUP, COMMIT = "headwater_batcher_group_requests", "headwater_spool_commit_seconds"


def build(folder: Path) -> Path:
    library = folder / "nosync.so"
    command = ["cc", "-shared", "-fPIC", "-x", "c", "-o", str(library), "-"]
    subprocess.run(command, input=SOURCE.encode(), check=True)
    return library


def measure(kind: Kind, seconds: float, **environ: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        running = Installation(Path(folder) / "data").start(**environ)
        try:
            logins = pipeline.register(running, kind.connections)
            address = ("127.0.0.1", running.port)
            load.run_apart(load.post, address, logins, 1.0, "warm", kind.batch)
            told, busy = commits(running), cores(running)
            result = load.run_apart(load.post, address, logins, seconds, "run", kind.batch)
            told = {name: value - told[name] for name, value in commits(running).items()}
            busy = {name: round((cpu_s - busy.get(name, 0.0)) / seconds, 2) for name, cpu_s in cores(running).items()}
        finally:
            running.stop()
    return {
        "rate": round(result.acked / result.seconds),
        "posts_a_commit": round(told[f"{GROUP}_sum"] / told[f"{GROUP}_count"], 1),
        "commit_ms": round(1e3 * told[f"{COMMIT}_sum"] / told[f"{COMMIT}_count"], 2),
        "cores": {name: share for name, share in busy.items() if share >= 0.05},
    }


def commits(running: Installation) -> dict[str, float]:
    """What the ingestion service counted of its commits so far."""
    port = json.loads((running.data / "run/ports.json").read_text())["ingest-json"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        lines = [line.split() for line in answer.read().decode().splitlines()]
    wanted = {f"{name}_{part}" for name in (GROUP, COMMIT) for part in ("sum", "count")}
    return {line[0]: float(line[1]) for line in lines if line[0] in wanted}


def cores(running: Installation) -> dict[str, float]:
    """CPU seconds of each process so far."""
    return {each.name: each.cpu_s for each in footprint.measure(running.data, with_memory=False)}


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
            runs: dict[str, list[dict[str, Any]]] = {"with": [], "without": []}
            for _ in range(options.rounds):
                runs["with"].append(measure(kind, options.seconds))
                runs["without"].append(measure(kind, options.seconds, LD_PRELOAD=library))
            medians = {name: round(statistics.median(each["rate"] for each in some)) for name, some in runs.items()}
            kept = round(medians["with"] / medians["without"], 2)
            found.append({"kind": kind.name, **medians, "kept": kept, "runs": runs})
            print(json.dumps(found[-1]), flush=True)
    lines = [results.Line(f"{each['kind']}: rate kept with fsync", 100 * each["kept"], "%", aim=80) for each in found]
    results.save("durability", before, {"rates": found}, lines)


if __name__ == "__main__":
    main()
