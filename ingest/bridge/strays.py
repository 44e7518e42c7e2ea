"""Tells of messages that nobody has claimed, in the log and in a metric. They go on, and end in the quarantine."""

from __future__ import annotations

import time

from chassis import logs
from ingest.bridge.arrivals import Arrivals
from ingest.bridge.metrics import UNCLAIMED

log = logs.get(__name__)
SAY_S = 10.0  # between two lines of the log
MAX_TOPIC = 200


class Strays:
    """Used by one thread."""

    def __init__(self) -> None:
        self._untold = 0
        self._next_s = 0.0

    def tell(self, arrivals: Arrivals) -> None:
        """Count what came since the last call."""
        count, arrivals.unclaimed = arrivals.unclaimed, 0
        self._untold += count
        if count:
            UNCLAIMED.inc(count)
        if self._untold and time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + SAY_S
            log.warning("messages_unclaimed", messages=self._untold, last_topic=arrivals.unclaimed_topic[:MAX_TOPIC])
            self._untold = 0
