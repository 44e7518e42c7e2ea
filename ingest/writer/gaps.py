"""The gap audit: which numbers of each boot of each device arrived, which are missing, how many came twice.

Pure: state goes in and out as values. A number that was left out is missing once GRACE_S have passed in which a reading
on its way could still have come; it ceases to be when the reading comes after all, however late.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import attrgetter
from typing import NamedTuple

import msgspec
from msgspec import structs

from chassis import logs
from ingest.readings import Reading
from wire.points import SERVER_TIME, UNCERTAIN

log = logs.get(__name__)
MAX_RANGES = 256  # per boot, 5 KiB on disk at most; at 1 % loss that is the memory of 25,000 readings
MAX_JUMP = 100_000  # numbers left out at once; more is no loss, the device began to count somewhere else
RESTART_BEHIND = 1_000  # a number so far back with a time newer than all: the device counts anew without a new boot_id
GRACE_S = 2.5  # a gap becomes missing after one to two of these
MAX_BOOTS = 50_000  # in memory, about 400 bytes each; others are read again from disk
MAX_RANGES_HELD = 500_000  # in memory, of all boots together; about 80 bytes each
EVERYTHING = 2**63 - 1
_GUESSED_TIME = SERVER_TIME | UNCERTAIN
_encoder = msgspec.msgpack.Encoder()

BootKey = tuple[str, str, str]  # tenant, device, boot_id
Span = tuple[int, int]  # first and last number, both within


class Boot(msgspec.Struct, array_like=True):
    """Numbers of one boot, as sorted ranges that neither touch nor overlap; the newest MAX_RANGES of them.

    Of a boot that has more gaps the oldest ranges are forgotten: `head` then tells the first range there ever was, and
    `forgotten` how many numbers were missing below the oldest range that is left.
    """

    lows: list[int] = []
    highs: list[int] = []
    head: Span | None = None
    forgotten: int = 0
    settled_to: int = -1  # the gaps below a number up to this one are missing; later ones have their grace
    duplicates: int = 0
    restarts: int = 0
    newest_time_ns: int = 0  # of the device's own times, as far as noted
    began_ns: int = 0  # when its first reading was received; 0 of boots from before this was noted
    seen_ns: int = 0  # when its last reading was received
    born_ns: int = 0  # when its device was registered; 0: not known

    def add(self, number: int) -> bool:
        """Add a number; False when it was there."""
        lows, highs = self.lows, self.highs
        if highs and number == highs[-1] + 1:
            highs[-1] = number
            return True
        place = bisect_right(lows, number)  # of the first range that begins above
        if place and number <= highs[place - 1]:
            return False
        if not place and self.head is not None:
            return True  # so far back nothing is known any more: whoever is unsure says "new"
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

    def begin_again(self, number: int) -> None:
        """Count from here: what was missing so far stays so."""
        self.settle(self.highs[-1])
        self.forgotten = self.missing()
        self.lows, self.highs, self.head, self.settled_to = [number], [number], None, number
        self.restarts += 1

    def settle(self, number: int) -> None:
        """Let the gaps below a number that has come be missing."""
        self.settled_to = max(self.settled_to, min(number, self.highs[-1]))

    def note(self, reading: Reading) -> None:
        """Note when the device was heard: done with the last reading of a batch, since it costs."""
        self.seen_ns = reading.received_ns
        if reading.time_ns > self.newest_time_ns and not reading.flags & _GUESSED_TIME:
            self.newest_time_ns = reading.time_ns

    @property
    def is_settled(self) -> bool:
        """Tell whether no gap has its grace any more."""
        return len(self.lows) < 2 or self.lows[-1] <= self.settled_to  # noqa: PLR2004 - one range has no gap

    @property
    def first(self) -> int:
        """The lowest number that came. What is below is not missed: a device may count from where it likes."""
        return self.head[0] if self.head else self.lows[0]

    @property
    def contiguous_to(self) -> int:
        """The number up to which, from the first on, all have come."""
        return self.head[1] if self.head else self.highs[0]

    def spans(self) -> Iterator[tuple[Span, bool]]:
        """Give the gaps between the ranges, oldest first, each with whether its grace is over."""
        for high, low in zip(self.highs, self.lows[1:], strict=False):
            yield (high + 1, low - 1), low <= self.settled_to

    def missing_spans(self) -> list[Span]:
        """Give the gaps that count as missing, oldest first; those that were forgotten are not among them."""
        return [span for span, is_settled in self.spans() if is_settled and span[1] - span[0] < MAX_JUMP]

    def missing(self) -> int:
        """Count the missing numbers."""
        if len(self.lows) < 2:  # noqa: PLR2004 - one range has no gap: the ordinary case
            return self.forgotten
        return self.forgotten + sum(last - first + 1 for first, last in self.missing_spans())

    def jumps(self) -> int:
        """Count the leaps over more numbers than can be a loss."""
        return sum(last - first >= MAX_JUMP for (first, last), _ in self.spans())

    def to_bytes(self) -> bytes:
        """Encode for keeping."""
        return _encoder.encode(self)

    @classmethod
    def from_bytes(cls, content: bytes) -> Boot:
        """Decode; raises msgspec.DecodeError."""
        return msgspec.msgpack.decode(content, type=Boot)

    def _insert(self, place: int, number: int) -> None:
        lows, highs = self.lows, self.highs
        lows.insert(place, number)
        highs.insert(place, number)
        if len(lows) <= MAX_RANGES:
            return
        self.head = self.head or (lows[0], highs[0])
        left_out = lows[1] - highs[0] - 1
        self.forgotten += left_out if left_out <= MAX_JUMP else 0
        del lows[0], highs[0]


class BootChange(NamedTuple):
    """A boot that was touched, as it is to be kept."""

    key: BootKey
    content: bytes
    is_new: bool
    missing: int
    duplicates: int
    is_settled: bool
    seen_ns: int
    born_ns: int = 0


class Boots:
    """All boots of all devices."""

    def __init__(
        self,
        load: Callable[[BootKey], bytes | None],
        unsettled: Iterable[BootKey] = (),
        born_of: Callable[[Reading], int] = attrgetter("born_ns"),
    ) -> None:
        """Begin with what was kept.

        Args:
            load: gives what was kept of a boot, or None.
            unsettled: boots whose gaps had their grace when they were kept; it is over.
            born_of: gives the birth of a reading's device for certain; asked before it is dropped as a copy.
        """
        self._load = load
        self._born_of = born_of
        self._known: dict[BootKey, Boot] = {}
        self._touched: dict[BootKey, Reading | None] = {}  # with its last reading
        self._fresh: set[BootKey] = set()  # those of them that are not kept yet
        self._waiting: dict[BootKey, tuple[float, int]] = dict.fromkeys(unsettled, (0.0, 2**63))  # soonest first
        self._sizes: dict[BootKey, int] = {}  # ranges of boots that have several
        self._held = 0  # the sum of these

    def is_repeat(self, reading: Reading) -> bool:
        """Tell whether a reading with boot_id and seq has come before; from now on it has."""
        key, number = (reading.tenant, reading.device, reading.boot_id or ""), reading.seq or 0
        boot = self._known.get(key) or self._recall(key, reading.received_ns)
        if boot.born_ns != reading.born_ns:
            if reading.received_ns < boot.born_ns and reading.born_ns > 0:
                return False  # of a device that is no more, and came behind the one that has its id now
            boot = self._adopt(key, boot, reading)
        self._touched[key] = reading
        highs = boot.highs
        if highs and number == highs[-1] + 1:  # as `add` would; one call less for nearly all
            highs[-1] = number
            return False
        if boot.add(number):
            return False
        if _begins_again(boot, reading):
            boot.begin_again(number)
            return False
        if (born_ns := self._born_of(reading)) > boot.born_ns > 0:
            return self.is_repeat(structs.replace(reading, born_ns=born_ns))
        boot.duplicates += 1
        return True

    def take_changes(self, now_s: float) -> list[BootChange]:
        """Give what has to be kept, once."""
        self._settle(now_s)
        changes = []
        for key, reading in self._touched.items():
            boot = self._known[key]
            if reading is not None:
                boot.note(reading)
            if not boot.is_settled and key not in self._waiting:
                self._waiting[key] = (now_s + GRACE_S, boot.highs[-1])
            self._weigh(key, len(boot.lows))
            changes.append(
                BootChange(key, boot.to_bytes(), key in self._fresh, boot.missing(), boot.duplicates,
                           key not in self._waiting, boot.seen_ns, boot.born_ns)
            )  # fmt: skip
        self._touched.clear()
        self._fresh.clear()
        while len(self._known) > MAX_BOOTS or (self._held > MAX_RANGES_HELD and len(self._known) > 1):
            self._drop(next(iter(self._known)))
        return changes

    def forget(self, gone: Mapping[str, int]) -> None:
        """Forget devices that are no more, with what was to be kept of them; `gone` as `is_outlived` has it."""
        for key in [key for key, boot in self._known.items() if is_outlived(boot.born_ns, gone.get(key[1], 0))]:
            self._drop(key)
            self._touched.pop(key, None)
            self._fresh.discard(key)
            self._waiting.pop(key, None)

    def _recall(self, key: BootKey, received_ns: int) -> Boot:
        boot = self._reload(key)
        if boot is None:
            boot = self._known[key] = Boot(began_ns=received_ns)
            self._fresh.add(key)
        return boot

    def _adopt(self, key: BootKey, boot: Boot, reading: Reading) -> Boot:
        """Give the boot that a reading of another birth counts in: the later one's, whatever the gate had heard."""
        if 0 < boot.born_ns < reading.born_ns:  # a device was deleted, another one got its id and counts its boots anew
            self._waiting.pop(key, None)
            boot = self._known[key] = Boot(began_ns=reading.received_ns)
        boot.born_ns = boot.born_ns or reading.born_ns
        return boot

    def _reload(self, key: BootKey) -> Boot | None:
        kept = self._load(key)
        if kept is None:
            return None
        try:
            boot = self._known[key] = Boot.from_bytes(kept)
        except msgspec.MsgspecError as error:  # a disk damaged it; it costs what it held, not the service
            log.error("boot_damaged", tenant=key[0], device=key[1], error=str(error))  # noqa: TRY400 - no trace: known
            return None
        return boot

    def _settle(self, now_s: float) -> None:
        while self._waiting:
            key = next(iter(self._waiting))
            due_s, newest = self._waiting[key]
            if due_s > now_s:
                return
            del self._waiting[key]
            boot = self._known.get(key) or self._reload(key)
            if boot is not None:  # else it is one boot too many of its device, and was dropped
                boot.settle(newest)
                self._touched.setdefault(key, None)

    def _weigh(self, key: BootKey, ranges: int) -> None:
        if self._sizes:
            self._held -= self._sizes.pop(key, 0)
        if ranges > 1:
            self._sizes[key] = ranges
            self._held += ranges

    def _drop(self, key: BootKey) -> None:
        del self._known[key]
        self._weigh(key, 0)


def is_outlived(born_ns: int, until_ns: int) -> bool:
    """Tell whether a boot is of a device that is no more.

    `until_ns` is when the one that has its id now was registered, EVERYTHING when none has. What is not known to be
    older stays.
    """
    return until_ns == EVERYTHING or 0 < born_ns < until_ns


def _begins_again(boot: Boot, reading: Reading) -> bool:
    """Tell a device that counts anew from a second copy, which carries the time of the first: none that is newer."""
    is_newer = reading.time_ns > boot.newest_time_ns > 0 and not reading.flags & _GUESSED_TIME
    return is_newer and (reading.seq or 0) < boot.highs[-1] - RESTART_BEHIND
