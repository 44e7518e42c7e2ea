"""An operator beside a simulated fleet: sends commands and desired states at rates of their own, device by device."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import count, cycle

from simulators.control import ControlBook
from simulators.platform_api import PlatformApi, PlatformError

MAX_OPEN = 64  # requests that have no answer yet
_WATCH_S = 0.05


@dataclass(frozen=True, slots=True)
class Orders:
    """What is sent to a fleet, a second in all."""

    commands_hz: float = 0.0
    desired_hz: float = 0.0
    deadline_s: float = 30.0

    def share(self, parts: int) -> Orders:
        """Give what one of several processes sends."""
        return Orders(self.commands_hz / parts, self.desired_hz / parts, self.deadline_s)


class Commander:
    """Sends to the devices of one process until cancelled."""

    def __init__(self, api: PlatformApi, orders: Orders, book: ControlBook) -> None:
        self._api, self._orders, self._book = api, orders, book
        self._open: set[asyncio.Task[None]] = set()

    async def run(self, commanded: Sequence[str], twinned: Sequence[str]) -> None:
        """Send commands to those devices that answer some, desired states to those that have a twin."""
        orders = self._orders
        await asyncio.gather(
            self._repeat(orders.commands_hz, commanded, self._command),
            self._repeat(orders.desired_hz, twinned, self._desire),
        )

    async def settle(self, deadline_s: float) -> None:
        """Wait until every command has come to its device, as far as its own deadline and this one allow."""
        if self._open:
            await asyncio.wait(self._open, timeout=deadline_s)
        deadline = time.monotonic() + min(deadline_s, self._orders.deadline_s)
        while self._book.unheard() and time.monotonic() < deadline:  # noqa: ASYNC110 - looked at, not told
            await asyncio.sleep(_WATCH_S)

    async def _repeat(self, hz: float, devices: Sequence[str], send: Callable[[str, int], Awaitable[None]]) -> None:
        if not hz or not devices:
            return
        start = time.monotonic()
        for number, device in zip(count(1), cycle(devices), strict=False):
            await asyncio.sleep(max(0.0, start + number / hz - time.monotonic()))
            while len(self._open) >= MAX_OPEN:
                await asyncio.wait(self._open, return_when=asyncio.FIRST_COMPLETED)
            task = asyncio.create_task(self._try(send, device, number), name="order")
            self._open.add(task)
            task.add_done_callback(self._open.discard)

    async def _try(self, send: Callable[[str, int], Awaitable[None]], device: str, number: int) -> None:
        try:
            await send(device, number)
        except PlatformError:
            self._book.counts["commands.refused" if send == self._command else "twin.refused"] += 1

    async def _command(self, device: str, number: int) -> None:
        began = time.monotonic()
        command = await self._api.send_command(device, number, self._orders.deadline_s)
        self._book.counts["commands.sent"] += 1
        self._book.asked[command] = began

    async def _desire(self, device: str, number: int) -> None:
        await self._api.desire(device, {"interval": number})
        self._book.counts["twin.sent"] += 1
