"""Compare the ledger with what the platform can be queried for: what is lost, what is there twice.

A reading is identified by device and time; a device never uses a time twice. `lost` = acknowledged minus stored, and
acknowledged malformed messages that are not in quarantine. `duplicates` = rows of the run minus the distinct readings
they show: a second row of a time, or a row at a time the device never sent.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any, Protocol

from simulators.ledger import Accounts, DeviceAccount
from wire import clock

_POLL_S = 0.25
_SETTLE_S = 10.0  # with nothing pending, what has not appeared for so long will not
_PARALLEL = 4
_FUTURE_NS = 3600 * clock.NS_PER_S


class Pages(Protocol):
    """The part of the platform's API that verification reads."""

    async def ledger(self) -> dict[str, int]: ...
    def points(self, device_id: str, start_ns: int, end_ns: int) -> Any: ...
    def quarantined(self, device_id: str) -> Any: ...


@dataclass(slots=True)
class Finding:
    """What was found of one device."""

    stored: int = 0  # distinct readings of the ledger that have a row
    lost: int = 0
    duplicates: int = 0
    quarantined: int = 0
    incomplete: int = 0  # rows with fewer fields than the reading had


@dataclass(slots=True)
class Verdict:
    """The sum over all devices."""

    stored: int = 0
    lost: int = 0
    duplicates: int = 0
    quarantined: int = 0
    incomplete: int = 0
    drained: bool = True  # the platform had nothing pending at the end
    lost_devices: list[str] = field(default_factory=list)


class Verifier:
    """Looks until nothing is missing, or nothing new appears while nothing is pending, or the deadline."""

    def __init__(self, pages: Pages, accounts: Accounts, deadline_s: float) -> None:
        self._pages, self._accounts = pages, accounts
        self._deadline = time.monotonic() + deadline_s
        self._findings = [Finding() for _ in accounts.devices]
        self._slots = asyncio.Semaphore(_PARALLEL)

    async def verify(self, settle_s: float = _SETTLE_S) -> Verdict:
        """Give the verdict.

        Raises:
            PlatformError: the platform cannot be asked.
        """
        is_drained = await self._wait_until_drained()
        await self._look_at(list(range(len(self._findings))))
        seen, seen_at = -1, time.monotonic()
        while missing := [index for index, finding in enumerate(self._findings) if finding.lost]:
            found = sum(finding.stored + finding.quarantined for finding in self._findings)
            if found != seen:
                seen, seen_at = found, time.monotonic()
            is_quiet = is_drained and time.monotonic() - seen_at > settle_s
            if is_quiet or time.monotonic() > self._deadline:
                break
            await asyncio.sleep(_POLL_S)
            is_drained = await self._is_drained()
            await self._look_at(missing)
        return self._sum(is_drained)

    async def _wait_until_drained(self) -> bool:
        goal = None
        while True:
            sheet = await self._pages.ledger()
            goal = sheet["accepted"] if goal is None else goal  # None: more waits than is counted for a tenant
            # Others may send all the time, and pending is never 0: enough that all accepted so far moved on.
            if sheet["pending"] == 0 or (goal is not None and sheet["stored"] + sheet["duplicates"] >= goal):
                return True
            if time.monotonic() > self._deadline:
                return False
            await asyncio.sleep(_POLL_S)

    async def _is_drained(self) -> bool:
        sheet = await self._pages.ledger()
        return sheet["pending"] == 0

    async def _look_at(self, indexes: list[int]) -> None:
        async def look(index: int) -> None:
            async with self._slots:
                self._findings[index] = await self._compare(index)

        await asyncio.gather(*(look(index) for index in indexes))

    async def _compare(self, index: int) -> Finding:
        account, device_id = self._accounts.accounts[index], self._accounts.devices[index]
        counts = await self._count_rows(index, account)
        missing = {ts for ts in account.acked if ts not in counts.times}
        finding = Finding(len(counts.times), len(missing), counts.rows - len(counts.times), 0, counts.incomplete)
        if account.malformed_sent or missing:
            finding.quarantined = await self._count_quarantined(device_id)
            finding.lost += max(0, account.malformed_acked - finding.quarantined)
        return finding

    async def _count_rows(self, index: int, account: DeviceAccount) -> _Rows:
        sent, ts_ns, start_ns = set(account.sent), self._accounts.ts_ns, self._accounts.start_ns
        earliest_ns = min(start_ns, min(sent) * ts_ns) if sent else start_ns
        latest_ns = max(clock.now_ns(), max(sent, default=0) * ts_ns)
        counts, read_time = _Rows(), _TimeReader()
        async for page in self._pages.points(self._accounts.devices[index], earliest_ns, latest_ns + _FUTURE_NS):
            for point in page:
                time_ns = read_time(point["time"])
                ts, rest = divmod(time_ns, ts_ns)
                is_ours = not rest and ts in sent
                if not is_ours and time_ns < start_ns:
                    continue  # of an earlier run with the same devices
                counts.rows += 1
                counts.incomplete += len(point["fields"]) < self._accounts.fields[index]
                if is_ours:
                    counts.times.add(ts)
        return counts

    async def _count_quarantined(self, device_id: str) -> int:
        count = 0
        async for page in self._pages.quarantined(device_id):
            count += sum(clock.parse_time(str(entry["time"])) >= self._accounts.start_ns for entry in page)
        return count

    def _sum(self, is_drained: bool) -> Verdict:
        verdict = Verdict(drained=is_drained)
        for device_id, finding in zip(self._accounts.devices, self._findings, strict=True):
            verdict.stored += finding.stored
            verdict.lost += finding.lost
            verdict.duplicates += finding.duplicates
            verdict.quarantined += finding.quarantined
            verdict.incomplete += finding.incomplete
            if finding.lost:
                verdict.lost_devices.append(device_id)
        return verdict


@dataclass(slots=True)
class _Rows:
    rows: int = 0
    incomplete: int = 0
    times: set[int] = field(default_factory=set)


class _TimeReader:
    """Read the times of a page, which lie close together: each second is parsed once."""

    def __init__(self) -> None:
        self._second, self._second_ns = "", 0

    def __call__(self, text: str) -> int:
        if len(text) != _TIME_LENGTH or text[-1] != "Z":  # not as the platform writes it, but a time all the same
            return clock.parse_time(text)
        if text[:20] != self._second:
            self._second, self._second_ns = text[:20], clock.parse_time(text[:19] + "Z")
        return self._second_ns + int(text[20:29])


_TIME_LENGTH = len("2026-01-02T03:04:05.678901234Z")
