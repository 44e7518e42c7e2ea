"""The registry with very many devices: pages of the device list by query, and mixed reads and writes at a fixed rate.

    .venv/bin/python bench/registry.py [sqlite|postgresql] [--devices 100000] [--rate 500] [--seconds 15] [--workers 2]

One devices service of its own, of two worker processes, asked over HTTP without the gateway. Every query is asked for
its first page and for one from the middle, 100 devices each. The mix is an open loop: requests start when they are due,
and their time counts from then; 60 % pages, 20 % single devices, 20 % changes of a tag.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from urllib.parse import urlencode

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]

import footprint  # noqa: E402
import load  # noqa: E402
import results  # noqa: E402
from sqlalchemy import insert, text  # noqa: E402

from devices.database.engine import Database  # noqa: E402
from devices.database.schema import migrate  # noqa: E402
from devices.database.tables import PRESENCE  # noqa: E402
from devices.rows import CredentialRow, NewDevice, Who  # noqa: E402
from devices.store import DeviceStore  # noqa: E402
from wire.clock import NS_PER_S, now_ns  # noqa: E402

TOKEN = "bench-token-of-the-registry"
PART = 5_000
TURNS = 12  # of each page
QUERIES = (
    "", "dev-0123", "site-49", "type=type-3", "tag.line=line-7", "type=type-3 and tag.site=site-3", "online", "offline",
    "fw<1.2", "attr.floor>=8 and type=type-3", "id~dev-0999*", "last_seen<2h ago and type=type-3", "not has last_seen",
    "type=type-3 and tag.site=site-3 and not online and fw<1.9", "group=blue", "nothing-like-it",
)  # fmt: skip
THREADS = 24


def fill(database: Database, devices: int) -> None:
    """Register devices of 20 types, 50 sites, 1,000 lines; nine of ten were seen, most of those are online."""
    dice, store, who = Random(1), DeviceStore(database), Who("bench")
    for start in range(0, devices, PART):
        numbers = range(start, min(devices, start + PART))
        store.add([new_device(number) for number in numbers], who, "device.import")
        seen = [
            {"tenant": "default", "device": f"dev-{n:06}", "online": (here := dice.random() < 0.8), "connected": here,
             "said": None, "last_seen_ns": now_ns() - dice.randrange(86_400) * NS_PER_S, "since_ns": 0, "gone_ns": 0,
             "stale": False, "event": "", "event_ns": 0, "before_ns": 0}
            for n in numbers if n % 10
        ]  # fmt: skip
        with database.write() as transaction:
            transaction.execute(insert(PRESENCE), seen)
    if database.path is None:
        with database.engine.begin() as connection:
            connection.execute(text("ANALYZE"))


def new_device(number: int) -> NewDevice:
    tags = {"site": f"site-{number % 50}", "line": f"line-{number % 1000}", "owner": "acme"}
    name = f"dev-{number:06}"
    credential = CredentialRow(f"c{number}", name, "0" * 64, "$7$101$AAAA$" + "A" * 86, now_ns())
    attributes = {"floor": number % 9, "fw": f"1.{number % 12}.{number % 5}"}
    return NewDevice(name, f"type-{number % 20}", tags, number % 100 == 0, credential, attributes=attributes)


@contextmanager
def service(folder: Path, url: str, workers: int) -> Iterator[tuple[tuple[str, int], int]]:
    """Run the devices service in so many processes; give its address and process id."""
    port = footprint.free_port()
    own = {"DATA": str(folder), "PORT": str(port), "REGISTRY": url, "OPERATOR_TOKEN": TOKEN, "SERVICE_TOKEN": "s",
           "BROKER": "", "LOG_LEVEL": "warning", "WORKERS": str(workers)}  # fmt: skip
    environ = os.environ | {f"HEADWATER_{name}": value for name, value in own.items()}
    argv = [sys.executable, "-P", "-m", "compose", "serve", "devices"]
    process = subprocess.Popen(argv, env=environ, start_new_session=True)
    try:
        footprint.wait_for(f"http://127.0.0.1:{port}/readyz")
        yield ("127.0.0.1", port), process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def spent(pid: int) -> float:
    """Give the CPU seconds of a service's processes."""
    return sum(map(footprint.cpu_s, footprint.sessions()[pid]))


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def pages(client: load.Caller, devices: int) -> dict[str, list[float]]:
    """Ask each query's pages; ms, by query."""
    client.ask("POST", "/v1/groups", {"name": "blue", "query": "type=type-3 and online"})
    found: dict[str, list[float]] = {}
    for query in QUERIES:
        times = []
        for turn in range(2 * TURNS):
            cursor = f"dev-{devices // 2:06}" if turn % 2 else ""
            began = time.perf_counter()
            client.ask("GET", "/v1/devices?" + urlencode({"q": query, "limit": 100, "cursor": cursor}))
            times.append(1e3 * (time.perf_counter() - began))
        found[query] = times
        print(f"  {query or '(all)':62} p50 {percentile(times, 0.5):6.1f} ms  most {max(times):6.1f} ms")
    return found


