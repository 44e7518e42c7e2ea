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
from pathlib import Path

import pytest
import simple_websocket

from tests.faults.checker.api import BROKEN, Door
from tests.faults.checker.probe import Probe, percentile
from tests.faults.flood import Flood
from tests.faults.rig import Site
from tests.faults.test_poison import ask_for_feed, frame, open_feed
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.faults, pytest.mark.alone]
POSTS = 50_000 if os.environ.get("HEADWATER_TEST_LONG") else 6_000
IN_SERVICE = 256  # telemetry requests that wait at once, as docs/delivery.md says
GOODPUT = 1 / 3  # of what is accepted without overload, the load's own work on the same cores included
READERS = 100
BACKLOG = 10_000


def test_ten_times_what_can_be_answered_costs_neither_goodput_nor_control(site: Site) -> None:
    """The ladder: refused early and told when to come again, queues bounded, operators and commands answered."""
    restarts = site.restarts()
    steady, run = site.run("steady").start(), site.run("flood")
    flood = Flood(site, run.history, POSTS)

    asyncio.run(flood.rise())

    told = flood.answers[429] + flood.answers[503]
    behind = percentile(flood.ahead, 50)
    print(
        f"capacity {flood.capacity:.0f}/s, offered {flood.offered:.0f}/s, accepted {flood.goodput:.0f}/s;"
        f" {dict(flood.answers)}, {behind:.0f} ahead, control {dict(flood.control)}"
    )
    assert set(flood.answers) <= {202, 429, 503}, flood.answers
    assert told > 0
    assert flood.without_hint == 0, "who is sent away is told when to come again"
    assert flood.goodput > GOODPUT * flood.capacity
    assert behind <= 1.5 * IN_SERVICE, "a post waits behind more than the service may hold"
    assert set(flood.control) == {200, 204}, "telemetry takes no place of control"
    steady.check()
    found = run.finish()
    assert found.is_clean, found
    assert found.acked == flood.accepted
    assert site.restarts() == restarts


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


def test_viewers_are_shed_before_any_reading(site: Site) -> None:
    """A backlog that the writer takes at once: all of it is stored, a viewer gets the newest and not all between."""
    device = site.installation.add_device(f"viewed-{time.time_ns()}")
    before = site.installation.settle()["stored"]
    viewer = simple_websocket.Client(
        site.installation.url.replace("http", "ws") + "/v1/feed",
        headers={"Authorization": f"Bearer {site.installation.token}"},
    )
    viewer.send(json.dumps({"subscribe": {"devices": [device.id]}}))
    answers, began_ms = set(), time.time_ns() // 1_000_000 - BACKLOG
    with site.frozen("writer"):
        for start in range(0, BACKLOG, 1_000):
            lines = "\n".join(json.dumps({"ts": began_ms + n, "n": n}) for n in range(start, start + 1_000))
            answers.add(site.installation.post(device, lines.encode(), Content_Type="application/x-ndjson").status)
    shown: list[int] = []
    while BACKLOG - 1 not in shown:
        frame = viewer.receive(timeout=30)
        assert frame is not None, "the newest value is shown"
        shown += [point["fields"]["n"] for point in json.loads(frame)["points"]]
    viewer.close()

    assert answers == {202}
    assert site.installation.settle()["stored"] - before == BACKLOG
    assert len(shown) < BACKLOG / 2


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
