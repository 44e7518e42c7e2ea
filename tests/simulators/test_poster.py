"""A device on HTTP: what is not kept is posted again, what is refused is not."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from simulators.dice import Dice
from simulators.http import parse_url
from simulators.outbox import Login, Outgoing
from simulators.poster import HttpSender, HttpSettings
from tests.simulators.fakes import Books, FakePlatform, message, until


def reading(seq: int) -> Outgoing:
    return message(seq, json.dumps({"ts": 1_700_000_000_000 + seq, "boot_id": "b", "seq": seq, "values": {"t": 1.5}}))


@asynccontextmanager
async def posting(platform: FakePlatform, books: Books, **settings: Any) -> AsyncIterator[HttpSender]:
    platform.devices.setdefault("d1", "s1")
    sender = HttpSender(HttpSettings(parse_url(platform.url), **settings), Login("d1", "s1", "d1.s1"), books, Dice("1"))
    tasks: list[asyncio.Task[None]] = []
    sender.start(lambda work: tasks.append(asyncio.create_task(work)), lambda: None)
    try:
        yield sender
    finally:
        sender.close()
        await asyncio.gather(*tasks)
        assert sender.is_done


def post(platform: FakePlatform, books: Books, messages: list[Outgoing], **settings: Any) -> None:
    async def scene() -> None:
        async with posting(platform, books, **settings) as sender:
            for each in messages:
                sender.offer(each)
            sender.flush()
            await until(lambda: sender.backlog == 0)

    asyncio.run(scene())


def test_readings_are_posted_in_order_over_one_connection(platform: FakePlatform) -> None:
    books = Books()

    post(platform, books, [reading(seq) for seq in range(20)])

    assert books.acked_seqs == list(range(20))
    assert len(platform.rows["d1"]) == 20
    assert (platform.posts, platform.connections) == (20, 1)


@pytest.mark.parametrize(("batch", "posts"), [(10, 3), (25, 1), (100, 1)])
def test_batches_go_as_lines(platform: FakePlatform, batch: int, posts: int) -> None:
    books = Books()

    post(platform, books, [reading(seq) for seq in range(25)], batch=batch)

    assert books.acked_seqs == list(range(25))
    assert platform.posts == posts


def test_broken_connections_cost_nothing(platform: FakePlatform) -> None:
    books = Books()
    platform.answers = [(0, {}), (502, {})]

    post(platform, books, [reading(seq) for seq in range(5)])

    assert books.acked_seqs == books.sent_seqs == list(range(5))
    assert books.errors == {"connect": 1, "resent": 2, "http_502": 1}


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_heeded(platform: FakePlatform, status: int) -> None:
    books = Books()
    platform.answers = [(status, {"Retry-After": "1"})]
    start = time.monotonic()

    post(platform, books, [reading(1)])

    assert time.monotonic() - start >= 1.0
    assert books.acked_seqs == [1]
    assert books.errors == {f"http_{status}": 1, "resent": 1}


def test_refused_reading_is_not_posted_again(platform: FakePlatform) -> None:
    books = Books()
    platform.answers = [(413, {})]

    post(platform, books, [reading(1), reading(2)])

    assert books.refused_seqs == [1]
    assert books.acked_seqs == [2]
    assert platform.posts == 2


def test_quarantined_readings_are_told_apart(platform: FakePlatform) -> None:
    books = Books()

    post(platform, books, [reading(1), message(2, "not json"), reading(3)], batch=3)
    post(platform, books, [message(4, "not json")])

    assert books.acked_seqs == [1, 2, 3, 4]
    assert books.quarantined_seqs == [2, 4]


def test_fresh_credential_is_tried_until_it_is_known(platform: FakePlatform) -> None:
    books = Books()
    platform.answers = [(401, {}), (401, {})]

    post(platform, books, [reading(1)])

    assert books.acked_seqs == [1]
    assert not books.refused_seqs


def test_sender_closes_while_the_platform_is_away(platform: FakePlatform) -> None:
    books = Books()
    platform.answers = [(503, {})] * 1000

    async def scene() -> int:
        async with posting(platform, books) as sender:
            sender.offer(reading(1))
            await until(lambda: books.errors["http_503"] > 0)
        return sender.backlog

    assert asyncio.run(scene()) == 1
    assert not books.acked_seqs
