"""A new version of a device type, tried on very many stored readings while others are coming in.

    .venv/bin/python bench/dry_run.py [--readings 1000000] [--devices 100] [--seconds 15]

One installation. The readings are stored as the writer does, spread over the last 20 hours. First devices post single
readings over HTTP alone, then the same while a dry run judges everything stored; how long that takes, and the memory
of ingestion and registry while it lasts.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]

import footprint  # noqa: E402
import load  # noqa: E402
import pipeline  # noqa: E402
import results  # noqa: E402

from series import open_writer  # noqa: E402
from tests.e2e.platform import Installation  # noqa: E402
from wire import clock  # noqa: E402
from wire.points import Point  # noqa: E402

SPAN_S = 20 * 3_600
BATCH = 5_000
AT_ONCE = 4  # devices that post
SPEC = {"fields": {"temp": {"max": 90}, "hum": {}}}  # one in ten is above


def fill(running: Installation, readings: int, devices: int) -> None:
    """Store readings in order of their times."""
    writer = open_writer("embedded:", running.data)
    start_ns, step_ns = clock.now_ns() - SPAN_S * clock.NS_PER_S, SPAN_S * clock.NS_PER_S // readings
    for first in range(0, readings, BATCH):
        points = [
            Point(f"bench-{n % devices}", "telemetry", start_ns + n * step_ns,
                  {"temp": random.random() * 100, "hum": 50.0, "door.open": n % 2 == 0})
            for n in range(first, min(first + BATCH, readings))
        ]  # fmt: skip
        writer.write(points)
    writer.close()


def try_all(running: Installation, found: dict[str, Any]) -> None:
    """Run a dry run to its end; note seconds, counts, and the most memory of who works for it."""
    state = json.loads((running.data / "run/state.json").read_text())
    leaders = [each["pid"] for each in state["processes"] if each["name"] in ("devices", "ingest-json")]
    found["before_mb"] = found["most_mb"] = memory_mb(leaders)
    began_s = time.monotonic()
    job = running.call("POST", "/v1/device-types/bench:dry-run", {"spec": SPEC, "hours": 24}).body
    while (job := running.get(f"/v1/jobs/{job['id']}"))["state"] in ("queued", "running"):
        found["most_mb"] = max(found["most_mb"], memory_mb(leaders))
        time.sleep(0.5)
    result = job["result"]
    found |= {"seconds": round(time.monotonic() - began_s, 1), "state": job["state"], "stored": result["stored"]}
    found |= {"judged": result["readings"], "refused": result["refused_readings"]}
    print(f"  {found}", flush=True)


def memory_mb(leaders: list[int]) -> int:
    """Give the PSS of all processes that belong to these, the one that judges among them."""
    members = footprint.sessions()
    return round(sum(footprint.pss_mb(pid) for leader in leaders for pid in members[leader]))


def post(running: Installation, logins: list[load.Login], seconds: float, boot: str) -> dict[str, Any]:
    """Post single readings; give how many a second were accepted, and how long each took."""
    result = load.run_apart(load.post, ("127.0.0.1", running.port), logins[:AT_ONCE], seconds, boot, 1)
    found = {"rate": round(result.acked / result.seconds), **pipeline.figures(result, result.acked)}
    print(f"  {boot}: {found}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--readings", type=int, default=1_000_000)
    parser.add_argument("--devices", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=15)
    given, before = parser.parse_args(), results.conditions()
    with pipeline.installation(given.devices) as (running, logins):
        body = {"query": "not gateway", "action": {"do": "update", "patch": {"type": "bench"}}}
        running.call("POST", "/v1/devices:bulk", body)
        fill(running, given.readings, given.devices)
        post(running, logins, 2, "warm")
        found: dict[str, Any] = {"post_alone": post(running, logins, given.seconds, "alone"), "run": {}}
        runner = threading.Thread(target=try_all, args=(running, found["run"]))
        runner.start()
        found["post_beside"] = post(running, logins, given.seconds, "beside")
        runner.join()
    alone, beside, run = found["post_alone"], found["post_beside"], found["run"]
    what = f"dry run over {run['judged']:,} stored readings"
    lines = [
        results.Line(what, run["seconds"], "s"),
        results.Line(f"{what}: ingestion and registry at most, before {run['before_mb']}", run["most_mb"], "MB"),
        results.Line(f"p99 of a post beside it, before {alone['ack_p99_ms']:g}", beside["ack_p99_ms"], "ms"),
        results.Line(f"posts a second beside it, before {alone['rate']:,}", beside["rate"], "/s"),
    ]
    results.save("dry_run", before, found, lines)


if __name__ == "__main__":
    main()
