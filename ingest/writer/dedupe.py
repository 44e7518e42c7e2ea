"""Telling a reading that comes a second time from one that is new. Pure: state goes in and out as values.

Three ways, after what a reading carries:
1. `boot_id` and `seq`: ranges of the numbers seen per (tenant, device, boot). Kept on disk: exact for ever, but for
   numbers far behind a very patchy history, which are taken for new.
2. else, came over MQTT without a time of its own: message id and content of the last WINDOW deliveries. A copy counts
   as one only when the broker itself marked the later of the two as sent again. Kept on disk.
3. else: the last content of each (tenant, device, measurement, time) in two generations of memory. It only keeps the
   ledger honest; the store's upsert covers what a restart forgets.

Whoever is unsure says "new": writing a reading twice is harmless, dropping one is not.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from ingest.readings import Reading
from wire.points import REDELIVERED

MAX_RANGES = 256  # per boot: 2 KiB on disk; at 1 % loss that is the memory of 25,000 readings
MAX_BOOTS = 50_000  # in memory, about 300 bytes each; others are read again from disk
WINDOW = 20_000  # what the bridge may have un-acknowledged, and so what a broker may send again
GENERATION_ITEMS = 100_000
GENERATION_S = 600.0
_encoder = msgspec.msgpack.Encoder()

BootKey = tuple[str, str, str]  # tenant, device, boot_id
DeliveryRow = tuple[int, int, int, bool]  # message id, content, received_ns, redelivered


class Ranges:
    """A set of whole numbers as sorted ranges that neither touch nor overlap; holds the newest MAX_RANGES of them."""

    __slots__ = ("highs", "lows")

    def __init__(self, lows: list[int] | None = None, highs: list[int] | None = None) -> None:
        self.lows = lows or []
        self.highs = highs or []

    def add(self, number: int) -> bool:
        """Add a number; False when it was there."""
        lows, highs = self.lows, self.highs
        if highs and number == highs[-1] + 1:  # the ordinary case
            highs[-1] = number
            return True
        place = bisect_right(lows, number)  # of the first range that begins above
        if place and number <= highs[place - 1]:
            return False
        touches_below = place > 0 and highs[place - 1] == number - 1
        touches_above = place < len(lows) and lows[place] == number + 1
        if touches_below and touches_above:
            highs[place - 1] = highs.pop(place)
            del lows[place]
        elif touches_below:
            highs[place - 1] = number
        elif touches_above:
            lows[place] = number
        else:
            self._insert(place, number)
        return True

    def missing(self) -> int:
        """Count the numbers between the lowest and the highest that are not there."""
        if not self.lows:
            return 0
        held = sum(high - low + 1 for low, high in zip(self.lows, self.highs, strict=True))
        return self.highs[-1] - self.lows[0] + 1 - held

    def to_bytes(self) -> bytes:
        """Encode for keeping."""
        return _encoder.encode((self.lows, self.highs))

    @classmethod
    def from_bytes(cls, content: bytes) -> Ranges:
        """Decode; raises msgspec.DecodeError."""
        return cls(*msgspec.msgpack.decode(content, type=tuple[list[int], list[int]]))

    def _insert(self, place: int, number: int) -> None:
        self.lows.insert(place, number)
        self.highs.insert(place, number)
        if len(self.lows) > MAX_RANGES:
            del self.lows[0], self.highs[0]


class BootChange(NamedTuple):
    """Ranges of one boot that were touched."""

    key: BootKey
    ranges: bytes
    is_new: bool


class Boots:
    """Numbers seen of every boot of every device."""

    def __init__(self, load: Callable[[BootKey], bytes | None]) -> None:
        """`load` gives what was kept of a boot, or None."""
        self._load = load
        self._known: dict[BootKey, Ranges] = {}
        self._touched: dict[BootKey, bool] = {}  # value: is it new

    def is_repeat(self, key: BootKey, seq: int) -> bool:
        """Tell whether the number was seen; from now on it was."""
        ranges = self._known.get(key)
        if ranges is None:
            ranges = self._recall(key)
        if not ranges.add(seq):
            return True
        if key not in self._touched:
            self._touched[key] = False
        return False

    def take_changes(self) -> list[BootChange]:
        """Give what has to be kept, once."""
        changes = [BootChange(key, self._known[key].to_bytes(), is_new) for key, is_new in self._touched.items()]
        self._touched.clear()
        while len(self._known) > MAX_BOOTS:
            del self._known[next(iter(self._known))]
        return changes

    def _recall(self, key: BootKey) -> Ranges:
        kept = self._load(key)
        ranges = self._known[key] = Ranges() if kept is None else Ranges.from_bytes(kept)
        if kept is None:
            self._touched[key] = True
        return ranges


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
        content = hash(_encoder.encode((reading.fields, reading.tags)))
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
    return hash((reading.tenant, reading.device, reading.measurement, reading.time_ns))


class Dedupe:
    """All three ways together."""

    def __init__(self, boots: Boots, deliveries: Deliveries) -> None:
        self.boots = boots
        self.deliveries = deliveries
        self._recent = RecentContents()

    def sift(self, readings: list[Reading], now_s: float) -> list[int]:
        """Give the indexes of the readings that are new, in order; they count as seen from now on."""
        self._recent.grow_older(now_s)
        is_repeat = self._is_repeat
        return [index for index, reading in enumerate(readings) if not is_repeat(reading)]

    def forget(self, readings: list[Reading]) -> None:
        """Take readings for unseen that came to the quarantine after all."""
        for reading in readings:
            self._recent.forget(reading)

    def _is_repeat(self, reading: Reading) -> bool:
        if reading.content:  # neither a time nor a number of its own
            if self.deliveries.is_repeat(reading):
                return True
        elif reading.delivery is not None:
            self.deliveries.pass_by(reading)
        if reading.boot_id is not None and reading.seq is not None:
            return self.boots.is_repeat((reading.tenant, reading.device, reading.boot_id), reading.seq)
        return self._recent.is_repeat(reading)