def mixed(address: tuple[str, int], given: argparse.Namespace) -> load.Result:
    """Offer the mix over THREADS connections; the time of each counts from when it was due."""
    dice, result = Random(2), load.Result()
    asked = [one_of_mix(dice, given.devices) for _ in range(int(given.rate * given.seconds))]
    numbers, began_s = iter(range(len(asked))), time.monotonic() + 0.2

    def work() -> None:
        client = load.Caller(address, TOKEN)
        for number in numbers:  # each is given to one thread: the interpreter takes no two steps of it at once
            due_s = began_s + number / given.rate
            time.sleep(max(0.0, due_s - time.monotonic()))
            client.ask(*asked[number])
            result.ack_ms.append(1e3 * (time.monotonic() - due_s))

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    result.sent, result.seconds = len(result.ack_ms), time.monotonic() - began_s
    return result


def one_of_mix(dice: Random, devices: int) -> tuple[str, str, object]:
    kind, name = dice.random(), f"dev-{dice.randrange(devices):06}"
    if kind < 0.6:
        query = f"type=type-{dice.randrange(20)} and tag.line=line-{dice.randrange(1000)}"
        return "GET", "/v1/devices?" + urlencode({"q": query, "limit": 20}), None
    if kind < 0.8:
        return "GET", f"/v1/devices/{name}", None
    return "PATCH", f"/v1/devices/{name}", {"tags": {"wave": str(dice.randrange(1000))}}


@contextmanager
def database_url(kind: str) -> Iterator[str]:
    if kind == "sqlite":
        yield "sqlite:"
        return
    from tests.devices.postgresql import Cluster

    cluster = Cluster()
    try:
        yield cluster.database()
    finally:
        cluster.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("database", nargs="?", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--devices", type=int, default=100_000)
    parser.add_argument("--rate", type=float, default=500)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    before = results.conditions()
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as name, database_url(given.database) as url:
        database, began = Database(url, Path(name)), time.monotonic()
        migrate(database, Path(name))
        fill(database, given.devices)
        database.close()
        filled_s = time.monotonic() - began
        print(f"{given.devices} devices registered in {filled_s:.1f} s on {given.database}")
        with service(Path(name), url, given.workers) as (address, pid):
            found = pages(load.Caller(address, TOKEN), given.devices)
            spent_s = -spent(pid)
            offered = load.run_apart(mixed, address, given)
            spent_s += spent(pid)
    every = [each for several in found.values() for each in several]
    rate, p50, p99 = offered.sent / offered.seconds, offered.percentile(0.5), offered.percentile(0.99)
    cpu_ms = 1e3 * spent_s / offered.sent
    print(f"pages: p50 {percentile(every, 0.5):.1f}, p99 {percentile(every, 0.99):.1f} ms")
    print(f"mixed: {rate:.0f}/s of {given.rate:.0f}/s, p50 {p50:.1f}, p99 {p99:.1f} ms, CPU {cpu_ms:.2f} ms each")
    slowest = max(percentile(several, 0.5) for several in found.values())
    what = f"registry of {given.devices:,} devices on {given.database}, {given.workers} workers"
    lines = [
        results.Line(f"{what}: page of 100, slowest of {len(QUERIES)} queries, median", round(slowest, 1), "ms", 50,
                     is_most=True),
        results.Line(f"{what}: {given.rate:.0f}/s of mixed reads and writes, reached", round(rate), "/s",
                     given.rate * 0.98),
        results.Line(f"{what}: that mix, p99", round(p99, 1), "ms"),
        results.Line(f"{what}: that mix, CPU of the service", round(cpu_ms, 2), "ms a request"),
    ]  # fmt: skip
    figures = {"filled_s": round(filled_s, 1), "rate": round(rate, 1), "mixed_p50_ms": round(p50, 1),
               "mixed_p99_ms": round(p99, 1), "mixed_cpu_ms": round(cpu_ms, 2),
               "pages_p50_ms": {query: round(percentile(several, 0.5), 1) for query, several in found.items()},
               "pages_most_ms": {query: round(max(several), 1) for query, several in found.items()}}  # fmt: skip
    results.save(f"registry_{given.database}", before, figures, lines)


if __name__ == "__main__":
    main()
