"""Measure from outside how long a reading takes from its publication until a query shows it.

Sampled: one reading at a time, of whichever device sent last; the latest-value query of that device is repeated until
it shows that time or a newer one. A figure is therefore too high by at most one polling interval and one query.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from simulators.faults import LATE_MS
from simulators.journal import Journal
from simulators.outbox import Outgoing
from simulators.platform_api import PlatformApi, PlatformError
from simulators.stats import Durations
from wire import clock

_EVERY_S = 0.2
_POLL_S = 0.02
_GIVE_UP_S = 30.0


class Probe:
    """Samples until cancelled."""

    def __init__(self, api: PlatformApi, journal: Journal, device_ids: Mapping[int, str], ts_ns: int) -> None:
        self._api, self._journal, self._device_ids, self._ts_ns = api, journal, device_ids, ts_ns
        self.visible_ms = Durations()

    async def run(self) -> None:
        """Take samples for as long as readings are sent."""
        seen: Outgoing | None = None
        while True:
            await asyncio.sleep(_EVERY_S)
            sample = self._journal.last_good
            if sample is None or sample is seen or self._is_late(sample):
                continue  # a late reading never becomes the latest
            seen = sample
            try:
                await self._follow(sample)
            except PlatformError:
                self._journal.error("probe")

    async def _follow(self, sample: Outgoing) -> None:
        device_id, sent_ns = self._device_ids[sample.device], sample.ts * self._ts_ns
        while time.monotonic() - sample.sent_at < _GIVE_UP_S:
            newest = await self._api.latest_time(device_id)
            if newest is not None and clock.parse_time(newest) >= sent_ns:
                self.visible_ms.add((time.monotonic() - sample.sent_at) * 1000)
                return
            await asyncio.sleep(_POLL_S)
        self._journal.error("not_visible")

    def _is_late(self, sample: Outgoing) -> bool:
        return clock.now_ns() - sample.ts * self._ts_ns > LATE_MS * clock.NS_PER_MS // 2
