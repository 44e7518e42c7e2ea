"""What a device reads on `devices/{id}/acks`: which of its numbered readings are durable (docs/topics.md)."""

from __future__ import annotations

from bisect import bisect_right

from pydantic import BaseModel, ConfigDict

from wire.points import TimeNs


class BootAcks(BaseModel):
    """The numbers of one boot: `first` to `newest` are kept, but for those in `missing`.

    Whoever wants one number uses `seq`: from `first` up to it nothing is missing. Nothing is said of numbers outside.
    """

    model_config = ConfigDict(extra="ignore")

    boot_id: str
    first: int
    seq: int
    newest: int
    missing: list[tuple[int, int]] = []  # ascending, first and last number of each gap

    def covers(self, number: int) -> bool:
        """Tell whether the platform has this number."""
        return self.first <= number <= self.newest and not self.misses(number)

    def misses(self, number: int) -> bool:
        """Tell whether the platform knows that this number did not come."""
        place = bisect_right(self.missing, number, key=lambda gap: gap[0])
        return place > 0 and number <= self.missing[place - 1][1]


class Acks(BootAcks):
    """The boot of a device that began last, and those before it, newest first."""

    time: TimeNs
    earlier: list[BootAcks] = []
