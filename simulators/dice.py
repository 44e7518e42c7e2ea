"""Seeded random numbers for thousands of devices: the same seed, the same numbers, in 60 bytes a device.

`random.Random` keeps 2.5 KB each, which is more than all the rest of a simulated device.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import TypeVar

_MASK = (1 << 64) - 1
_T = TypeVar("_T")


class Dice:
    """A linear congruential generator of 64 bits (Knuth's MMIX constants) of which the upper 53 are used."""

    __slots__ = ("_state",)

    def __init__(self, seed: str) -> None:
        self._state = int.from_bytes(hashlib.blake2b(seed.encode(), digest_size=8).digest(), "big")

    def random(self) -> float:
        """Give a number in [0, 1)."""
        self._state = state = (self._state * 6364136223846793005 + 1442695040888963407) & _MASK
        return (state >> 11) * 1.1102230246251565e-16  # 2^-53

    def uniform(self, low: float, high: float) -> float:
        """Give a number between the two."""
        return low + (high - low) * self.random()

    def gauss(self, mean: float, deviation: float) -> float:
        """Give a normally distributed number (Box and Muller)."""
        radius = math.sqrt(-2.0 * math.log(1.0 - self.random()))
        return mean + deviation * radius * math.cos(2.0 * math.pi * self.random())

    def expovariate(self, rate: float) -> float:
        """Give the time until the next of events that come at this rate."""
        return -math.log(1.0 - self.random()) / rate

    def randrange(self, count: int) -> int:
        """Give a whole number in [0, count)."""
        return int(self.random() * count)

    def choice(self, options: Sequence[_T]) -> _T:
        """Pick one."""
        return options[self.randrange(len(options))]
