"""How many messages are on their way to the ingestion service, and whose turn it is when there is no room."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from ingest.thingsboard.uplink import Window


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 10))


async def turns() -> None:
    """Let all tasks run that can."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_large_message_has_its_turn_before_smaller_ones_that_came_later() -> None:
    async def work() -> None:
        window, had = Window(10, 100), list[int]()

        async def take(size: int) -> None:
            await window.take(size)
            had.append(size)

        await take(90)
        waiting = [asyncio.create_task(take(size)) for size in (95, 5)]
        await turns()
        waited = list(had)
        window.give(90)
        await asyncio.gather(*waiting)

        assert (waited, had) == ([90], [90, 95, 5])

    run(work)


def test_room_of_a_large_message_is_for_all_that_fit() -> None:
    async def work() -> None:
        window = Window(10, 100)
        await window.take(100)
        waiting = [asyncio.create_task(window.take(20)) for _ in range(5)]
        await turns()

        window.give(100)
        await asyncio.gather(*waiting)

        assert window.messages == 5

    run(work)


def test_who_gives_up_waiting_holds_nothing_and_nobody_up() -> None:
    async def work() -> None:
        window = Window(2, 100)
        await window.take(60)
        large, small = (asyncio.create_task(window.take(size)) for size in (90, 30))
        await turns()
        large.cancel()
        await small
        had_its_turn = asyncio.create_task(window.take(1))
        await turns()
        window.give(60)
        had_its_turn.cancel()
        await turns()

        assert window.messages == 1
        window.give(30)
        assert window.messages == 0

    run(work)
