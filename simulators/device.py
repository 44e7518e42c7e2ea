"""A simulated device: takes readings of its thing, numbers them, commits the faults it was told to."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import orjson

from simulators.faults import LATE_MS, FaultRates, spoil
from simulators.outbox import Outgoing, Sender
from simulators.scenario import Model

Encoder = Callable[[dict[str, object]], bytes]
PROTOCOLS: dict[str, Encoder] = {"json": orjson.dumps}


@dataclass(frozen=True, slots=True)
class Habits:
    """What all devices of a run share."""

    faults: FaultRates
    ts_ns: int = 1_000_000  # ns per unit of the time they send: ms, or us for devices faster than a reading per ms
    size: int = 0  # payloads are padded to this many bytes
    backlog_limit: int = 500  # readings a device keeps while it cannot send; further ones are not taken
    protocol: str = "json"
    is_line: bool = False  # payloads travel as lines of a larger body


class Device:
    """One device between its thing and its sender."""

    def __init__(
        self, index: int, device_id: str, boot_id: str, habits: Habits, model: Model, rng: random.Random
    ) -> None:
        self.index, self.device_id, self.boot_id = index, device_id, boot_id
        self._habits, self._model, self._rng = habits, model, rng
        self._encode = PROTOCOLS[habits.protocol]
        self._seq = 0
        self._last_ts = self._last_late_ts = 0
        self._has_faults = habits.faults.drop + habits.faults.dup + habits.faults.late + habits.faults.malformed > 0
        self.offered = 0  # readings handed to the sender, copies not counted
        self.sender: Sender | None = None

    def fire(self, now_ns: int) -> bool:
        """Take a reading and hand it to the sender; False when the device's memory is full and none was taken."""
        assert self.sender is not None
        if self.sender.backlog >= self._habits.backlog_limit:
            return False
        self._seq += 1
        values = self._model.values(now_ns / 1e9)
        if not self._has_faults:
            self.offered += 1
            self.sender.offer(self._reading(self._next_ts(now_ns), values))
        else:
            self._fire_faulty(now_ns, values)
        return True

    def _fire_faulty(self, now_ns: int, values: dict[str, float | int | bool | str]) -> None:
        assert self.sender is not None
        faults, roll = self._habits.faults, self._rng.random
        is_late, is_dropped, is_malformed, is_dup = (
            roll() < share for share in (faults.late, faults.drop, faults.malformed, faults.dup)
        )
        if is_dropped:
            return  # its number is used up: a gap that the platform can see
        outgoing = self._reading(self._next_late_ts(now_ns) if is_late else self._next_ts(now_ns), values)
        if is_malformed:
            outgoing.is_malformed = True
            outgoing.payload = spoil(outgoing.payload, self._rng, is_line=self._habits.is_line)
        self.offered += 1
        self.sender.offer(outgoing)
        if is_dup and not is_malformed:
            self.sender.offer(outgoing)

    def _reading(self, ts: int, values: dict[str, float | int | bool | str]) -> Outgoing:
        body: dict[str, object] = {"ts": ts, "boot_id": self.boot_id, "seq": self._seq, "values": values}
        payload = self._encode(body)
        missing = self._habits.size - len(payload) - len(',"pad":""')
        if missing > 0:
            payload = self._encode(body | {"values": values | {"pad": "x" * missing}})
        return Outgoing(self.index, self._seq, ts, payload, boot_id=self.boot_id)

    def _next_ts(self, now_ns: int) -> int:
        # A device never uses a time twice: verification tells readings apart by it. Late readings lie on odd times.
        step = 2 if self._habits.faults.late else 1
        ts = now_ns // self._habits.ts_ns
        self._last_ts = max(ts - ts % step, self._last_ts + step)
        return self._last_ts

    def _next_late_ts(self, now_ns: int) -> int:
        back = LATE_MS * 1_000_000 // self._habits.ts_ns
        self._last_late_ts = max((now_ns // self._habits.ts_ns - back) | 1, self._last_late_ts + 2)
        return self._last_late_ts
