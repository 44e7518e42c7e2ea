"""A simulated device: takes readings of its thing, numbers them, commits the faults it was told to."""

from __future__ import annotations

from dataclasses import dataclass

from simulators.dice import Dice
from simulators.faults import CLOCK_JUMPS_MS, LATE_MS, FaultRates, spoil
from simulators.outbox import Outgoing, Sender
from simulators.payloads import speak
from simulators.scenario import Model
from simulators.sparkplug import SPARKPLUG

RIGHT, LATE = 0, 1  # clocks: what a reading's time is off by; the rest of the list is of wrong device clocks
_OFFSETS_MS = (0, -LATE_MS, *CLOCK_JUMPS_MS)


@dataclass(frozen=True, slots=True)
class Habits:
    """What all devices of a run share."""

    ts_ns: int = 1_000_000  # ns per unit of the time they send: ms, or us for devices faster than a few readings a ms
    size: int = 0  # payloads are padded to this many bytes
    backlog_limit: int = 500  # readings a device keeps while it cannot send; further ones are not taken
    is_line: bool = False  # payloads travel as lines of a larger body
    has_odd_times: bool = False  # late readings or wrong clocks occur
    protocol: str = "json"  # of payloads.FORMATS


class Device:
    """One device between its thing and its sender."""

    __slots__ = (
        "_boot",
        "_boots",
        "_clock",
        "_dice",
        "_habits",
        "_last_ts",
        "_render",
        "_seq",
        "_write",
        "device_id",
        "index",
        "offered",
        "sender",
    )

    def __init__(self, index: int, device_id: str, boot_id: str, habits: Habits, model: Model, dice: Dice) -> None:
        self.index, self.device_id, self._boot = index, device_id, boot_id
        self._habits, self._dice = habits, dice
        self._render, self._write = speak(habits.protocol, model, habits.size)
        self._seq = self._boots = 0
        self._clock = RIGHT
        self._last_ts = [0] * (len(_OFFSETS_MS) if habits.has_odd_times else 1)
        self.offered = 0  # readings handed to the sender, copies not counted
        self.sender: Sender | None = None

    def fire(self, now_ns: int, at_s: float, faults: FaultRates) -> bool:
        """Take a reading and hand it to the sender; False when the device's memory is full and none was taken.

        `now_ns` is what a right clock shows, `at_s` the time that the thing lives in.
        """
        sender, habits = self.sender, self._habits
        assert sender is not None
        if sender.backlog >= habits.backlog_limit:
            return False
        fault = faults.pick(self._dice.random()) if faults.share else ""
        if fault == "power":
            self._lose_power(sender)
        elif fault == "clock":
            self._clock = self._dice.choice([each for each in _CLOCKS if each != self._clock])
        self._seq = seq = self._seq + 1
        values = self._render(at_s)
        if fault == "drop":
            return True  # its number is used up: a gap that the platform can see
        ts = self._next_ts(now_ns, LATE if fault == "late" else self._clock)
        payload = self._write(ts, self._boot, seq, values)
        self.offered += 1
        outgoing = Outgoing(self.index, seq, ts, payload, boot_id=self._boot)
        if fault == "malformed":
            outgoing.is_malformed = True
            outgoing.payload = spoil(payload, self._dice, is_line=habits.is_line)
            if habits.protocol == SPARKPLUG:  # nearly all bytes are Protocol Buffers of some kind, these are not
                outgoing.payload = b"\xff\xfe" + outgoing.payload
        sender.offer(outgoing)
        if fault == "dup":
            sender.offer(outgoing)
        return True

    def _lose_power(self, sender: Sender) -> None:
        """Begin another boot: numbers start again; readings taken before keep theirs and wait in the queue."""
        self._boots += 1
        self._boot = f"{self._boot.partition('-')[0]}-{self._boots}"
        self._seq = 0
        sender.lose_power()

    def _next_ts(self, now_ns: int, clock: int) -> int:
        """Give a time that this device never used before: verification tells readings apart by it.

        Each clock has its own remainder, so that two of them never meet, and its own last time.
        """
        habits, last = self._habits, self._last_ts
        if not habits.has_odd_times:
            last[0] = ts = max(now_ns // habits.ts_ns, last[0] + 1)
            return ts
        ts, step = (now_ns + _OFFSETS_MS[clock] * 1_000_000) // habits.ts_ns, len(_OFFSETS_MS)
        last[clock] = ts = max(ts - ts % step + clock, last[clock] + step)
        return ts


_CLOCKS = tuple(each for each in range(len(_OFFSETS_MS)) if each != LATE)
