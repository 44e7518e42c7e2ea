"""Two bridges never give the same time to two messages."""

from __future__ import annotations

import itertools

from ingest.bridge.arrivals import SLOT_NS, Arrivals


def spans(number: int, bridges: int, sizes: list[int]) -> list[tuple[int, int]]:
    arrivals = Arrivals(number=number, bridges=bridges)
    arrivals.begin()
    taken = [arrivals.take(b"devices/d/telemetry", b"x" * size, 1, 0x32) for size in sizes]
    return [(each.received_ns, each.received_ns + len(each.payload)) for each in taken if each is not None]


def test_times_of_several_bridges_never_meet():
    sizes = [200, 1, 50_000, 0, 250_000] * 20
    found = sorted(span for number in (1, 2, 3) for span in spans(number, 3, sizes))

    assert len(found) == 300
    assert all(end < start for (_, end), (start, _) in itertools.pairwise(found))


def test_times_of_one_bridge_run_ahead_of_the_clock_by_slots_only():
    found = spans(2, 4, [100] * 1000)

    assert found == sorted(found)
    assert {start // SLOT_NS % 4 for start, _ in found} == {2}
    assert found[-1][0] - found[0][0] < 5 * SLOT_NS
