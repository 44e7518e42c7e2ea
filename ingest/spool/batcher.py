"""Group commit: many requests, one write and one fdatasync at a time. Knows the spool, no HTTP.

The first request that finds nobody committing leads: it commits all that is queued, its own included, and hands the
lead to the next that waits. A lone request so pays no thread switch. A request on an event loop may not block it
for long: it leads at the end of the loop's turn where the disk is quick, else a thread leads in its place.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from chassis import logs, parking
from chassis.metrics import Counter, Histogram
from ingest.readings import Reading
from ingest.spool import frames
from wire.errors import RetryLater, Unavailable

log = logs.get(__name__)
QUEUE_BYTES = 32 * 1024 * 1024  # what may wait: at 100 MB/s of disk, a third of a second
GROUP_BYTES = 8 * 1024 * 1024  # what one commit takes: bounds its time and what a full disk refuses at once
QUICK_S = 0.003  # a last commit below this, of few bytes, means that the next may hold up an event loop
QUICK_BYTES = 256 * 1024
WAIT_S = 10.0  # a request that waits longer answers 503: gateway and bridge give up at about that time
GROUPS = Histogram(
    "headwater_batcher_group_requests",
    "Requests that shared one write and fdatasync",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500),
)
REFUSED = Counter("headwater_batcher_refusals", "Appends that did not get to the spool", ["reason"])


class Log(Protocol):
    """What commits go to: `ingest.spool.segments.Spool`."""

    @property
    def number(self) -> int: ...
    def size_bytes(self) -> int: ...
    def commit(self, bodies: Sequence[frames.Body]) -> None: ...
    def close(self) -> None: ...


class _Ticket:
    """One waiting append. `event` is set when it is done or when it shall lead."""

    __slots__ = ("bodies", "error", "event", "is_done", "leads", "loop", "size")

    def __init__(self, bodies: list[frames.Body], size: int) -> None:
        self.bodies = bodies
        self.size = size
        self.event = parking.waiter()
        self.loop = parking.loop()
        self.is_done = self.leads = False
        self.error: Exception | None = None


class GroupCommit:
    """Appends to a spool from any thread; returning means durable."""

    def __init__(self, spool: Log, *, queue_bytes: int = QUEUE_BYTES) -> None:
        self._spool = spool
        self._queue_bytes = queue_bytes
        # Guards _queue, _waiting_bytes, _has_leader, _is_closed and every ticket's `leads`.
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._queue: list[_Ticket] = []
        self._waiting_bytes = 0
        self._has_leader = False
        self._is_closed = self._is_quick = False
        self._substitute = ThreadPoolExecutor(1, "spool-commit")  # leads for requests on an event loop

    def append(self, readings: Sequence[Reading]) -> None:
        """Keep the readings; blocks until they are durable. On any error nothing of them counts as kept.

        Raises:
            SpoolFull: no room on disk.
            Unavailable: the queue is full, the disk does not answer, or the spool is closed.
            TooLarge: a single reading is too large for a frame.
        """
        if not readings:
            return
        bodies = list(frames.encode(readings))
        ticket = _Ticket(bodies, sum(len(body.content) + frames.HEADER_BYTES for body in bodies))
        self._enter(ticket)
        if not ticket.leads:
            ticket.event.wait(WAIT_S)
        if not ticket.is_done:
            self._lead_or_leave(ticket)
        if ticket.error is not None:
            raise _own_copy(ticket.error) from ticket.error

    def accepted(self) -> int:
        """Readings that this slot ever accepted."""
        return self._spool.number

    def size_bytes(self) -> int:
        """Bytes of this slot on disk."""
        return self._spool.size_bytes()

    def close(self) -> None:
        """Refuse new appends, let those that wait finish, release the slot."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            is_idle = self._idle.wait_for(lambda: not self._has_leader, WAIT_S)
        self._substitute.shutdown(wait=is_idle)
        if is_idle:  # else a commit still writes to its files: they go with the process, which ends now
            self._spool.close()

    def _enter(self, ticket: _Ticket) -> None:
        with self._lock:
            if self._is_closed:
                raise Unavailable("the spool is closed")
            if self._queue and self._waiting_bytes + ticket.size > self._queue_bytes:
                REFUSED.labels("queue").inc()
                raise Unavailable(f"{self._waiting_bytes} bytes wait for the spool, limit {self._queue_bytes}")
            self._queue.append(ticket)
            self._waiting_bytes += ticket.size
            if not self._has_leader:
                self._has_leader = True
                self._appoint(ticket)

    def _lead_or_leave(self, ticket: _Ticket) -> None:
        with self._lock:
            if not ticket.leads and not ticket.is_done:
                # Taken already: it may still become durable, which the contract allows (kept, not acknowledged).
                if ticket in self._queue:
                    self._queue.remove(ticket)
                    self._waiting_bytes -= ticket.size
                REFUSED.labels("timeout").inc()
                raise Unavailable(f"the spool did not answer within {WAIT_S:.0f} s")
        if ticket.leads:
            self._lead()

    def _lead(self) -> None:
        group = self._take()
        error: Exception | None = Unavailable("the commit was broken off")
        try:
            if group:
                GROUPS.observe(len(group))
                began_s = time.monotonic()
                self._spool.commit([body for ticket in group for body in ticket.bodies])
                self._is_quick = time.monotonic() - began_s < QUICK_S
            error = None
        except RetryLater as refusal:
            error = refusal
        except Exception as failure:
            log.fault("spool_commit_failed")
            error = failure
        finally:  # whatever happens here, nobody may be left waiting
            for ticket in group:
                ticket.error = error
                ticket.is_done = True
                ticket.event.set()
            self._hand_over()

    def _take(self) -> list[_Ticket]:
        """Take the oldest tickets; the leader's own is the first of them, a substitute's may have left."""
        with self._lock:
            size = count = 0
            for ticket in self._queue:
                if count and size + ticket.size > GROUP_BYTES:
                    break
                size += ticket.size
                count += 1
            group, self._queue = self._queue[:count], self._queue[count:]
            self._waiting_bytes -= size
            return group

    def _hand_over(self) -> None:
        with self._lock:
            if self._queue:
                self._appoint(self._queue[0])
            else:
                self._has_leader = False
                self._idle.notify_all()

    def _appoint(self, ticket: _Ticket) -> None:
        """Make somebody lead, for this ticket and all behind it; _lock is held."""
        if ticket.loop is None:
            ticket.leads = True
            ticket.event.set()
        elif self._is_quick and self._waiting_bytes <= QUICK_BYTES:
            ticket.loop.soon(self._lead)
        else:
            self._substitute.submit(self._lead)


def _own_copy(error: Exception) -> Exception:
    """Give each waiting thread an exception of its own: a shared one would collect all their tracebacks."""
    if isinstance(error, RetryLater):
        return type(error)(error.detail, retry_after_s=error.retry_after_s, code=error.code)
    return Unavailable(f"the spool failed: {type(error).__name__}")
