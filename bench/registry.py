"""The registry with very many devices: pages of the device list by query, and mixed reads and writes at a fixed rate.

    .venv/bin/python bench/registry.py [sqlite|postgresql] [--devices 100000] [--rate 500] [--seconds 15] [--workers 2]

One devices service of its own, of two worker processes, asked over HTTP without the gateway. Every query is asked for
its first page and for one from the middle, 100 devices each. The mix is an open loop: requests start when they are due,
and their time counts from then; 60 % pages, 20 % single devices, 20 % changes of a tag.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlencode

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]

import footprint  # noqa: E402
import load  # noqa: E402
import results  # noqa: E402
from sqlalchemy import create_engine, insert, text  # noqa: E402

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
CONNECTIONS = 24
OF_KIND = 400  # requests of each kind
EVERY = 1e9  # a second: each as soon as a connection is free
Kind = Callable[[Random, int, int], bytes]


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


def mix(devices: int, count: int) -> list[tuple[str, bytes]]:
    dice = Random(2)
    kinds = dice.choices(("page", "device", "change"), (60, 20, 20), k=count)
    return [(kind, KINDS[kind](dice, devices, number)) for number, kind in enumerate(kinds)]


def as_bytes(method: str, path: str, body: object = None) -> bytes:
    content = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {TOKEN}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n" if content else ""
    return f"{head}\r\n".encode() + content


def of_one(method: str, below: str = "", body: Callable[[int], object] = lambda _: None) -> Kind:
    """Ask about one device, any of them."""
    return lambda dice, devices, number: as_bytes(
        method, f"/v1/devices/dev-{dice.randrange(devices):06}{below}", body(number)
    )


def page(dice: Random, _devices: int, _number: int) -> bytes:
    query = f"type=type-{dice.randrange(20)} and tag.line=line-{dice.randrange(1000)}"
    return as_bytes("GET", "/v1/devices?" + urlencode({"q": query, "limit": 20}))


KINDS: dict[str, Kind] = {
    "page": page,
    "device": of_one("GET"),
    "change": of_one("PATCH", "", lambda number: {"tags": {"wave": str(number)}}),
    "nothing": lambda _dice, _devices, _number: as_bytes("GET", "/livez"),
    "credentials": of_one("GET", "/credentials"),
    "twin": of_one("GET", "/twin"),
    "presence": of_one("GET", "/presence"),
    "commands": of_one("GET", "/commands"),
    "wish": of_one("PATCH", "/twin", lambda number: {"desired": {"level": number}}),
    "command": of_one("POST", "/commands", lambda number: {"name": "reboot", "params": {"number": number}}),
    "credential": of_one("POST", "/credentials", lambda _: {}),
    "create": lambda _dice, _devices, number: as_bytes(
        "POST", "/v1/devices", {"id": f"new-{number}", "type": "type-1", "tags": {"site": "site-1"}}
    ),
}


def by_kind(address: tuple[str, int], pid: int, devices: int) -> dict[str, float]:
    """Ask each kind of request by itself, as fast as it is answered; CPU of the service, us a request."""
    found = {}
    for kind, make in KINDS.items():
        dice = Random(3)
        requests = [(kind, make(dice, devices, number)) for number in range(OF_KIND)]
        spent_s = -spent(pid)
        offered = load.run_apart(load.ask, address, requests, EVERY, 4)
        found[kind] = round(1e6 * (spent_s + spent(pid)) / OF_KIND)
        rate = offered.acked / offered.seconds
        print(f"  {kind:12} {found[kind]:5} us, {rate:5.0f}/s; generator {1e6 * offered.cpu_s / OF_KIND:3.0f} us")
    return found


@contextmanager
def database_url(kind: str) -> Iterator[str]:
    if kind == "sqlite":
        yield "sqlite:"
        return
    from tests.devices.postgresql import Cluster

    cluster = Cluster(is_durable=True)
    try:
        yield cluster.database()
    finally:
        cluster.stop()


def server_s(url: str) -> float:
    """Give the CPU seconds of PostgreSQL's processes; 0 on SQLite, whose work the service does."""
    if url.startswith("sqlite:"):
        return 0.0
    with create_engine(url).connect() as connection:
        folder = connection.execute(text("SHOW data_directory")).scalar_one()
    pid = Path(folder, "postmaster.pid").read_text().split()[0]
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return sum(map(footprint.cpu_s, map(int, children)))


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
            cost = by_kind(address, pid, given.devices)
            requests = mix(given.devices, int(given.rate * given.seconds))
            used = -spent(pid), -server_s(url)
            offered = load.run_apart(load.ask, address, requests, given.rate, CONNECTIONS)
            used = used[0] + spent(pid), used[1] + server_s(url)
    figures = {"filled_s": round(filled_s, 1), "of_kind_us": cost, **told(offered, used),
               "pages_p50_ms": {query: round(percentile(several, 0.5), 1) for query, several in found.items()},
               "pages_most_ms": {query: round(max(several), 1) for query, several in found.items()}}  # fmt: skip
    print("\n".join(f"{key}: {value}" for key, value in figures.items() if key.startswith("mixed")))
    slowest = max(percentile(several, 0.5) for several in found.values())
    what = f"registry of {given.devices:,} devices on {given.database}, {given.workers} workers"
    lines = [
        results.Line(f"{what}: page of 100, slowest of {len(QUERIES)} queries, median", round(slowest, 1), "ms", 50,
                     is_most=True),
        results.Line(f"{what}: {given.rate:.0f}/s of mixed reads and writes, reached", round(figures["mixed_rate"]),
                     "/s", given.rate * 0.98),
        results.Line(f"{what}: that mix, p99", figures["mixed_p99_ms"], "ms", 250, is_most=True),
        results.Line(f"{what}: that mix, CPU of the service", figures["mixed_cpu_us"], "us a request"),
    ]  # fmt: skip
    results.save(f"registry_{given.database}", before, figures, lines)


def told(offered: load.Result, used: tuple[float, float]) -> dict[str, Any]:
    """Give the figures of the mix; `used` are CPU seconds of the service and of the database's server."""
    each = 1e6 / offered.acked
    return {
        "mixed_rate": round(offered.acked / offered.seconds, 1),
        "mixed_p50_ms": round(offered.percentile(0.5), 1), "mixed_p99_ms": round(offered.percentile(0.99), 1),
        "mixed_most_ms": round(max(offered.ack_ms), 1),
        "mixed_p99_ms_of_kind": {kind: round(percentile(ms, 0.99), 1) for kind, ms in offered.of_kind.items()},
        "mixed_cpu_us": round(used[0] * each), "mixed_server_cpu_us": round(used[1] * each),
        "mixed_generator_cpu_us": round(offered.cpu_s * each),
    }  # fmt: skip


if __name__ == "__main__":
    main()
