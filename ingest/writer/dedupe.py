"""Telling a reading that comes a second time from one that is new. Pure: state goes in and out as values.

Three ways, after what a reading carries:
1. `boot_id` and `seq`: ranges of the numbers seen per (tenant, device, boot), see `ingest.writer.gaps`. Kept on disk:
   exact for ever, but for numbers far behind a very patchy history, which are taken for new.
2. else, came over MQTT without a time of its own: message id and content of the last WINDOW deliveries. A copy counts
   as one only when the broker itself marked the later of the two as sent again. Kept on disk.
3. else: the last content of each (tenant, device, measurement, tags, time) in two generations of memory. It only keeps
   the ledger honest; the store's upsert covers what a restart forgets.

Whoever is unsure says "new": writing a reading twice is harmless, dropping one is not.
"""

from __future__ import annotations

from collections import deque

import msgspec

from ingest.readings import Reading
from ingest.writer.gaps import Boots
from wire.points import REDELIVERED

WINDOW = 50_000  # twice what a bridge may have un-acknowledged, and so what a broker may send again: what it holds when
# its connection breaks it posts, and the broker sends all of it once more behind that
GENERATION_ITEMS = 100_000
GENERATION_S = 600.0
_encoder = msgspec.msgpack.Encoder()

DeliveryRow = tuple[int, int, int, bool]  # message id, content, received_ns, redelivered


class Deliveries:
    """Messages without a time of their own, of the last WINDOW that came over MQTT.

    All messages are counted, since message ids are used again after 65,535 of whatever kind: a message sent again whose
    first copy never arrived must not meet an older one of the same id and content.
    """

    def __init__(self, rows: list[DeliveryRow], number: int) -> None:
        """`rows` are those kept, oldest first; `number` counts all deliveries ever."""
        self.number = number
        self._known: dict[tuple[int, int], tuple[int, int, bool]] = {}
        self._order: deque[tuple[int, tuple[int, int]]] = deque()
        self._new: list[DeliveryRow] = []
        self._passed_ns = 0
        for index, row in enumerate(rows):
            self._remember(row, number - len(rows) + index + 1)

    def is_repeat(self, reading: Reading) -> bool:
        """Tell whether the reading's message was seen under another time of arrival."""
        delivery = reading.delivery or 0
        self._forget_old()
        known = self._known.get((delivery, reading.content))
        is_again = bool(reading.flags & REDELIVERED)
        if known is not None:
            _, received_ns, was_again = known
            if received_ns == reading.received_ns:  # another reading of the same message
                return False
            if is_again or (was_again and reading.received_ns < received_ns):  # not by the time alone: clocks go back
                return True
        self.number += 1
        row = (delivery, reading.content, reading.received_ns, is_again)
        self._remember(row, self.number)
        self._new.append(row)
        return False

    def pass_by(self, reading: Reading) -> None:
        """Count a message that is known by other means; one sent again was counted before."""
        if reading.received_ns != self._passed_ns and not reading.flags & REDELIVERED:
            self._passed_ns = reading.received_ns
            self.number += 1

    def take_changes(self) -> list[DeliveryRow]:
        """Give what has to be kept, once; the last has about the number `number`."""
        new, self._new = self._new, []
        return new

    def _remember(self, row: DeliveryRow, number: int) -> None:
        key = row[:2]
        self._known[key] = (number, row[2], row[3])
        self._order.append((number, key))
        self._forget_old()

    def _forget_old(self) -> None:
        while self._order and self._order[0][0] <= self.number - WINDOW:
            old, old_key = self._order.popleft()
            if self._known[old_key][0] == old:
                del self._known[old_key]


class RecentContents:
    """The last content of points lately seen, in two generations: none is forgotten before the younger is full."""

    def __init__(self) -> None:
        self._young: dict[int, int] = {}
        self._old: dict[int, int] = {}
        self._born_s = 0.0

    def is_repeat(self, reading: Reading) -> bool:
        """Tell whether this was the last content of this point; a value that came back after another is new."""
        point = _point_of(reading)
        # Not hash() of the values: -1 and -2 share one, and so do 1, 1.0 and True.
        content = hash(_encoder.encode(reading.fields))
        known = self._young.get(point)
        if known is None:
            known = self._old.get(point)
        if known == content:
            return True
        self._young[point] = content
        return False

    def forget(self, reading: Reading) -> None:
        """Take a reading for unseen: it was not stored, and may be replayed as it is."""
        point = _point_of(reading)
        self._young.pop(point, None)
        self._old.pop(point, None)

    def grow_older(self, now_s: float) -> None:
        """Begin a generation when the young one is full or 10 minutes old; called once a batch."""
        if len(self._young) >= GENERATION_ITEMS or now_s - self._born_s >= GENERATION_S:
            self._old, self._young = self._young, {}
            self._born_s = now_s


def _point_of(reading: Reading) -> int:
    tags = frozenset(reading.tags.items()) if reading.tags else None
    return hash((reading.tenant, reading.device, reading.born_ns, reading.measurement, tags, reading.time_ns))


class Dedupe:
    """All three ways together."""

    def __init__(self, boots: Boots, deliveries: Deliveries) -> None:
        self.boots = boots
        self.deliveries = deliveries
        self._recent = RecentContents()

    def sift(self, readings: list[Reading], now_s: float) -> list[int]:
        """Give the indexes of the readings that are new, in order; they count as seen from now on."""
        self._recent.grow_older(now_s)
        deliveries, boots, recent = self.deliveries, self.boots, self._recent
        fresh = []
        for index, reading in enumerate(readings):
            if reading.content:  # neither a time nor a number of its own
                if deliveries.is_repeat(reading):
                    continue
            elif reading.delivery:
                deliveries.pass_by(reading)
            is_numbered = reading.boot_id is not None and reading.seq is not None
            if not (boots.is_repeat(reading) if is_numbered else recent.is_repeat(reading)):
                fresh.append(index)
        return fresh

    def forget(self, readings: list[Reading]) -> None:
        """Take readings for unseen that came to the quarantine after all."""
        for reading in readings:
            self._recent.forget(reading)
