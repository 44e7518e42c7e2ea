"""One command to very many devices that wait for it over HTTP: how soon all have it, and all answers are kept.

    .venv/bin/python bench/polls.py [--devices 200 2000] [--workers 1]

A registry of its own, without broker and gateway. Each device is a connection of its own that polls with `wait`, and
posts its answer on the same connection as soon as it has the command. Time counts from the request of the bulk action,
when all wait; `cpu_ms` is what the registry's processes spent on each device from then on.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]

import footprint  # noqa: E402
import load  # noqa: E402
import results  # noqa: E402
from registry import TOKEN, new_device, service  # noqa: E402

from chassis.tokens import hash_token  # noqa: E402
from devices.database.engine import Database  # noqa: E402
from devices.database.schema import migrate  # noqa: E402
from devices.rows import NewDevice, Who  # noqa: E402
from devices.store import DeviceStore  # noqa: E402

SECRET = "secret-of-all-the-pollers"
WAIT_S, PATIENCE_S, LOOK_S = 50, 120.0, 0.1


def poller(number: int) -> NewDevice:
    device = new_device(number)
    assert device.credential is not None
    return replace(device, gateway=False, credential=replace(device.credential, sha256=hash_token(SECRET)))


@dataclass
class Seen:
    """When what happened, monotonic seconds."""

    had: list[float] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)


async def ask(streams: tuple[asyncio.StreamReader, asyncio.StreamWriter], head: str, body: bytes = b"") -> bytes:
    """Send a request (its head, without what all have); give status and body."""
    reader, writer = streams
    writer.write(f"{head}\r\nHost: bench\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    answer = await reader.readuntil(b"\r\n\r\n")
    size = next((int(line[15:]) for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
    return answer[9:12] + await reader.readexactly(size)


async def poll(address: tuple[str, int], device: str, seen: Seen) -> None:
    """Wait for the command and answer it."""
    streams = await asyncio.open_connection(*address)
    proof = f"Authorization: Bearer {device}.{SECRET}"
    got = b""
    while not got.startswith(b"200"):
        got = await ask(streams, f"GET /v1/device/commands?wait={WAIT_S} HTTP/1.1\r\n{proof}")
        assert got[:3] in (b"200", b"204"), got
    seen.had.append(time.monotonic())
    for command in json.loads(got[3:])["commands"]:
        path = f"/v1/device/commands/{command['id']}/reply"
        said = await ask(streams, f"POST {path} HTTP/1.1\r\n{proof}", b'{"result":1}')
        assert said.startswith(b"200"), said
    seen.answered.append(time.monotonic())
    streams[1].close()


async def wait_for(is_there: Callable[[], bool]) -> None:
    """Ask in a thread until it is there."""
    end_s = time.monotonic() + PATIENCE_S
    while not await asyncio.to_thread(is_there):
        assert time.monotonic() < end_s, "it takes too long"
        await asyncio.sleep(LOOK_S)


async def measure(address: tuple[str, int], devices: int, session: int) -> dict[str, float]:
    """Let devices wait, send one command to all; give seconds, and ms of CPU a device."""
    client, seen = load.Caller(address, TOKEN), Seen()
    waiting = [asyncio.create_task(poll(address, f"dev-{number:06}", seen)) for number in range(devices)]
    count = "/v1/devices:count?q=online&exact=true"
    await wait_for(lambda: json.loads(client.ask("GET", count))["count"] == devices)
    before_s = spent_s(session)
    began_s = time.monotonic()
    action = {"do": "command", "command": {"name": "blink", "deadline_s": 600}}
    await asyncio.to_thread(client.ask, "POST", "/v1/devices:bulk", {"query": "id~dev-*", "action": action})
    await asyncio.gather(*waiting)
    spent = spent_s(session) - before_s
    return {
        "had_s": max(seen.had) - began_s, "had_median_s": sorted(seen.had)[devices // 2] - began_s,
        "answered_s": max(seen.answered) - began_s, "cpu_ms": 1_000 * spent / devices,
    }  # fmt: skip


def spent_s(session: int) -> float:
    return sum(map(footprint.cpu_s, footprint.sessions()[session]))


def run(devices: int, workers: int) -> dict[str, float]:
    """Measure on a registry of its own."""
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as name:
        folder = Path(name)
        database = Database("sqlite:", folder)
        migrate(database, folder)
        DeviceStore(database).add([poller(number) for number in range(devices)], Who("bench"), "device.import")
        database.close()
        with service(folder, "sqlite:", workers) as (address, session):
            found = asyncio.run(measure(address, devices, session))
    return {key: round(value, 2) for key, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, nargs="+", default=[200, 2_000])
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    before, figures, lines = results.conditions(), {}, []
    for devices in given.devices:
        figures[str(devices)] = found = run(devices, given.workers)
        print(devices, json.dumps(found))
        what = f"one command to {devices:,} devices that wait over HTTP, {given.workers} worker, SQLite"
        lines += [
            results.Line(f"{what}: all have it after", found["had_s"], "s"),
            results.Line(f"{what}: all answers kept after", found["answered_s"], "s"),
        ]
    results.save("polls", before, figures, lines)


if __name__ == "__main__":
    main()
