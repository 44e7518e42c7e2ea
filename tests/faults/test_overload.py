"""F13-F15: more posts than can be answered, viewers that never read, too little memory: refused early, nothing lost."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

import pytest

from tests.faults.checker.api import BROKEN, Door
from tests.faults.checker.history import History, Key
from tests.faults.checker.probe import Probe, percentile
from tests.faults.rig import Site
from tests.faults.test_poison import ask_for_feed, frame, open_feed
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.faults, pytest.mark.alone]
POSTS = 50_000 if os.environ.get("HEADWATER_TEST_LONG") else 3_000
DEVICES = 100  # the gateway lets one have only a few posts in flight
CONNECTIONS = 800  # a test may open so many without asking for more descriptors
PEAK_S, PEAK_CALLERS, STEP_S = 1.5, 16, 0.01
READERS = 100


def test_ten_times_what_can_be_answered_loses_nothing(site: Site) -> None:
    """An open loop: posts leave at ten times the peak rate, whether or not the earlier ones are answered."""
    restarts = site.restarts()
    steady, run = site.run("steady").start(), site.run("flood")
    flood = Flood(site, run.history)

    asyncio.run(flood.rise())

    print(
        f"peak {flood.peak:.0f}/s, offered {flood.offered:.0f}/s, accepted {flood.goodput:.0f}/s, {dict(flood.answers)}"
    )
    assert set(flood.answers) <= {202, 429, 503}, flood.answers
    assert flood.answers[202] > 0
    assert flood.without_hint == 0, "who is sent away is told when to come again"
    steady.check()
    found = run.finish()
    assert found.is_clean, found
    assert found.acked == flood.answers[202]
    assert site.restarts() == restarts


class Flood:
    """Posts single readings over as many connections as it takes, and does not repeat what was refused."""

    def __init__(self, site: Site, history: History) -> None:
        self.answers: Counter[int] = Counter()
        self.without_hint = 0  # of those that say "later": how many do not say when
        self.peak = self.offered = self.goodput = 0.0  # a second
        self._history = history
        self._port = site.installation.port
        name = f"flood-{time.time_ns()}"
        names = [f"{name}-{number}" for number in range(DEVICES)]
        self._bearers = {each: site.door.register(each)["bearer"] for each in names}
        self._keys = [Key(names[number % DEVICES], "boot", number // DEVICES) for number in range(POSTS)]
        self._slots = asyncio.Semaphore(CONNECTIONS)
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        history.sent(self._keys, 0)

    async def rise(self) -> None:
        keys = iter(self._keys)
        began_s = time.monotonic()
        await asyncio.gather(*(self._call_in_turn(keys, began_s + PEAK_S) for _ in range(PEAK_CALLERS)))
        self.peak = self.answers[202] / (time.monotonic() - began_s)
        await self._pour(keys, 10 * self.peak)
        for _, writer in self._idle:
            writer.close()
            await writer.wait_closed()

    async def _call_in_turn(self, keys: Iterator[Key], until_s: float) -> None:
        while time.monotonic() < until_s and (key := next(keys, None)):
            await self._post(key)

    async def _pour(self, keys: Iterator[Key], rate: float) -> None:
        began_s, before, under_way = time.monotonic(), self.answers[202], []
        while len(under_way) < (due := int((time.monotonic() - began_s + STEP_S) * rate)):
            batch = list(islice(keys, due - len(under_way)))
            under_way += [asyncio.create_task(self._post(key)) for key in batch]
            await asyncio.sleep(STEP_S)
            if not batch:
                break
        self.offered = len(under_way) / (time.monotonic() - began_s)
        await asyncio.gather(*under_way)
        self.goodput = (self.answers[202] - before) / (time.monotonic() - began_s)

    async def _post(self, key: Key) -> None:
        async with self._slots:
            await self._post_now(key)

    async def _post_now(self, key: Key) -> None:
        body = json.dumps({"boot_id": key.boot, "seq": key.seq, "b": key.boot, "n": key.seq, "v": key.value}).encode()
        head = f"POST /v1/telemetry HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self._bearers[key.device]}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        connection = self._idle.pop() if self._idle else await asyncio.open_connection("127.0.0.1", self._port)
        connection[1].write(head.encode() + body)
        answer = (await connection[0].readuntil(b"\r\n\r\n")).decode().lower()
        await connection[0].readexactly(int(answer.partition("content-length: ")[2].split("\r\n", 1)[0]))
        self._idle.append(connection)
        status = int(answer[9:12])
        self.answers[status] += 1
        self.without_hint += status in (429, 503) and "retry-after: " not in answer
        if status == 202:
            self._history.acked([key])


def test_device_that_waits_as_it_is_told_is_let_in_each_time(site: Site) -> None:
    """What is refused is kept by the device; after Retry-After its next try is never refused again."""
    name = f"paced-{time.time_ns()}"
    assert site.installation.call("PUT", f"/v1/device-types/{name}", {"rate_limit": "10:1"}).status in (200, 201)
    run = site.run("paced").connect(http=2, device_type=name)
    run.load.obeys = True
    run.load.start(per_tick=2)  # up to 40 a second each
    wait_until(lambda: run.load.statuses[429] >= 8, 60, "posts are refused")

    run.check()
    statuses = run.load.statuses
    print(dict(statuses))
    assert set(statuses) == {202, 429}
    assert run.load.refused_again == 0


def test_viewers_that_never_read_cost_no_reading(site: Site) -> None:
    restarts = site.restarts()
    run = site.run("viewed").start(per_tick=4)
    probe = Probe(site.door, site.mqtt, f"viewed-{time.time_ns()}")
    probe.baseline_s(10)
    before = [sample.took_s for sample in probe.samples["mqtt"]]
    readers = [never_reading(site) for _ in range(READERS)]
    seen = len(probe.samples["mqtt"])
    wait_until(lambda: len(probe.samples["mqtt"]) > seen + 15, 60, "the probe goes on")
    probe.close()
    after = [sample.took_s for sample in probe.samples["mqtt"][seen:]]
    print(f"publish to query p99 without readers {percentile(before, 99):.3f} s, with {percentile(after, 99):.3f} s")

    run.check()
    for reader in readers:
        reader.close()
    assert site.restarts() == restarts


def never_reading(site: Site) -> socket.socket:
    connection = open_feed(site)
    connection.sendall(frame(b'{"subscribe":{}}'))
    return connection


def test_too_little_memory_costs_no_reading(site: Site) -> None:
    """Ingestion may not grow any more: requests that do not fit are refused or end a worker, and a client repeats them."""
    run = site.run("poor").start(mqtt=2, http=2)
    with poor(site.family("ingest-json")[1:]):
        device = site.installation.add_device("heavy")
        print(dict(Counter(weigh(site, device.bearer))))
    run.wait_acked(40)

    run.check()


def test_too_little_memory_of_bridge_writer_and_registry_costs_no_reading(site: Site) -> None:
    names = ("bridge", "writer", "devices")
    run = site.run("poorer").start(mqtt=4, http=2)
    with poor([pid for name in names for pid in site.family(name)], room_mb=0):
        with site.frozen("writer"):
            run.wait_acked(200)  # a backlog for it
        run.wait_acked(400)
    run.wait_acked(40)

    run.check()


def test_too_little_memory_of_the_dashboard_ends_it_and_it_comes_back(site: Site) -> None:
    """Viewers and large answers, and no memory for them: whatever fails, it must not go on half dead."""
    run = site.run("viewed-poorly").start(mqtt=2, http=1)
    restarts = site.restarts()["dashboard"]
    with poor(site.family("dashboard"), room_mb=1):
        readers = [ask_for_feed(site) for _ in range(READERS)]
        wait_until(lambda: site.restarts()["dashboard"] > restarts, 60, "it ends")
        site.wait_ready()
    for reader in readers:
        reader.close()

    never_reading(site).close()
    run.check()


@contextmanager
def poor(pids: list[int], room_mb: int = 8) -> Iterator[None]:
    """Let processes grow by so much and no more; those that end of it come back without a limit."""
    for pid in pids:
        limit = address_space(pid) + room_mb * 1024 * 1024
        resource.prlimit(pid, resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    yield
    for pid in pids:
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def address_space(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()


def weigh(site: Site, bearer: str) -> list[int]:
    """Post large arrays from several callers at once; give the answers."""
    body = json.dumps([{"ts": 1_700_000_000_000 + n, "t": "x" * 60} for n in range(8_000)]).encode()
    answers: list[int] = []

    def post() -> None:
        door = Door(site.installation.url, bearer, timeout_s=30)
        for _ in range(2):
            try:
                answers.append(door.call("POST", "/v1/telemetry", body)[0])
            except BROKEN:
                answers.append(0)
        door.close()

    threads = [threading.Thread(target=post) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers
