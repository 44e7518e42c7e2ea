"""Retention: days that nobody keeps lose their file, days that only some devices keep lose the others' rows.

It works beside the writer, which waits for one short step at most. What a step leaves is whole: rows vanish for
readers all at once, and a run that is cut short is completed by the next.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import apsw

from chassis import logs
from series.embedded import days
from series.embedded.catalog import Catalog
from series.port import Expired, Term
from wire.errors import StoreUnavailable

log = logs.get(__name__)
STEP_S = 0.05  # what a writer may have to wait for
FIRST_MINUTES = 30  # of a day that the first step sweeps; the next ones as many as take STEP_S
LEAVING_STEP = 10_000  # series that one step hides
LATEST_STEP = 1_000  # series whose latest values one step looks at: about 10 ms
GONE_STEP = 500  # series that one step may drop from the catalog
COMPACT_FROM = 4  # a day is compacted when at least one of so many series left it


class Place(NamedTuple):
    """Where points are; the lock is that of the writer."""

    folder: Path
    catalog: Catalog
    days: days.OpenDays
    exclusive: Callable[[], AbstractContextManager[None]]


class Expiry:
    """One run of retention; for one thread."""

    def __init__(self, place: Place, today: int, default_days: int | None) -> None:
        self._place = place
        self._today = today
        self._default = default_days
        self._kept: dict[int, int] = {}  # series -> days
        self._newest = 0  # series that came later are left for the next run: `kept` may not know their devices

    def run(self, kept: Iterable[Term]) -> Iterator[Expired]:
        """Remove step by step; each yield is a moment to rest."""
        self._newest = self._place.catalog.last_sid()
        for each in kept:
            self._kept |= dict.fromkeys(self._place.catalog.sids_of(each.device, each.tenant), each.days)
        spans = set(self._kept.values()) | ({self._default} if self._default is not None else set())
        if not spans:
            return
        has_removed = False
        for day in days.list_days(self._place.folder):
            if day < self._today - min(spans):
                for expired in self._expire_day(day):
                    has_removed |= expired != Expired()
                    yield expired
        if has_removed:
            yield from self._expire_catalog()

    def _first_ns(self, sid: int) -> int | None:
        """Begin of what is kept of a series; None: of all time."""
        span = self._kept.get(sid, self._default)
        return None if span is None or sid > self._newest else (self._today - span) * days.DAY_NS

    def _leaves(self, sid: int, day: int) -> bool:
        first_ns = self._first_ns(sid)
        return first_ns is not None and day * days.DAY_NS < first_ns

    def _expire_day(self, day: int) -> Iterator[Expired]:
        try:
            present, has_leaving = days.look(self._place.folder, day)
        except apsw.Error as error:
            log.warning("retention_skips_day", day=day, error=str(error))
            return
        gone = {sid for sid in present if self._leaves(sid, day)}
        if gone == present and self._drop(day):
            yield Expired(files=1)
        elif gone or has_leaving:
            yield from self._sweep(day, gone)
            if len(gone) * COMPACT_FROM >= len(present):
                self._compact(day)
        yield Expired()

    def _drop(self, day: int) -> bool:
        with self._place.exclusive():
            if any(not self._leaves(sid, day) for sid in self._place.days.get(day).list_present()):
                return False  # late data came
            self._place.days.drop(day)
            return True

    def _sweep(self, day: int, gone: set[int]) -> Iterator[Expired]:
        listed = sorted(gone)
        for start in range(0, len(listed), LEAVING_STEP):
            with self._place.exclusive():
                self._place.days.get(day).let_go(listed[start : start + LEAVING_STEP])
        low, minutes = 0, FIRST_MINUTES
        while low < days.BUCKETS_PER_DAY:
            begun_s = time.monotonic()
            with self._place.exclusive():
                rows = self._place.days.get(day).sweep(low, low + minutes - 1)
            low, took_s = low + minutes, time.monotonic() - begun_s
            minutes = max(1, minutes // 2) if took_s > STEP_S else minutes * 2 if took_s < STEP_S / 2 else minutes
            yield Expired(rows=rows)
        with self._place.exclusive():
            self._place.days.get(day).forget_leaving()

    def _compact(self, day: int) -> None:
        try:
            days.compact(self._place.folder, day)
        except apsw.Error as error:  # the day goes on as it is
            log.warning("day_not_compacted", day=day, error=str(error))

    def _expire_catalog(self) -> Iterator[Expired]:
        last: int | None = 0
        while last is not None:
            with self._place.exclusive():
                last = self._place.catalog.expire_latest(self._first_ns, last, LATEST_STEP)
            yield Expired()
        gone = sorted(self._absent())
        for start in range(0, len(gone), GONE_STEP):
            self._drop_series(gone[start : start + GONE_STEP])
            yield Expired()

    def _absent(self) -> set[int]:
        """Series that no day has; the newest days are looked at first, since they have nearly all."""
        left = {sid for sid in self._place.catalog.list_sids() if sid <= self._newest}
        for day in reversed(days.list_days(self._place.folder)):
            if not left:
                break
            left -= self._look(day)
        return left

    def _look(self, day: int) -> set[int]:
        """Give the series of a day; what cannot be read may have any of them, so it ends the run."""
        try:
            return days.look(self._place.folder, day)[0]
        except apsw.SQLError:  # a file that was only just made
            return set()
        except apsw.Error as error:
            raise StoreUnavailable(f"day {day} cannot be read: {error}") from error

    def _drop_series(self, gone: list[int]) -> None:
        """Drop those that still no day has: under the lock nobody brings one back."""
        with self._place.exclusive():
            left = set(gone)
            for day in days.list_days(self._place.folder):
                left -= days.present_among(self._place.folder, day, gone)
            self._place.catalog.drop(left)
