"""The probe of visibility measures what a query shows, and leaves late readings alone."""

from __future__ import annotations

import asyncio
import time

from simulators.faults import LATE_MS
from simulators.http import parse_url
from simulators.journal import Journal
from simulators.outbox import Outgoing
from simulators.platform_api import PlatformApi
from simulators.probe import Probe
from tests.simulators.fakes import FakePlatform, until
from wire import clock


def sent(journal: Journal, ts: int) -> Outgoing:
    outgoing = Outgoing(0, 1, ts, b"", sent_at=time.monotonic())
    journal.sent(outgoing)
    return outgoing


def test_time_until_a_query_shows_it_is_measured(platform: FakePlatform) -> None:
    journal, now_ms = Journal(), clock.now_ns() // 1_000_000

    async def scene() -> Probe:
        api = PlatformApi(parse_url(platform.url), "operator")
        probe = Probe(api, journal, {0: "d1"}, 1_000_000)
        outgoing = sent(journal, now_ms)
        task = asyncio.create_task(probe.run())
        await until(lambda: time.monotonic() - outgoing.sent_at > 0.4)
        assert probe.visible_ms.count == 0
        platform._store("d1", now_ms, {"t": 1.0})
        await until(lambda: probe.visible_ms.count == 1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        api.close()
        return probe

    longest_ms = asyncio.run(scene()).visible_ms.summary()["max"]

    assert longest_ms is not None
    assert 400 < longest_ms < 3000


def test_late_reading_is_no_sample() -> None:
    probe = Probe(PlatformApi(parse_url("http://127.0.0.1:9"), ""), Journal(), {0: "d1"}, 1_000_000)
    now_ms = clock.now_ns() // 1_000_000

    assert probe._is_late(Outgoing(0, 1, now_ms - LATE_MS, b""))
    assert not probe._is_late(Outgoing(0, 1, now_ms, b""))
