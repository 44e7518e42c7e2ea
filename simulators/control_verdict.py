"""Compare what devices were told and said with the commands that the platform shows, and sum it up for the report."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from simulators.conditions import CONTROL
from simulators.control import ControlBook

_POLL_S = 0.5
_FINAL = frozenset({"succeeded", "failed"})
Pages = Callable[[], AsyncIterator[list[dict[str, Any]]]]


async def find_lost(pages: Pages, book: ControlBook, deadline_s: float) -> int:
    """Count commands that the platform took and does not show, and answers that the broker took and it does not show.

    Args:
        pages: gives the platform's commands, newest first.
        book: what was sent, and what devices said.
        deadline_s: how long it may be behind.

    Raises:
        PlatformError: the platform cannot be asked.
    """
    deadline = time.monotonic() + deadline_s
    missing = book.asked.keys() | book.answers.keys()
    while missing:
        missing -= await _shown(pages, book, missing)
        if not missing or time.monotonic() > deadline:
            break
        await asyncio.sleep(_POLL_S)
    return len(missing)


def summary(book: ControlBook, lost: int | None = None) -> dict[str, Any]:
    """Give the members of the report; null where devices were told nothing."""
    shown: dict[str, Any] = {}
    for part, names in CONTROL.items():
        counts = {name: book.counts[f"{part}.{name}"] for name in names}
        shown[part] = counts if any(counts.values()) else None
    if shown["commands"] is not None:
        shown["commands"]["lost"] = lost
    return shown | {"command_ms": book.command_ms().summary()}


async def _shown(pages: Pages, book: ControlBook, wanted: set[str]) -> set[str]:
    """Give those of the wanted commands that the platform shows as they should be."""
    found: set[str] = set()
    seen = 0
    async for page in pages():
        for command in page:
            if command["id"] in wanted:
                seen += 1
                found.update([command["id"]] if _is_right(command, book.answers.get(command["id"])) else [])
        if seen == len(wanted):
            break
    return found


def _is_right(command: dict[str, Any], said: str | None) -> bool:
    if said is None or command["state"] == said:
        return True
    # The end came before the answer: that is kept all the same. Of two answers to one command the first counts.
    return command["state"] not in _FINAL and (command["result"] is not None or command["error"] is not None)
