"""F13-F15: more posts than can be answered, viewers that never read, too little memory: refused early, nothing lost."""

from __future__ import annotations

import json
import os
import resource
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.checker.api import BROKEN, Door
from tests.faults.checker.history import History, Key
from tests.faults.checker.probe import Probe, percentile
from tests.faults.rig import Site
from tests.faults.test_poison import frame, open_feed
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.faults]
POSTS, CALLERS = (50_000, 200) if os.environ.get("HEADWATER_TEST_LONG") else (4_000, 100)
READERS = 100


class Flood:
    """Callers that post as fast as they are answered and do not repeat what was refused."""

    def __init__(self, site: Site, history: History, callers: int, posts: int) -> None:
        self.answers: Counter[int] = Counter()
        self.without_hint = 0  # of those that say "later": how many do not say when
        self._history = history
        name = f"flood-{time.time_ns()}"
        self._bearer = site.door.register(name)["bearer"]
        keys = [Key(name, "boot", seq) for seq in range(posts)]
        history.sent(keys, 0)
        self._left = iter(keys)
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._call, args=(site.installation.url,)) for _ in range(callers)]

    def run(self) -> Counter[int]:
        for thread in self._threads:
            thread.start()
        for thread in self._threads:
            thread.join()
        return self.answers

    def _next(self) -> Iterator[Key]:
        while True:
            with self._lock:
                key = next(self._left, None)
            if key is None:
                return
            yield key

    def _call(self, url: str) -> None:
        door = Door(url, self._bearer, timeout_s=30)
        for key in self._next():
            reading = {"boot_id": key.boot, "seq": key.seq, "b": key.boot, "n": key.seq, "v": key.value}
            try:
                status, _, headers = door.call("POST", "/v1/telemetry", json.dumps(reading).encode())
            except BROKEN:
                status, headers = 0, {}
            if status == 202:
                self._history.acked([key])
            with self._lock:
                self.answers[status] += 1
                self.without_hint += status in (429, 503) and not int(headers.get("Retry-After", 0))
        door.close()


def test_more_posts_than_can_be_answered_lose_nothing(site: Site) -> None:
    restarts = site.restarts()
    steady, history = site.run("steady").start(), site.run("flood")
    flood = Flood(site, history.history, CALLERS, POSTS)

    answers = flood.run()

    print(dict(answers))
    assert set(answers) <= {202, 429, 503}, answers
    assert answers[202] > 0
    assert flood.without_hint == 0
    assert history.finish().is_clean
    steady.check()
    assert site.restarts() == restarts


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
    workers = site.family("ingest-json")[1:]
    run = site.run("poor").start(mqtt=2, http=2)
    for pid in workers:
        limit = address_space(pid) + 8 * 1024 * 1024
        resource.prlimit(pid, resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    device = site.installation.add_device("heavy")
    answers = Counter(weigh(site, device.bearer))
    print(dict(answers))
    for pid in workers:
        if Path(f"/proc/{pid}").exists():
            resource.prlimit(pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    run.wait_acked(40)

    run.check()


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
