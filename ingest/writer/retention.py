"""Retention: asks the registry which devices are kept how long, and has the store remove the rest.

While the registry is away nothing is removed: a device might be kept for longer than the installation's default.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol
from urllib.parse import quote

from chassis import logs
from chassis.metrics import Counter, Gauge
from chassis.peers import Peer
from series.port import Expired, Term
from wire import clock
from wire.errors import HeadwaterError, Unavailable
from wire.retention import TermPage

log = logs.get(__name__)
TURN_S = 3_600.0
AGAIN_S = 60.0  # when the registry or the store was away
IDLE = 4  # times as long as a step took it rests: beside telemetry it takes a fifth of a core at most
LEAST_REST_S = 0.001
FILES = Counter("headwater_writer_expired_files", "Day files dropped because their retention was over")
ROWS = Counter("headwater_writer_expired_rows", "Rows removed from day files because their device's retention was over")
DONE = Gauge("headwater_writer_retention_time_seconds", "When retention was applied to the end last, since the epoch",
             multiprocess_mode="livemax")  # fmt: skip


class Store(Protocol):
    """What is stored; see `series.port.SeriesWriter`."""

    def expire(self, now_ns: int, kept: Iterable[Term] = ()) -> Iterator[Expired]: ...


class Retention:
    """Applies retention; used by one thread."""

    def __init__(
        self,
        registry: Peer | None,
        store: Store,
        stopping: threading.Event,
        *,
        now_ns: Callable[[], int] = clock.now_ns,
    ) -> None:
        """`registry` None: there are no types, and the store's own retention holds for all."""
        self._registry = registry
        self._store = store
        self._stopping = stopping
        self._now_ns = now_ns
        self._waits = False

    def apply(self) -> float:
        """Remove what is too old; gives after how many seconds to do it again."""
        files = rows = 0
        try:
            for expired, took_s in _timed(self._store.expire(self._now_ns(), self._terms())):
                files, rows = files + expired.files, rows + expired.rows
                FILES.inc(expired.files)
                ROWS.inc(expired.rows)
                if self._stopping.wait(max(LEAST_REST_S, IDLE * took_s)):
                    return 0.0
        except (HeadwaterError, Unavailable) as error:
            say = log.warning if self._waits else log.info  # once is usual: at a start, this may be ready first
            say("retention_waits", why=error.detail)
            self._waits = True
            return AGAIN_S
        self._waits = False
        DONE.set(self._now_ns() / clock.NS_PER_S)
        log.info("retention_applied", files=files, rows=rows)
        return TURN_S

    def _terms(self) -> Iterator[Term]:
        after: str | None = ""
        while self._registry is not None and after is not None:
            answer = self._registry.call("GET", f"/internal/retention?cursor={quote(after)}")
            page = TermPage.model_validate(answer)
            yield from (Term(each.tenant, each.device, each.days) for each in page.items)
            after = page.next


def _timed(steps: Iterator[Expired]) -> Iterator[tuple[Expired, float]]:
    """Give each step with the seconds it took."""
    while True:
        begun_s = time.monotonic()
        step = next(steps, None)
        if step is None:
            return
        yield step, time.monotonic() - begun_s
