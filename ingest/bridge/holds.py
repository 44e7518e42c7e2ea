"""Messages of devices that have to wait for a better moment, un-acknowledged, oldest first. Knows no MQTT and no HTTP.

A device waits because it is over its rate (each message then has a time of its own), or because something is away (the
device is tried again with growing pauses). One over its rate may fill only its share of the window: its newest messages
beyond that are surplus, handed in at once and marked, so that the ingest service puts them into the quarantine.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from chassis.backoff import Backoff
from ingest.bridge.config import Limits
from ingest.framing import Delivery

OVERHEAD_BYTES = 256  # of a message in memory, beside topic and payload
DEVICE_SHARE = 1 / 16  # of the window that one device over its rate may fill
ALL_SHARE = 1 / 2  # and all such devices together: the rest is for devices that keep to theirs
PACE_S = 0.1  # messages that are due within this time go together


class Room(Protocol):
    """A batch being filled; see `ingest.bridge.lane`."""

    def fits(self, delivery: Delivery) -> bool: ...
    def add(self, delivery: Delivery) -> None: ...


@dataclass(slots=True)
class _Hold:
    """Messages of one device."""

    backoff: Backoff  # of the tries, when something is away
    due_s: float = 0.0  # monotonic; nothing goes before
    is_paced: bool = False  # over its rate
    cost_bytes: int = 0  # of the window
    waiting: deque[tuple[float, Delivery]] = field(default_factory=deque)  # not before (monotonic), message


class Holds:
    """The devices that wait. Not thread-safe: the lane's lock guards it."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._message_bytes = limits.window_bytes // limits.window_messages  # a message costs at least so much
        self._holds: dict[str, _Hold] = {}
        self._cost_bytes = 0  # of the window, all holds together

    def __contains__(self, device: str) -> bool:
        return device in self._holds

    def __len__(self) -> int:
        return len(self._holds)

    def postpone(self, device: str, wait_s: float) -> None:
        """Let a device wait: over its rate (its messages say until when), or for a growing pause (0 s)."""
        hold = self._holds.get(device)
        if hold is None:
            hold = self._holds[device] = _Hold(Backoff(self._limits.retry_first_s, self._limits.retry_most_s))
        hold.is_paced = wait_s > 0
        if hold.is_paced:
            hold.due_s = 0.0
            return
        hold.due_s = time.monotonic() + hold.backoff.next_s()

    def put(self, delivery: Delivery) -> None:
        """Put a message behind those of its device."""
        hold = self._holds[delivery.device]
        hold.waiting.append((hold.waiting[-1][0] if hold.waiting else 0.0, delivery))
        self._occupy(hold, self._cost_of(delivery))

    def put_back(self, delivery: Delivery, wait_s: float) -> None:
        """Put a message before those of its device, to go after `wait_s`."""
        hold = self._holds[delivery.device]
        due_s = math.ceil((time.monotonic() + wait_s) / PACE_S) * PACE_S if wait_s else 0.0
        hold.waiting.appendleft((due_s, delivery))
        self._occupy(hold, self._cost_of(delivery))

    def fill(self, room: Room) -> None:
        """Move what is due, and what is surplus, as far as it fits."""
        now_s = time.monotonic()
        for hold in self._holds.values():
            while hold.waiting and _due_s(hold) <= now_s and room.fits(hold.waiting[0][1]):
                delivery = hold.waiting.popleft()[1]
                self._occupy(hold, -self._cost_of(delivery))
                room.add(delivery)
        for hold in self._holds.values():
            while self._is_crowded(hold) and room.fits(hold.waiting[-1][1]):
                delivery = hold.waiting.pop()[1]
                self._occupy(hold, -self._cost_of(delivery))
                room.add(msgspec.structs.replace(delivery, is_surplus=True))

    def nap_s(self) -> float | None:
        """Tell how long until something is due; None: nothing waits."""
        holds = [hold for hold in self._holds.values() if hold.waiting]
        due_s = min((0.0 if self._is_crowded(hold) else _due_s(hold) for hold in holds), default=None)
        return None if due_s is None else max(0.0, due_s - time.monotonic())

    def release(self, devices: Iterable[str]) -> None:
        """Let devices go that have nothing waiting: something of them was accepted."""
        for device in devices:
            hold = self._holds.get(device)
            if hold is not None and not hold.waiting:
                del self._holds[device]

    def clear(self) -> list[Delivery]:
        """Forget all devices and give their messages."""
        waiting = [delivery for hold in self._holds.values() for _, delivery in hold.waiting]
        self._holds.clear()
        self._cost_bytes = 0
        return waiting

    def _is_crowded(self, hold: _Hold) -> bool:
        if not hold.is_paced or not hold.waiting:
            return False
        window_bytes = self._limits.window_bytes
        return hold.cost_bytes > window_bytes * DEVICE_SHARE or self._cost_bytes > window_bytes * ALL_SHARE

    def _cost_of(self, delivery: Delivery) -> int:
        return max(self._message_bytes, size_of(delivery))

    def _occupy(self, hold: _Hold, cost_bytes: int) -> None:
        hold.cost_bytes += cost_bytes
        self._cost_bytes += cost_bytes


def size_of(delivery: Delivery) -> int:
    """Bytes that a held message counts for."""
    return len(delivery.payload) + len(delivery.topic) + OVERHEAD_BYTES


def size_of_all(deliveries: list[Delivery]) -> int:
    """Bytes that held messages count for."""
    return sum([len(each.payload) + len(each.topic) for each in deliveries]) + OVERHEAD_BYTES * len(deliveries)


def _due_s(hold: _Hold) -> float:
    return max(hold.due_s, hold.waiting[0][0])
