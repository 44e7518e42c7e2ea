"""The writing half of the embedded engine: batches into day files, then the latest values. Knows no SQL.

Order of a batch: new numbers into the catalog, rows into the day files, latest values into the catalog; each step is
durable before the next begins, and doing it all again changes nothing. So a crash anywhere leaves a batch that was
not acknowledged at most half visible, and writing it again completes it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import apsw

from series.embedded import days
from series.embedded.batch import Batch
from series.embedded.catalog import Catalog
from series.embedded.expiry import Expiry, Place
from series.embedded.lock import WriterLock
from series.port import Capabilities, Expired, Term, WriteOutcome
from wire.errors import StoreUnavailable
from wire.points import PointLike

MATCHED_DAYS = 30  # a millisecond each
UPKEEP_TIMEOUT_S = 30.0  # for the lock, when dropping or deleting


class EmbeddedWriter:
    """SeriesWriter over a folder. Thread-safe; several processes may write, one batch at a time."""

    capabilities = Capabilities()

    def __init__(self, folder: Path, *, retention_days: int | None = None) -> None:
        """Open or create the folder and its catalog.

        Raises:
            StoreUnavailable: they cannot be opened or made.
        """
        self._folder = folder
        self._retention_days = retention_days
        self._fault = ""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = WriterLock(folder / "writer.lock")
            self._catalog = Catalog(folder)
        except (apsw.Error, OSError) as error:
            raise StoreUnavailable(f"the store at {folder} cannot be opened: {error}") from error
        self._days = days.OpenDays(folder)
        self._match()

    def write(self, points: Sequence[PointLike], *, timeout_s: float = 10.0) -> WriteOutcome:
        """Store a batch durably; `timeout_s` bounds the wait for another writer."""
        with self._exclusive(timeout_s):
            batch = Batch(self._catalog)
            batch.add_all(points)
            self._catalog.flush()
            for day, forms, sids in batch.by_day():
                self._days.get(day).upsert(forms, sids)
            self._catalog.move_latest(batch.moves())
        return WriteOutcome(batch.accepted, batch.refused)

    def expire(self, now_ns: int, kept: Iterable[Term] = ()) -> Iterator[Expired]:
        """Drop day files and rows whose retention is over, and what the catalog knows only from them."""
        place = Place(self._folder, self._catalog, self._days, partial(self._exclusive, UPKEEP_TIMEOUT_S))
        return Expiry(place, days.day_of(now_ns), self._retention_days).run(kept)

    def delete(self, device: str, *, tenant: str = "default") -> None:
        """Remove a device's points, types and latest values; doing it again completes one that was cut short."""
        with self._exclusive(UPKEEP_TIMEOUT_S):
            sids = self._catalog.sids_of(device, tenant)
            if not sids:
                return
            for day in days.list_days(self._folder):
                self._days.get(day).delete(sids)
            self._catalog.drop(sids)

    def health(self) -> str:
        """Tell the fault of the last write, until one succeeds, or that the folder cannot be written."""
        if self._fault:
            return self._fault
        if not os.access(self._folder, os.W_OK | os.X_OK):
            return f"the folder {self._folder} cannot be written"
        return "ok"

    def close(self) -> None:
        """Close all files."""
        self._days.close()
        self._catalog.close()
        self._lock.close()

    def _match(self) -> None:
        """Refuse a catalog that does not know the series of the newest days: it would give their numbers to others."""
        newest = days.list_days(self._folder)[-MATCHED_DAYS:]
        highest = max(
            (days.last_sid(self._folder, day) for day in newest), default=0
        )  # before the catalog: it is ahead
        if highest > (known := self._catalog.last_sid()):
            self.close()
            raise StoreUnavailable(
                f"the catalog.db in {self._folder} is not that of the days beside it: it knows {known} series, they"
                f" have number {highest}; put the right one back"
            )

    @contextmanager
    def _exclusive(self, timeout_s: float) -> Iterator[None]:
        with self._lock.held(timeout_s):
            try:
                self._catalog.refresh()
                yield
            except (apsw.Error, OSError) as error:
                self._start_afresh()
                self._fault = f"the store at {self._folder} cannot be written: {error}"
                raise StoreUnavailable(self._fault) from error
            except BaseException:
                self._start_afresh()
                raise
            self._fault = ""

    def _start_afresh(self) -> None:
        """After a write that failed half way, memory may be ahead of the files."""
        self._catalog.forget()
        with suppress(apsw.Error, OSError):
            self._days.close()
