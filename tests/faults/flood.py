"""An open loop of single posts: capacity first, then ten times as many as that, whether or not they are answered.

A post waits in the platform only as long as it takes to answer those that are there before it, so how long the queues
are is told by counting: how many others were accepted between the sending of a post and its own acceptance. That holds
on any machine, however slow.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator
from itertools import islice

from tests.faults.checker.history import History, Key
from tests.faults.rig import Site

DEVICES = 100  # the gateway lets one have only a few posts in flight
CONNECTIONS = 800  # a test may open so many without asking for more descriptors
CALLERS, CAPACITY_S, STEP_S, TIMES = 48, 1.0, 0.01, 10
CONTROL = ("/v1/devices?limit=1", "/v1/ledger", "/v1/query/latest?limit=1", "/readyz")


class Flood:
    """Does not repeat what was refused. The figures are of the time at ten times the capacity."""

    def __init__(self, site: Site, history: History, posts: int) -> None:
        self.answers: Counter[int] = Counter()
        self.without_hint = 0  # of those that say "later": how many do not say when
        self.ahead: list[int] = []  # of each post accepted: how many others were, while it waited
        self.control: Counter[int] = Counter()  # answers to operators and devices who ask for no telemetry
        self.capacity = self.offered = self.goodput = 0.0  # a second
        self.accepted = 0  # at all times
        self._site, self._history, self._posts = site, history, posts
        self._port = site.installation.port
        name = f"flood-{time.time_ns()}"
        self._names = [f"{name}-{number}" for number in range(DEVICES)]
        self._bearers = {each: site.door.register(each)["bearer"] for each in self._names}
        self._slots = asyncio.Semaphore(CONNECTIONS)
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def rise(self) -> None:
        """Run: what it can take, too much, what it can take now (the lesser of both counts)."""
        before = await self._measure("before")
        await self._pour(self._keys("over", self._posts), TIMES * before)
        answers, ahead = Counter(self.answers), list(self.ahead)
        self.capacity = min(before, await self._measure("after"))
        self.answers, self.ahead = answers, ahead
        for _, writer in self._idle:
            writer.close()
            await writer.wait_closed()

    def _keys(self, boot: str, count: int) -> Iterator[Key]:
        keys = [Key(self._names[number % DEVICES], boot, number // DEVICES) for number in range(count)]
        self._history.sent(keys, 0)
        return iter(keys)

    async def _measure(self, boot: str) -> float:
        keys, began_s, before = self._keys(boot, self._posts), time.monotonic(), self.accepted
        await asyncio.gather(*(self._call_in_turn(keys, began_s + CAPACITY_S) for _ in range(CALLERS)))
        rate = (self.accepted - before) / (time.monotonic() - began_s)
        self.answers.clear()
        self.ahead.clear()
        return rate

    async def _call_in_turn(self, keys: Iterator[Key], until_s: float) -> None:
        while time.monotonic() < until_s and (key := next(keys, None)):
            await self._post(key)

    async def _pour(self, keys: Iterator[Key], rate: float) -> None:
        began_s, under_way = time.monotonic(), list[asyncio.Task[None]]()
        control = asyncio.create_task(self._ask_for_control())
        while len(under_way) < self._posts:
            due = int((time.monotonic() - began_s + STEP_S) * rate)
            under_way += [asyncio.create_task(self._post(key)) for key in islice(keys, due - len(under_way))]
            await asyncio.sleep(STEP_S)
        self.offered = len(under_way) / (time.monotonic() - began_s)
        await asyncio.gather(*under_way)
        self.goodput = self.answers[202] / (time.monotonic() - began_s)
        control.cancel()

    async def _ask_for_control(self) -> None:
        device = self._names[0]
        own = {"Authorization": f"Bearer {self._bearers[device]}"}
        while True:
            for path, headers in [*((path, {}) for path in CONTROL), ("/v1/device/commands", own)]:
                answer = await asyncio.to_thread(self._site.installation.call, "GET", path, None, **headers)
                self.control[answer.status] += 1

    async def _post(self, key: Key) -> None:
        async with self._slots:
            await self._post_now(key)

    async def _post_now(self, key: Key) -> None:
        body = json.dumps({"boot_id": key.boot, "seq": key.seq, "b": key.boot, "n": key.seq, "v": key.value}).encode()
        head = f"POST /v1/telemetry HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self._bearers[key.device]}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        connection = self._idle.pop() if self._idle else await asyncio.open_connection("127.0.0.1", self._port)
        accepted = self.accepted
        connection[1].write(head.encode() + body)
        answer = (await connection[0].readuntil(b"\r\n\r\n")).decode().lower()
        await connection[0].readexactly(int(answer.partition("content-length: ")[2].split("\r\n", 1)[0]))
        self._idle.append(connection)
        status = int(answer[9:12])
        self.answers[status] += 1
        self.without_hint += status in (429, 503) and "retry-after: " not in answer
        if status == 202:
            self.ahead.append(self.accepted - accepted)
            self.accepted += 1
            self._history.acked([key])
