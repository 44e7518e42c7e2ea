"""One lane per ingest service: collects messages into batches, posts them one at a time, in order per device.

Knows no MQTT. A message leaves a lane only as part of a `Settled`: after a 200 with a verdict, when it is refused, or
when the connection it came over is gone and its device must wait (the broker will send it again). What waits when the
connection breaks is still posted, before all that comes over the next one: a broker that was killed may not have it
any more.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import msgspec

from chassis import logs
from chassis.backoff import Backoff
from chassis.peers import Peer
from ingest.bridge.config import Limits
from ingest.bridge.holds import Holds
from ingest.bridge.metrics import BATCHES, DEFERRED, REFUSED
from ingest.framing import Batch, Delivery, Ending, Saying, Verdict, encode_batch
from wire.errors import HeadwaterError, RetryLater

log = logs.get(__name__)
PATH = "/internal/batch"
BUSY_MESSAGES = 32  # a batch that large means load: the next one is waited for longer
SHRINK_AFTER = 4  # failures in a row before smaller batches are tried: one message may be what fails
SET_ASIDE_AFTER = 3  # failures of a batch of one before its device has to wait
OF_THE_DATA = (400, 413, 415, 422)  # answers that blame the content of a batch, not the moment or the configuration
ASK_AGAIN_S = 1.0  # after a failure
ENDS = ("quarantined", "refused", "deferred")


@dataclass(slots=True)
class Settled:
    """Messages a lane is done with; PUBACKs are due only where `epoch` is still the connection's number."""

    epoch: int
    deliveries: list[Delivery]
    endings: list[tuple[Delivery, Ending]] = field(default_factory=list)
    is_acceptable: bool = True  # False: the messages went stale and were given up
    sayings: list[Saying] = field(default_factory=list)  # of the service, to be published
    is_cut: bool = False  # those with a message id were among what `cut` gave


