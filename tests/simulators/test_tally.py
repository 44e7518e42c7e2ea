"""Tallies of several processes add up to one."""

from __future__ import annotations

import pickle
from collections import Counter

from simulators.stats import Durations
from simulators.tally import Tally, add_up


def part(sent: int, first_at: float, last_at: float, ms: float, rate: float | None = None) -> Tally:
    durations = Durations()
    durations.add(ms)
    return Tally(
        sent=sent, acked=sent - 1, settled=sent, errors=Counter(resent=1), ack_ms=durations, first_at=first_at,
        last_at=last_at, steady_rate=rate,
    )  # fmt: skip


def test_parts_add_up() -> None:
    total = add_up([part(10, 5.0, 9.0, 1.0), Tally(), part(30, 4.0, 8.0, 100.0)])

    assert (total.sent, total.acked, total.errors["resent"]) == (40, 38, 2)
    assert (total.first_at, total.last_at, total.rate) == (4.0, 9.0, 8.0)
    assert total.ack_ms.count == 2
    assert total.ack_ms.summary()["max"] == 100.0


def test_steady_rates_add_up_when_all_were_measured() -> None:
    assert add_up([part(10, 5.0, 9.0, 1.0, 7.0), part(30, 4.0, 8.0, 2.0, 5.0)]).rate == 12.0
    assert add_up([part(10, 4.0, 9.0, 1.0, 7.0), part(30, 4.0, 8.0, 2.0)]).rate == 8.0


def test_tally_travels_between_processes() -> None:
    tally = part(10, 5.0, 9.0, 1.0)

    again: Tally = pickle.loads(pickle.dumps(tally))

    assert add_up([again]).ack_ms.summary() == tally.ack_ms.summary()
