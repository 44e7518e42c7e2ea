"""What devices are told of their numbered readings on `devices/{id}/acks`, and when. Knows no client library.

Each message is made from what writer.db holds when it goes out, so it never says more than is durable. The topic is
retained, and the broker writes all retained messages to disk at each of its saves: a device is told at most every
EVERY_S, sooner only when gaps came or went.
"""

from __future__ import annotations

import heapq
import random
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from chassis.metrics import Counter
from ingest.writer.gaps import Boot, BootChange
from ingest.writer.state import DeviceBoots
from wire import clock, topics
from wire.acks import Acks, BootAcks
from wire.errors import Unavailable

EVERY_S = 10.0
GAPS_EVERY_S = 1.0
RENEW_S = 2.0  # time over which all devices are told again after the broker came back
PER_S = 500  # messages a second in all, about 0.1 ms each; a larger fleet is told less often
MAX_DEVICES = 50_000  # in memory, about 300 bytes each; beyond that those are forgotten who have been told everything
SHOWN_GAPS = 64  # the newest: what is older, a device hardly still has
EARLIER_BOOTS = 3
ACKS = Counter("headwater_writer_acks", "Messages to devices about what is durable")

DeviceKey = tuple[str, str]  # tenant, device
ReadBoots = Callable[[str, str], DeviceBoots]  # device, tenant


@dataclass(slots=True)
class _Entry:
    missing: dict[str, int]  # by boot, as last noted
    told_s: float = 0.0  # monotonic
    due_s: float | None = None  # None: it has been told everything


class AckBoard:
    """Who has to be told, soonest first. `take` belongs to one thread, the others to any."""

    def __init__(self, read: ReadBoots, per_s: int = PER_S) -> None:
        self._read = read
        self._per_s = per_s
        self._allowed = 0.0
        self._refilled_s: float | None = None
        self._lock = threading.Lock()  # guards the three below
        self._entries: dict[DeviceKey, _Entry] = {}
        self._queue: list[tuple[float, DeviceKey]] = []
        self._gone: list[str] = []

    def note(self, changes: Iterable[BootChange], now_s: float) -> None:
        """Note what was just committed."""
        with self._lock:
            for change in changes:
                self._note(change, now_s)
            if len(self._entries) > MAX_DEVICES:
                self._entries = {key: entry for key, entry in self._entries.items() if entry.due_s is not None}

    def forget(self, devices: Iterable[str], now_s: float) -> None:
        """Clear the topic of devices that are no more; one that has its id by now is told again what holds for it."""
        with self._lock:
            gone = set(devices)
            for key in [key for key in self._entries if key[1] in gone]:
                entry = self._entries[key] = _Entry({})
                self._plan(key, entry, now_s)
            self._gone += gone

    def renew(self, now_s: float) -> None:
        """Tell everybody again: the broker came back, perhaps without what it had been told."""
        with self._lock:
            for key, entry in self._entries.items():
                self._plan(key, entry, now_s + random.uniform(0.0, RENEW_S))  # noqa: S311 - spreads the load

    @property
    def has_cleared_all(self) -> bool:
        """Tell whether the topics of all devices that are no more were cleared."""
        return not self._gone

    def take(self, now_s: float) -> Iterator[tuple[str, bytes]]:
        """Give the messages that may go out now: topic and payload; an empty one clears the topic."""
        if self._refilled_s is not None:
            self._allowed = min(self._per_s * 0.1, self._allowed + (now_s - self._refilled_s) * self._per_s)
        self._refilled_s = now_s
        while self._allowed >= 1 and (message := self._next(now_s)) is not None:
            self._allowed -= 1
            ACKS.inc()
            yield message

    def _note(self, change: BootChange, now_s: float) -> None:
        key = change.key[:2]
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry({})
        boot_id, has_news = change.key[2], False
        if change.missing != entry.missing.get(boot_id, 0):
            has_news = True
            entry.missing[boot_id] = change.missing
            if len(entry.missing) > EARLIER_BOOTS + 1:
                del entry.missing[next(iter(entry.missing))]
        if has_news or entry.due_s is None:
            self._plan(key, entry, max(now_s, entry.told_s + (GAPS_EVERY_S if has_news else EVERY_S)))

    def _plan(self, key: DeviceKey, entry: _Entry, due_s: float) -> None:
        if entry.due_s is None or due_s < entry.due_s:
            entry.due_s = due_s
            heapq.heappush(self._queue, (due_s, key))

    def _next(self, now_s: float) -> tuple[str, bytes] | None:
        while (key := self._pop(now_s)) is not None:
            if isinstance(key, str):
                return topics.acks(key), b""
            tenant, device = key
            with suppress(Unavailable):  # the draining thread says so; the next commit plans it again
                acks = to_acks(self._read(device, tenant), clock.now_ns())
                if acks is not None:
                    return topics.acks(device), acks.model_dump_json().encode()
        return None

    def _pop(self, now_s: float) -> DeviceKey | str | None:
        with self._lock:
            if self._gone:
                return self._gone.pop()
            while self._queue and self._queue[0][0] <= now_s:
                due_s, key = heapq.heappop(self._queue)
                entry = self._entries.get(key)
                if entry is not None and entry.due_s == due_s:  # else it was planned anew
                    entry.due_s, entry.told_s = None, now_s
                    return key
        return None


def to_acks(found: DeviceBoots, now_ns: int) -> Acks | None:
    """Give what a device may know; None when nothing is known of it."""
    if not found.boots:
        return None
    newest, *earlier = sorted(found.boots, key=lambda account: -account.boot.began_ns)
    told = [_of_boot(account.boot_id, account.boot) for account in earlier[:EARLIER_BOOTS]]
    return Acks(**dict(_of_boot(newest.boot_id, newest.boot)), time=now_ns, earlier=told)


def _of_boot(boot_id: str, boot: Boot) -> BootAcks:
    """Leave out what is not certain: gaps that a reading on its way may fill, and all above them."""
    gaps, newest = [], boot.highs[-1]
    for span, is_settled in boot.spans():
        if not is_settled:
            newest = span[0] - 1
            break
        gaps.append(span)
    first = boot.lows[0] if len(gaps) <= SHOWN_GAPS else gaps[-SHOWN_GAPS - 1][1] + 1
    gaps = gaps[-SHOWN_GAPS:]
    seq = gaps[0][0] - 1 if gaps else newest
    return BootAcks(boot_id=boot_id, first=first, seq=seq, newest=newest, missing=gaps)