class Lane:
    """`put` and `cut` are called by the network thread, `run` is the lane's own thread.

    The lock of `_ready` guards _queue, _left, _holds, _in_flight, _epoch and _is_stopping.
    """

    def __init__(self, peer: Peer, bridge: str, settle: Callable[[Settled], None], limits: Limits) -> None:
        self._peer = peer
        self._bridge = self._sender = bridge
        self._settle = settle
        self._limits = limits
        self._ready = threading.Condition()
        self._queue: deque[Delivery] = deque()
        self._holds = Holds(limits)
        self._left: deque[Delivery] = deque()  # of an earlier connection, which had the number and the sender below
        self._left_epoch, self._left_sender = -1, bridge
        self._epoch = 0
        self._linger_s = limits.linger_s
        self.batches = 0  # begun; with `is_posting` a watchdog sees whether one of them never ends
        self._in_flight: tuple[int, list[Delivery]] = (0, [])
        self._is_stopping = False
        self._again_s: float | None = None  # when the service wants to be asked, if by an empty batch; monotonic
        self._size = limits.batch_messages  # messages tried at once: shrinks while batches fail
        self._failures = 0
        self._backoff = Backoff(limits.retry_first_s, limits.retry_most_s)

    def put(self, deliveries: list[Delivery]) -> None:
        """Take messages of the current connection, in receipt order."""
        with self._ready:
            was_idle = not self._queue
            self._queue.extend(deliveries)
            if was_idle or len(self._queue) >= self._size:
                self._ready.notify()

    def cut(self, epoch: int) -> list[Delivery]:
        """Begin a new connection and give the messages of the last one that are still here, in flight ones included.

        They are posted all the same and settled under their old number. While there are some of a connection before
        that, the last one's are given up instead, which bounds them: the broker sends them again. Messages of QoS 0
        stay with the new ones: nobody sends them again.
        """
        with self._ready:
            in_flight = self._in_flight[1] if self._in_flight[0] == self._epoch else []
            waiting = [*self._holds.clear(), *self._queue]
            self._queue = deque(each for each in waiting if not each.mid)
            found = [each for each in waiting if each.mid]
            if not self._left:
                self._left = deque(found)
                self._left_epoch, self._left_sender = self._epoch, self._sender
                self._ready.notify()
            self._epoch = epoch
        return [*(each for each in in_flight if each.mid), *found]

    def name_session(self, name: str) -> None:
        """Say which session of the broker the next messages are of; after `cut`, so that no others are held."""
        self._sender = f"{self._bridge}/{name}" if name else self._bridge

    @property
    def is_posting(self) -> bool:
        """Whether a batch is in flight."""
        return bool(self._in_flight[1])

    def stop(self) -> None:
        """Send nothing more; a batch in flight may still be answered."""
        with self._ready:
            self._is_stopping = True
            self._ready.notify()

    def run(self) -> None:
        """Send batches until stopped."""
        while (taken := self._collect()) is not None:
            epoch, batch = taken
            self.batches += 1
            try:
                self._send(epoch, batch)
            except BaseException:
                self._return(epoch, batch)  # a fault of ours must not lose them; the owner of the thread logs it
                raise

    def _collect(self) -> tuple[int, list[Delivery]] | None:
        with self._ready:
            while not self._is_stopping:
                self._ready.wait_for(self._has_work, timeout=self._nap_s())
                self._linger()
                self._in_flight = (self._epoch, []) if self._is_stopping else self._take()
                if self._in_flight[1] or (self._is_asked() and not self._is_stopping):
                    return self._in_flight
            return None

    def _has_work(self) -> bool:
        return self._is_stopping or bool(self._queue or self._left) or self._nap_s() == 0.0

    def _nap_s(self) -> float | None:
        naps = [] if self._again_s is None else [max(0.0, self._again_s - time.monotonic())]
        if self._holds and (held_s := self._holds.nap_s()) is not None:
            naps.append(held_s)
        return min(naps, default=None)

    def _is_asked(self) -> bool:
        return self._again_s is not None and time.monotonic() >= self._again_s

    def _linger(self) -> None:
        # A batch costs what 100 messages cost, so under load a longer wait is repaid (bench/bridge.py); a lone message
        # is not kept waiting for company that does not come.
        self._ready.wait_for(lambda: self._is_stopping or len(self._queue) >= self._size, self._linger_s)

    def _take(self) -> tuple[int, list[Delivery]]:
        room = _Room(self._size, self._limits.batch_bytes)
        if self._left:
            while self._left and room.fits(self._left[0]):
                room.add(self._left.popleft())
            return self._left_epoch, room.taken
        if self._holds:
            self._holds.fill(room)
        while self._queue and (self._queue[0].device in self._holds or room.fits(self._queue[0])):
            delivery = self._queue.popleft()
            if delivery.device in self._holds:
                self._holds.put(delivery)
            else:
                room.add(delivery)
        is_busy = len(room.taken) >= BUSY_MESSAGES
        self._linger_s = self._limits.busy_linger_s if is_busy else self._limits.linger_s
        return self._epoch, room.taken

    def _send(self, epoch: int, batch: list[Delivery]) -> None:
        content = encode_batch(Batch(self._left_sender if epoch == self._left_epoch else self._sender, batch))
        try:
            verdict = _check(self._peer.call("POST", PATH, content), len(batch))
        except HeadwaterError as error:
            self._again_s = None if self._again_s is None else time.monotonic() + ASK_AGAIN_S
            if batch:
                self._failed(epoch, batch, error)
            return
        self._again_s = time.monotonic() + verdict.again_s if verdict.again_s > 0 else None
        BATCHES.labels("ok").inc()
        self._failures = 0
        self._backoff.reset()
        self._size = min(self._limits.batch_messages, self._size * 2)
        self._finish(epoch, batch, verdict)

    def _land(self, epoch: int) -> bool:
        """Hold the batch no more; tell whether a cut gave its messages meanwhile. The lock is held.

        Before anything is settled: a message whose ack may have been sent must not be taken for one still held, since
        the broker gives its id to another. In one with what becomes of the messages: a cut in between misses them.
        """
        self._in_flight = (self._epoch, [])
        return epoch != self._epoch

    def _finish(self, epoch: int, batch: list[Delivery], verdict: Verdict) -> None:
        deferred = {ending.index: ending.retry_s for ending in verdict.endings if ending.end == "deferred"}
        endings = [(batch[each.index], each) for each in verdict.endings if each.index not in deferred]
        done = [each for index, each in enumerate(batch) if index not in deferred] if deferred else batch
        if deferred:
            DEFERRED.inc(len(deferred))
        with self._ready:
            is_cut = self._land(epoch)
            if self._holds or deferred:
                late = sorted(deferred)
                self._return(epoch, [batch[index] for index in late], [deferred[index] for index in late])
                self._holds.release({each.device for each in batch} - {batch[index].device for index in deferred})
        self._settle(Settled(epoch, done, endings, sayings=verdict.sayings, is_cut=is_cut))

    def _return(self, epoch: int, batch: list[Delivery], waits_s: Sequence[float] = ()) -> None:
        """Put messages back to the front of where they came from, or (`waits_s` of each) let their devices wait."""
        with self._ready:
            is_stale = self._land(epoch)
            kept = [(each, wait_s) for each, wait_s in zip_longest(batch, waits_s) if not (is_stale and each.mid)]
            first = {each.device: wait_s for each, wait_s in reversed(kept) if wait_s is not None}
            for device, wait_s in first.items():
                self._holds.postpone(device, wait_s)
            for delivery, wait_s in reversed(kept):
                if delivery.device in self._holds:
                    self._holds.put_back(delivery, wait_s or 0.0)
                else:
                    self._queue.appendleft(delivery)
            stale = self._give_up(epoch, [each for each in batch if each.mid], bool(waits_s)) if is_stale else []
        if stale:
            self._settle(Settled(epoch, stale, is_acceptable=False, is_cut=True))

    def _give_up(self, epoch: int, stale: list[Delivery], must_wait: bool) -> list[Delivery]:
        """Put messages of the last connection back, or give them up when their devices must wait; gives the latter."""
        if epoch != self._left_epoch:
            return stale
        if not must_wait:
            self._left.extendleft(reversed(stale))
            return []
        late = {each.device for each in stale}  # with all that follows of the same devices: the broker keeps the order
        stale += [each for each in self._left if each.device in late]
        self._left = deque(each for each in self._left if each.device not in late)
        return stale

    def _failed(self, epoch: int, batch: list[Delivery], error: HeadwaterError) -> None:
        is_of_the_data = error.status in OF_THE_DATA
        BATCHES.labels("blamed" if is_of_the_data else "failed").inc()
        if is_of_the_data and len(batch) == 1:
            self._refuse(epoch, batch[0], error)
            return
        self._failures += 1
        if is_of_the_data:
            self._size = max(1, len(batch) // 2)  # find the message that is to blame
        elif self._failures >= SHRINK_AFTER:
            self._size = max(1, min(self._size, len(batch)) // 2)
        is_alone = len(batch) == 1 and self._failures >= SHRINK_AFTER + SET_ASIDE_AFTER
        self._return(epoch, batch, [0.0] if is_alone else ())
        log.warning("batch_failed", messages=len(batch), failures=self._failures, code=error.code, detail=error.detail)
        if not is_of_the_data:
            self._back_off(error)

    def _refuse(self, epoch: int, delivery: Delivery, error: HeadwaterError) -> None:
        REFUSED.labels(error.code).inc()
        log.error("message_refused", device=delivery.device, bytes=len(delivery.payload), code=error.code)
        self._failures = 0
        self._backoff.reset()
        self._size = min(self._limits.batch_messages, self._size * 2)
        ending = Ending(0, "refused", error.code, error.detail)
        with self._ready:
            is_cut = self._land(epoch)
            self._holds.release({delivery.device})
        self._settle(Settled(epoch, [delivery], [(delivery, ending)], is_cut=is_cut))

    def _back_off(self, error: HeadwaterError) -> None:
        delay_s = self._backoff.next_s()
        if isinstance(error, RetryLater) and error.retry_after_s > 1:  # 1 is also what an unreachable peer says
            delay_s = max(delay_s, min(error.retry_after_s, self._limits.retry_after_most_s))
        with self._ready:
            self._ready.wait_for(lambda: self._is_stopping, delay_s)


class _Room:
    """A batch being filled: bounded by count and bytes, but never refusing its first message."""

    def __init__(self, messages: int, size_bytes: int) -> None:
        self.taken: list[Delivery] = []
        self._messages = messages
        self._bytes = size_bytes

    def fits(self, delivery: Delivery) -> bool:
        if not self.taken:
            return True
        return len(self.taken) < self._messages and self._bytes >= len(delivery.payload) + len(delivery.topic)

    def add(self, delivery: Delivery) -> None:
        self.taken.append(delivery)
        self._bytes -= len(delivery.payload) + len(delivery.topic)


def _check(answer: Any, messages: int) -> Verdict:
    """Believe an answer only when it is a verdict about this batch: a 200 of something else must not become PUBACKs."""
    try:
        verdict = msgspec.convert(answer, Verdict)
    except msgspec.ValidationError as error:
        raise HeadwaterError(f"the answer is no verdict: {error}") from error
    for ending in verdict.endings:
        if not 0 <= ending.index < messages or ending.end not in ENDS:
            raise HeadwaterError(f"the verdict names message {ending.index} of {messages} as {ending.end!r}")
    return verdict
