"""How far a run is, or a part of it in one process: numbers that add up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from simulators.control import ControlBook
from simulators.stats import Durations


@dataclass(slots=True)
class Tally:
    """Counts since the start; it travels between processes."""

    sent: int = 0  # messages transmitted at least once
    acked: int = 0  # with a ledger: those whose acknowledgement is on disk
    settled: int = 0  # acknowledged or refused, on disk or not
    quarantined: int = 0  # those the platform answered to be in quarantine (HTTP only)
    waiting: int = 0  # taken and neither acknowledged nor refused
    devices: int = 0  # that got ready
    errors: Counter[str] = field(default_factory=Counter)
    ack_ms: Durations = field(default_factory=Durations)
    visible_ms: Durations = field(default_factory=Durations)
    control: ControlBook = field(default_factory=ControlBook)  # from other processes: at the end only
    first_at: float = 0.0  # time.monotonic, which all processes of a machine share
    last_at: float = 0.0
    steady_rate: float | None = None  # messages a second while all devices sent

    @property
    def rate(self) -> float:
        """Messages settled (QoS 0: sent) a second, without ramp and tail where there was time enough to tell."""
        if self.steady_rate is not None:
            return self.steady_rate
        return (self.settled or self.sent) / max(self.last_at - self.first_at, 0.001)


def add_up(parts: Iterable[Tally]) -> Tally:
    """Add tallies of processes that ran side by side."""
    total = Tally()
    rates: list[float | None] = []
    for part in parts:
        for name in ("sent", "acked", "settled", "quarantined", "waiting", "devices"):
            setattr(total, name, getattr(total, name) + getattr(part, name))
        total.errors.update(part.errors)
        total.ack_ms.merge(part.ack_ms)
        total.visible_ms.merge(part.visible_ms)
        total.control.merge(part.control)
        if part.first_at:
            total.first_at = min(total.first_at or part.first_at, part.first_at)
        total.last_at = max(total.last_at, part.last_at)
        rates.append(part.steady_rate)
    if rates and None not in rates:
        total.steady_rate = sum(rate for rate in rates if rate is not None)
    return total
